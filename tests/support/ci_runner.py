"""The manifests of examples/ci-runner, in a namespace and with an image of a test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "examples" / "ci-runner"


def objects(name: str, namespace: str) -> list[dict[str, Any]]:
    """Return the objects of a file, moved to ``namespace``."""
    text = (FOLDER / name).read_text().replace("tools.ci.svc", f"tools.{namespace}.svc")
    found = [each for each in yaml.safe_load_all(text) if each]
    for each in found:
        if each["kind"] == "Namespace":
            each["metadata"]["name"] = namespace
        else:
            each["metadata"]["namespace"] = namespace
    return found


def job(namespace: str, image: str, *, node: str) -> tuple[str, str]:
    """Return the manifests of the Job's identity and of the Job, which runs ``image`` on ``node`` and pulls nothing."""
    *identity, work = objects("20-job.yaml", namespace)
    spec = work["spec"]["template"]["spec"]
    spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    spec["containers"][0] |= {"image": image, "imagePullPolicy": "Never"}
    return yaml.safe_dump_all(identity), yaml.safe_dump(work)
