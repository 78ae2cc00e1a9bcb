"""`countersign policy lint`: each check on the one thing that it is about, and silence where nothing is wrong."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from typer.testing import CliRunner

from countersign.policytools.lint import lint
from countersign.policytools.main import command
from countersign.policytools.objects import Objects

if TYPE_CHECKING:
    from countersign.policytools.findings import Finding

RUN = CliRunner()
FILE = Path(__file__).parents[1] / "data" / "policytools" / "manifests" / "billing.yaml"
OBJECTS = list(yaml.safe_load_all(FILE.read_text()))
API = "countersign.dev/v1alpha1"
REFUND = [{"server": {"name": "stripe"}, "names": ["create_refund"]}]


def rule(name: str = "r", effect: str = "Allow", **more: Any) -> dict[str, Any]:
    found = {"name": name, "effect": effect, "tools": REFUND, **more}
    return {key: value for key, value in found.items() if value is not None}


def policy(*rules: dict[str, Any], name: str = "p", cluster: bool = False, **spec: Any) -> dict[str, Any]:
    kind = "ClusterToolPolicy" if cluster else "ToolPolicy"
    meta = {"name": name} if cluster else {"name": name, "namespace": "billing"}
    return {"apiVersion": API, "kind": kind, "metadata": meta, "spec": {"rules": list(rules), **spec}}


def found(*policies: dict[str, Any], server: dict[str, Any] | None = None) -> list[Finding]:
    objects = Objects()
    for obj in copy.deepcopy(OBJECTS[:2]):
        if obj["kind"] == "ToolServer" and server is not None:
            obj["spec"] |= server
        objects.put(obj)
    for one in policies:
        objects.put(one)
    return lint(objects)


def checks(*policies: dict[str, Any], **more: Any) -> list[tuple[str, str, str]]:
    return [(one.check, one.severity, one.rule) for one in found(*policies, **more)]


ASK = {"effect": "RequireApproval", "approval": {"groups": ["finance"]}}
CLUSTER_REFUND = [{"server": {"namespace": "billing", "name": "stripe"}, "names": ["create_refund"]}]
ONE_AGENT = {"agents": [{"name": "refund-agent"}]}


def integer(**bounds: Any) -> dict[str, Any]:
    return {"pointer": "/amount", "type": "Integer", "integer": bounds}


@pytest.mark.parametrize(
    "good",
    [
        [policy(rule())],
        [policy(rule(when="args.amount > 5"))],
        [policy(rule(), rule("no", "Deny", when="args.amount > 5"))],
        [policy(rule(), rule("no", "Deny", unless={"minKeyTier": "TPM"}))],
        [policy(rule(), rule("ask", **ASK, subjects={"groups": ["x"]}))],
        [policy(rule(arguments=[integer(minimum=1), integer(maximum=9)]))],
        [policy(rule()), policy(rule("no", "Deny"), name="q", mode="Audit")],
        [policy(rule(), name="p"), policy(rule("no", "Deny", tools=None), cluster=True, namespaceSelector={"matchLabels": {"scope.countersign.dev/team": "x"}})],
        [policy(rule("no", "Deny", tools=None), cluster=True, namespaceSelector={"matchLabels": {"kubernetes.io/metadata.name": "x"}})],
        [policy(rule("a", **ASK), rule("b", effect="RequireApproval", approval={"users": ["carla"]}))],
        [policy(rule("a", **ASK), rule("b", effect="RequireApproval", approval={"groups": ["finance", "x"]}))],
    ],
)  # fmt: skip
def test_nothing_is_said_where_nothing_is_wrong(good: list[dict[str, Any]]) -> None:
    assert found(*good) == []


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (policy(rule(argumants=[])), ("unknown-field", "error", "")),
        (policy(rule(effect="Perhaps")), ("invalid", "error", "")),
        (policy(rule(when="args.amount")), ("expression", "error", "r")),
        (policy(rule(when="user.nmae == 'x'")), ("expression", "error", "r")),
        (policy(rule(when="true")), ("too-wide", "warning", "r")),
        (policy(rule(when="false")), ("contradictory", "warning", "r")),
        (policy(rule(when="args.amuont > 5")), ("dangling", "warning", "r")),
        (policy(rule(when="args['amuont'] > 5")), ("dangling", "warning", "r")),
        (policy(rule(subjects={"agents": [{"name": "gone"}]})), ("dangling", "warning", "r")),
        (policy(rule(tools=[{"server": {"name": "gone"}, "names": ["x"]}])), ("dangling", "warning", "r")),
        (policy(rule(tools=[{"server": {"name": "stripe"}, "names": ["create_refund", "x"]}])), ("dangling", "warning", "r")),
        (policy(rule(tools=[{"server": {"name": "stripe"}, "access": ["ReadWrite"]}])), ("unreachable", "warning", "r")),
        (policy(rule(tools=[{"server": {"name": "stripe"}}])), ("too-wide", "warning", "r")),
        (policy(rule(tools=CLUSTER_REFUND), cluster=True), ("too-wide", "warning", "r")),
        (policy(rule(arguments=[integer(maximum=1), integer(minimum=2)])), ("contradictory", "warning", "r")),
        (policy(rule(arguments=[integer(values=[1]), integer(minimum=2)])), ("contradictory", "warning", "r")),
        (policy(rule(arguments=[integer(minimum=2), {"pointer": "/amount", "type": "Absent"}])), ("contradictory", "warning", "r")),
        (policy(rule("no", "Deny", environment={"clusters": ["a"]}, unless={"clusters": ["a", "b"]})), ("contradictory", "warning", "no")),
        (policy(rule("a", **ASK), rule("b", effect="RequireApproval", approval={"groups": ["audit"]})), ("contradictory", "warning", "a")),
        (policy(rule(), rule("no", "Deny")), ("shadowed", "warning", "r")),
        (policy(rule(), rule("ask", **ASK)), ("shadowed", "warning", "r")),
        (policy(rule(subjects=ONE_AGENT), rule("s")), ("shadowed", "note", "r")),
        (policy(rule("a"), rule("b")), ("shadowed", "note", "b")),
        (policy(rule(when="args.charge.matches('a{3}')")), ("cost", "note", "r")),
        (policy(rule(when="args.charge.matches('a') && [1].all(x, [2].all(y, x < y))")), ("cost", "warning", "r")),
        (policy(rule(when="[1].map(x, x) == [args.amount]")), ("cost", "note", "r")),
        (
            policy(rule("no", "Deny", tools=None), cluster=True, namespaceSelector={"matchLabels": {"team": "x"}}),
            ("selector-key", "warning", ""),
        ),
        (
            policy(rule("no", "Deny", tools=None), cluster=True, namespaceSelector={"matchExpressions": [{"key": "team", "operator": "Exists"}]}),
            ("selector-key", "warning", ""),
        ),
    ],
)  # fmt: skip
def test_each_check_finds_what_it_is_about(bad: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert checks(bad) == [expected]


def test_a_policy_of_the_cluster_shadows_one_of_a_namespace() -> None:
    deny = policy(rule("no", "Deny", tools=[{"access": ["Destructive"]}]), name="c", cluster=True)
    assert checks(policy(rule()), deny) == [("shadowed", "warning", "r")]
    assert checks(policy(rule()), {**deny, "spec": {**deny["spec"], "mode": "Audit"}}) == []


def test_a_servers_selector_is_looked_at_too() -> None:
    expose = {"exposeTo": {"from": "Selector", "selector": {"matchLabels": {"team": "x"}}}}
    assert [one.check for one in found(policy(rule()), server=expose)] == ["selector-key"]


def test_an_open_schema_makes_no_argument_dangle() -> None:
    tools = [
        {
            "name": "create_refund",
            "access": "Destructive",
            "inputSchema": {"type": "object", "additionalProperties": True},
        }
    ]
    assert found(policy(rule(when="args.anything == 1")), server={"tools": tools}) == []


def test_the_command_prints_a_table_or_json_and_ends_by_what_it_found(tmp_path: Path) -> None:
    clean = RUN.invoke(command, ["lint", "-f", str(FILE)])
    assert (clean.exit_code, clean.output) == (0, "1 policies: 0 errors, 0 warnings, 0 notes\n")
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(policy(rule(when="args.amount"))))
    bad = RUN.invoke(command, ["lint", "-f", str(FILE), "-f", str(tmp_path)])
    assert bad.exit_code == 1
    assert "the result is DYN, not bool" in bad.output
    as_json = json.loads(RUN.invoke(command, ["lint", "-f", str(FILE), "-f", str(tmp_path), "-o", "json"]).output)
    assert (as_json["error"], as_json["findings"][0]["check"]) == (1, "expression")
    (tmp_path / "bad.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n")
    assert RUN.invoke(command, ["lint", "-f", str(tmp_path)]).exit_code == 2


def test_the_examples_are_clean() -> None:
    folder = Path(__file__).parents[2] / "examples" / "quickstart"
    result = RUN.invoke(command, ["lint", "-f", str(folder)])
    assert result.exit_code == 0, result.output
