"""What holds for the tree as a whole: the traps of the layout, and the papers beside the code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from countersign.demo.scenes import LAST, SCENES
from countersign.errors import CODES, Denied

ROOT = Path(__file__).parents[1]
HOSTS = ("pypi" + ".org", "files.python" + "hosted", "registry.npm" + "js", "crates" + ".io", "proxy.go" + "lang")


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in listing.splitlines()]


def test_no_python_file_lies_directly_in_operator() -> None:
    assert list((ROOT / "operator").glob("*.py")) == []


def test_the_tests_are_no_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_no_file_names_a_package_registry() -> None:
    texts = {path: path.read_bytes() for path in tracked() if path.is_file()}
    assert [path.name for path, text in texts.items() for host in HOSTS if host.encode() in text] == []


def test_the_registry_of_codes_has_every_code_of_the_wire_page_and_no_other() -> None:
    page = (ROOT / "docs" / "wire.md").read_text()
    section = page[page.index("## 10. Codes") : page.index("## 11. Limits")]
    listed = set()
    for family, names in re.findall(r"\*\*([a-z]+)\.\*\* ([^*]+?)(?= — |\n- |\n\n|$)", section):
        listed |= {f"{family}.{name.split(' (')[0].strip()}" for name in re.sub(r"\([^)]*\)", "", names).split("·")}
    assert listed == {code for code in CODES if not code.startswith("attest.")}


def test_the_registry_of_codes_has_every_code_of_the_enrolment_page() -> None:
    page = (ROOT / "docs" / "enrolment.md").read_text()
    assert {code.strip("`") for code in re.findall(r"`attest\.[a-z_]+`", page)} <= CODES


def test_an_unregistered_code_cannot_be_raised() -> None:
    with pytest.raises(ValueError, match="unregistered"):
        Denied("policy.perhaps")


def test_the_readme_opens_with_the_two_commands_and_shows_every_scene_of_the_demo() -> None:
    readme = (ROOT / "README.md").read_text()
    assert re.match(r"# Countersign\n\n```\nmake demo .*\nmake test .*\n```\n", readme)
    assert re.findall(r"^PASS (.+?) · expected: (.+?) · saw: ", readme, re.MULTILINE) == [
        (scene.name, scene.expected) for scene in (*SCENES, LAST)
    ]
