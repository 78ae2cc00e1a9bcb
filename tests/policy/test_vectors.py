"""The decision vectors, each a test by its name. What is not built yet must refuse, and a rule in code says which those are."""

from __future__ import annotations

from typing import Any

import pytest
from policy.given import load, merge, question, rules_of, servers_of

from countersign.policy import Decision, decide, listable

FILES = ("01-combining.yaml", "02-who-and-where.yaml", "03-tools.yaml", "04-arguments.yaml", "08-lists.yaml")
SEEDS = range(4)


def _cases() -> list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]]:
    found = []
    for name in FILES:
        file = load(name)
        for case in file["cases"]:
            call = {key: value for key, value in {**file["call"], **case.get("call", {})}.items() if value != "DELETE"}
            found.append((f"{name[:2]}: {case['name']}", case, merge(file["given"], case.get("given", {})), call))
    return found


def _unbuilt(given: dict[str, Any]) -> bool:
    """Whether the case needs `when` or the approval of a RequireApproval rule."""
    rules = [rule for policy in given["policies"] for rule in policy["spec"]["rules"]]
    return any("when" in rule or rule["effect"] == "RequireApproval" for rule in rules)


CASES = _cases()
BUILT = [(case, given, call) for _name, case, given, call in CASES if not _unbuilt(given)]
UNBUILT = [(case, given, call) for _name, case, given, call in CASES if _unbuilt(given)]
_NAMES = [name for name, _case, given, _call in CASES if not _unbuilt(given)]
_UNBUILT_NAMES = [name for name, _case, given, _call in CASES if _unbuilt(given)]


def _shown(decision: Decision) -> dict[str, Any]:
    """Write a decision as the vectors do."""
    shown: dict[str, Any] = {"effect": decision.effect, "code": decision.code}
    shown |= {name: value for name in ("policy", "rule", "reason") if (value := getattr(decision, name)) is not None}
    if decision.audit:
        shown["audit"] = [{"policy": m.policy, "rule": m.rule, "effect": m.effect} for m in decision.audit]
    return shown


def test_the_files_hold_what_they_held() -> None:
    assert (len(BUILT), len(UNBUILT)) == (135, 7)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("case", "given", "call"), BUILT, ids=_NAMES)
def test_vector(case: dict[str, Any], given: dict[str, Any], call: dict[str, Any], seed: int) -> None:
    rules, servers = rules_of(given, seed), servers_of(given)
    if "list" in case:
        asked = question(given, {"server": case["list"], "method": "tools/list"})
        assert list(listable(asked, rules, servers)) == case["expect"]
    else:
        assert _shown(decide(question(given, call), rules, servers)) == case["expect"]


@pytest.mark.parametrize(("case", "given", "call"), UNBUILT, ids=_UNBUILT_NAMES)
def test_what_is_not_built_never_helps_a_caller(
    case: dict[str, Any], given: dict[str, Any], call: dict[str, Any]
) -> None:
    rules, servers = rules_of(given), servers_of(given)
    if "list" in case:
        asked = question(given, {"server": case["list"], "method": "tools/list"})
        assert set(listable(asked, rules, servers)) <= set(case["expect"])
        return
    decision = decide(question(given, call), rules, servers)
    if case["expect"]["effect"] == "RequireApproval":
        assert (decision.effect, decision.code) == ("Deny", "policy.undecided")
        assert (decision.policy, decision.rule) == (case["expect"]["policy"], case["expect"]["rule"])
    else:
        # Undecided either way: `when` is not what settles these cases.
        assert _shown(decision) == case["expect"]
