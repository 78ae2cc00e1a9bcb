"""`countersign policy test`: the vectors pass, a wrong expectation fails, and a file that is not the format is refused."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from countersign.policytools.main import command

RUN = CliRunner()
VECTORS = Path(__file__).parents[1] / "data" / "policy"
CORNERS = Path(__file__).parents[1] / "data" / "policytools" / "cases"
FILE: dict[str, Any] = yaml.safe_load((VECTORS / "05-cel.yaml").read_text())


def run(*words: str | Path, code: int = 0) -> str:
    result = RUN.invoke(command, ["test", *map(str, words)])
    assert result.exit_code == code, result.output
    return result.output


def write(path: Path, **changes: Any) -> Path:
    """A file of one good case, with changes."""
    case = {"name": "one", "call": FILE["cases"][0]["call"], "given": FILE["cases"][0]["given"]}
    case["expect"] = FILE["cases"][0]["expect"]
    found = copy.deepcopy({"given": FILE["given"], "call": FILE["call"], "cases": [case]})
    for name, value in changes.items():
        *way, last = name.split("__")
        place: Any = found
        for step in way:
            place = place[int(step) if step.isdigit() else step]
        place[last] = value
    file = path / "one.yaml"
    file.write_text(json.dumps(found))
    return file


def test_every_vector_passes() -> None:
    assert run(VECTORS).splitlines()[-1] == "197 passed, 0 failed"


def test_every_corner_passes_as_a_person_runs_it() -> None:
    command = Path(sys.executable).with_name("countersign")
    words = [str(command), "policy", "test", str(CORNERS), str(VECTORS)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "417 passed, 0 failed"), done.stdout


def test_a_good_file_passes_and_says_so_as_json(tmp_path: Path) -> None:
    file = write(tmp_path)
    assert run(file) == "1 passed, 0 failed\n"
    assert json.loads(run(tmp_path, "-o", "json")) == {
        "passed": 1,
        "failed": 0,
        "cases": [{"file": str(file), "name": "one", "passed": True}],
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"cases__0__expect": {"effect": "Deny", "code": "policy.default_deny"}},
        {"cases__0__expect": {"effect": "Allow", "code": "policy.allowed", "policy": "ToolPolicy billing/a"}},
        {"cases__0__expect__reason": "There is none."},
        {"cases__0__expect__audit": [{"policy": "ToolPolicy billing/a", "rule": "r", "effect": "Allow"}]},
        {"cases__0__call__argumentsJSON": '{"charge":"ch_1","charge":"ch_1"}'},
    ],
)
def test_another_answer_than_expected_fails(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = write(tmp_path, **changes)
    said = run(file, code=1).splitlines()
    assert said[0] == f"FAIL {file}: one"
    assert said[1].startswith("  expected: ")
    assert said[2].startswith("  got:      ")
    assert said[-1] == "0 passed, 1 failed"
    [case] = json.loads(run(file, "-o", "json", code=1))["cases"]
    assert (case["passed"], case["expected"]) == (False, json.loads(file.read_text())["cases"][0]["expect"])


def test_a_call_that_is_no_strict_json_has_the_parsers_code(tmp_path: Path) -> None:
    expect = {"effect": "Deny", "code": "parse.duplicate"}
    run(write(tmp_path, cases__0__call__argumentsJSON='{"a":1,"a":1}', cases__0__expect=expect))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gven": {}}, "unknown field 'gven'"),
        ({"cases__0__expct": {}}, "unknown field 'expct'"),
        ({"given__clusters": []}, "unknown field 'clusters'"),
        ({"given__caller__agnt": {}}, "unknown field 'agnt'"),
        ({"given__caller__agent__labels": {}}, "unknown field 'labels'"),
        ({"given__caller__device__facts__0__time": ""}, "unknown field 'time'"),
        ({"given__caller__instance__pod": ""}, "unknown field 'pod'"),
        ({"call__args": {}}, "unknown field 'args'"),
        ({"cases__0__expect__why": ""}, "unknown field 'why'"),
        ({"cases__0__expect": {"effect": "Deny"}}, "'code' is missing"),
        ({"cases__0__expect__effect": "Perhaps"}, "expect.effect"),
        ({"cases__0__expect__code": "policy.alowed"}, "there is no code 'policy.alowed'"),
        ({"given__now": "today"}, "given.now"),
        ({"given__caller__keyTier": 4}, "keyTier: a text is wanted"),
        ({"given__caller__device__facts__0__value": True}, "value and source are texts"),
        ({"cases": []}, "there are no cases"),
        ({"cases__0__list": "billing/stripe"}, "exclude each other"),
        ({"cases__0__name": None}, "name: a text is wanted"),
        ({"given__policies": {}}, "given.policies: a list is wanted"),
    ],
)
def test_a_file_that_is_not_the_format_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    if "given__policies" in changes:
        changes = {**changes, "cases__0__given": {}}
    file = write(tmp_path, **changes)
    found = run(file, code=2)
    assert said in found
    assert str(file) in found


def test_yaml_that_says_something_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text("cases: []\ncases: []\n")
    assert "'cases' is said twice" in run(tmp_path, code=2)
    (tmp_path / "two.yaml").write_text("{")
    assert "no YAML" in run(tmp_path, code=2)


def test_what_is_not_there_is_wrong_use(tmp_path: Path) -> None:
    assert "no such file" in run(tmp_path / "gone", code=2)
    assert "no YAML file" in run(tmp_path, code=2)


def manifest(path: Path, **rule: Any) -> Path:
    whole = {"name": "all", "effect": "Allow", "tools": [{"server": {"name": "stripe"}}], **rule}
    meta = {"namespace": "billing", "name": "mine"}
    policy = {
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "ToolPolicy",
        "metadata": meta,
        "spec": {"rules": [whole]},
    }
    path.write_text(json.dumps(policy))
    return path


def test_manifests_stand_in_the_place_of_a_cases_policies(tmp_path: Path) -> None:
    cases, policies = write(tmp_path), manifest(tmp_path / "policy.json")
    assert "ToolPolicy billing/mine" in run(cases, "--policies", policies, code=1)


def test_a_manifest_with_a_misspelt_field_is_refused(tmp_path: Path) -> None:
    cases, policies = write(tmp_path), manifest(tmp_path / "policy.json", argumants=[])
    assert "unknown field spec.rules[0].argumants" in run(cases, "--policies", policies, code=2)


def test_a_question_that_nobody_can_answer_is_pointed_out(tmp_path: Path) -> None:
    ask = {"effect": "RequireApproval", "tools": [{"server": {"name": "stripe"}}]}
    rules = [
        {**ask, "name": "one", "approval": {"groups": ["finance"]}},
        {**ask, "name": "two", "approval": {"groups": ["audit"]}},
    ]
    policy = {"kind": "ToolPolicy", "metadata": {"namespace": "billing", "name": "a"}, "spec": {"rules": rules}}
    expect = {"effect": "RequireApproval", "code": "approval.required", "policy": "ToolPolicy billing/a", "rule": "one"}
    found = run(write(tmp_path, cases__0__given={"policies": [policy]}, cases__0__expect=expect))
    assert "warning: " in found
    assert "waits for ever" in found
