"""The decision vectors, each a test by its name, with policies and rules in several orders."""

from __future__ import annotations

from typing import Any

import pytest
from policy.given import load, merge, question, rules_of, servers_of

from countersign.policy import Decision, decide, listable
from countersign.wire import parse_json

FILES = {
    "01-combining.yaml": 23,
    "02-who-and-where.yaml": 35,
    "03-tools.yaml": 25,
    "04-arguments.yaml": 46,
    "05-cel.yaml": 11,
    "06-approvals.yaml": 11,
    "07-worked-examples.yaml": 33,
    "08-lists.yaml": 13,
}
SEEDS = range(4)


def _cases() -> list[Any]:
    found = []
    for name in FILES:
        file = load(name)
        for case in file["cases"]:
            call = {**file.get("call", {}), **case.get("call", {})}
            call = {key: value for key, value in call.items() if value != "DELETE"}
            if "argumentsJSON" in call:
                call["arguments"] = parse_json(call["argumentsJSON"].encode())
            given = merge(file["given"], case.get("given", {}))
            found.append(pytest.param(case, given, call, id=f"{name[:2]}: {case['name']}"))
    return found


def _shown(decision: Decision) -> dict[str, Any]:
    """Write a decision as the vectors do."""
    shown: dict[str, Any] = {"effect": decision.effect, "code": decision.code}
    shown |= {name: value for name in ("policy", "rule", "reason") if (value := getattr(decision, name)) is not None}
    if decision.audit:
        shown["audit"] = [{"policy": m.policy, "rule": m.rule, "effect": m.effect} for m in decision.audit]
    return shown


def test_the_files_hold_what_they_held() -> None:
    assert {name: len(load(name)["cases"]) for name in FILES} == FILES


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("case", "given", "call"), _cases())
def test_vector(case: dict[str, Any], given: dict[str, Any], call: dict[str, Any], seed: int) -> None:
    rules, servers = rules_of(given, seed), servers_of(given)
    if "list" in case:
        asked = question(given, {"server": case["list"], "method": "tools/list"})
        assert list(listable(asked, rules, servers)) == case["expect"]
    else:
        assert _shown(decide(question(given, call), rules, servers)) == case["expect"]
