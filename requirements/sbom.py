"""Print what is installed here as CycloneDX 1.6 JSON: the Python distributions of this interpreter and Debian's packages.

The Containerfile runs it in the finished image. Nothing in the output depends on when or where it runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import Distribution, distributions
from shutil import which
from typing import Any
from urllib.parse import quote


def _python(found: Distribution) -> dict[str, Any]:
    name, version = found.metadata["Name"], found.version
    component: dict[str, Any] = {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{quote(name.lower().replace('_', '-'))}@{quote(version)}",
    }
    if licence := found.metadata.get("License-Expression"):
        component["licenses"] = [{"expression": licence}]
    return component


def _debian() -> list[dict[str, Any]]:
    if which("dpkg-query") is None:
        return []
    words = ["dpkg-query", "--show", "--showformat=${Package}\t${Version}\t${Architecture}\n"]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    return [
        {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}",
        }
        for name, version, architecture in (line.split("\t") for line in lines)
    ]


def bill() -> dict[str, Any]:
    """Return the bill of materials; the component it is about is Countersign itself."""
    python = sorted((_python(each) for each in distributions()), key=lambda each: each["purl"])
    ours = next(({**each, "type": "application"} for each in python if each["name"] == "countersign"), None)
    others = [each for each in python if each["name"] != "countersign"]
    document: dict[str, Any] = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1}
    if ours is not None:
        document["metadata"] = {"component": ours}
    return {**document, "components": [*others, *_debian()]}


if __name__ == "__main__":
    json.dump(bill(), sys.stdout, indent=1)
