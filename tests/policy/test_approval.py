"""RequireApproval (crds.md 5.8): one thing is wrong with a good approval, and it is no yes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from policy.given import load, merge, question, servers_of

from countersign.policy import Decision, RuleSet, decide

FILE = load("06-approvals.yaml")
GIVEN = FILE["given"]
SERVERS = servers_of(GIVEN)
STRIPE = [{"server": {"name": "stripe"}}]
ASK: dict[str, Any] = {"name": "ask", "effect": "RequireApproval", "tools": STRIPE, "approval": {"groups": ["finance"]}}
YES: dict[str, Any] = next(case for case in FILE["cases"] if case["name"] == "approved")["given"]["approvals"][0]
# One that lays a change over `YES` can remove a key by this word, as the vectors do.
GONE = "DELETE"


def answer(*approvals: Any, rules: Any = (ASK,), **given: Any) -> Decision:
    policy = {"kind": "ToolPolicy", "metadata": {"namespace": "billing", "name": "a"}, "spec": {"rules": list(rules)}}
    asked = question(merge(GIVEN, {**given, "approvals": list(approvals)}), FILE["call"])
    return decide(asked, RuleSet.compile([policy]), SERVERS)


def yes(**changes: Any) -> Any:
    return merge(YES, changes)


def test_a_yes_is_a_yes_and_says_which() -> None:
    found = answer(yes())
    assert (found.effect, found.code, found.approval) == ("Allow", "policy.allowed", "billing/x")
    assert found.reason is None


WRONG: dict[str, dict[str, Any]] = {
    "of another namespace": {"metadata": {"namespace": "dev"}},
    "being deleted": {"metadata": {"deletionTimestamp": "2026-11-24T11:59:00Z"}},
    "another call": {"spec": {"call": {"digest": "sha256:" + "2" * 64}}},
    "no call": {"spec": {"call": GONE}},
    "another instance": {"spec": {"instanceRef": {"uid": "inst-2"}}},
    "no instance": {"spec": {"instanceRef": GONE}},
    "another task": {"spec": {"taskRef": {"uid": "task-2"}}},
    "no task": {"spec": {"taskRef": GONE}},
    "expired": {"spec": {"expirationTime": "2026-11-24T12:00:00Z"}},
    "no expiry": {"spec": {"expirationTime": GONE}},
    "an expiry that is no time": {"spec": {"expirationTime": "tomorrow"}},
    "an expiry without an offset": {"spec": {"expirationTime": "2026-11-24T12:10:00"}},
    "used": {"status": {"usedTime": "2026-11-24T11:59:00Z"}},
    "used at a time that cannot be read": {"status": {"usedTime": 0}},
    "rules left out": {"spec": {"rules": GONE}},
    "rules of another policy": {"spec": {"rules": [{"policy": {"kind": "ToolPolicy", "namespace": "billing", "name": "b"}, "rule": "ask"}]}},
    "rules of another kind": {"spec": {"rules": [{"policy": {"kind": "ClusterToolPolicy", "name": "a"}, "rule": "ask"}]}},
    "another rule": {"spec": {"rules": [{"policy": {"kind": "ToolPolicy", "namespace": "billing", "name": "a"}, "rule": "x"}]}},
    "rules that are none": {"spec": {"rules": [7, {"policy": 7, "rule": "ask"}]}},
    "decided by nobody": {"spec": {"decidedBy": GONE}},
    "decided by a name that is none": {"spec": {"decidedBy": {"username": ""}}},
    "decided by the task's user": {"spec": {"decidedBy": {"username": "bent@example.com", "groups": ["finance"]}}},
    "decided by somebody whom the rule does not name": {"spec": {"decidedBy": {"groups": ["support"]}}},
    "groups that are no list": {"spec": {"decidedBy": {"groups": "finance"}}},
    "a decision that is not known": {"spec": {"decision": "Maybe"}},
}  # fmt: skip


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_one_thing_wrong_and_it_is_no_yes(change: dict[str, Any]) -> None:
    found = answer(yes(**change))
    assert (found.effect, found.code, found.approval) == ("RequireApproval", "approval.required", None)


@pytest.mark.parametrize("junk", [None, 7, [], {}, {"metadata": 1, "spec": 2}, {"spec": {"decision": []}}])
def test_junk_is_no_approval(junk: Any) -> None:
    assert answer(junk).code == "approval.required"
    assert answer(junk, yes()).allowed


def test_a_no_counts_beside_a_yes_until_it_expires() -> None:
    no = yes(metadata={"name": "n"}, spec={"decision": "Denied"})
    for order in ((no, yes()), (yes(), no)):
        found = answer(*order)
        assert (found.effect, found.code, found.approval) == ("Deny", "approval.denied", "billing/n")
    assert answer(merge(no, {"spec": {"expirationTime": "tomorrow"}}), yes()).code == "approval.denied"
    assert answer(merge(no, {"spec": {"expirationTime": "2026-11-24T12:00:00Z"}}), yes()).allowed


def test_an_open_request_waits_and_an_expired_one_does_not() -> None:
    pending = yes(spec={"decision": "Pending", "decidedBy": GONE})
    assert answer(pending).code == "approval.pending"
    assert answer(merge(pending, {"spec": {"decision": GONE}})).code == "approval.pending"
    assert answer(merge(pending, {"spec": {"expirationTime": "2026-11-24T12:00:00Z"}})).code == "approval.required"


def test_a_user_or_a_group_is_enough() -> None:
    either = {**ASK, "approval": {"users": ["dora@example.com"], "groups": ["finance"]}}
    by = {"dora@example.com": [], "carla@example.com": ["finance"], "eve@example.com": ["support"]}
    found = {name: answer(yes(spec={"decidedBy": {"username": name, "groups": groups}}), rules=[either]).allowed for name, groups in by.items()}  # fmt: skip
    assert found == {"dora@example.com": True, "carla@example.com": True, "eve@example.com": False}


def test_a_rule_that_was_changed_asks_for_its_approvers_of_now() -> None:
    assert not answer(yes(), rules=[{**ASK, "approval": {"groups": ["audit"]}}]).allowed


def test_two_rules_with_disjoint_approvers_are_never_satisfied() -> None:
    too = {**ASK, "name": "too", "approval": {"groups": ["audit"]}}
    rules = [*YES["spec"]["rules"], {**copy.deepcopy(YES["spec"]["rules"][0]), "rule": "too"}]
    assert answer(yes(spec={"rules": rules}), rules=[ASK, too]).code == "approval.required"


def test_a_policy_of_the_cluster_asks_too() -> None:
    policy = {
        "kind": "ClusterToolPolicy",
        "metadata": {"name": "c"},
        "spec": {"rules": [{**ASK, "tools": [{"server": {"namespace": "billing", "name": "stripe"}}]}]},
    }
    listed = [{"policy": {"kind": "ClusterToolPolicy", "name": "c"}, "rule": "ask"}]
    asked = question(merge(GIVEN, {"approvals": [yes(spec={"rules": listed})]}), FILE["call"])
    assert decide(asked, RuleSet.compile([policy]), SERVERS).allowed


def test_without_a_task_an_approval_names_none() -> None:
    alone = {"caller": {"agent": {"tasks": "Optional"}}, "task": None}
    assert answer(yes(spec={"taskRef": GONE}), **alone).allowed
    assert answer(yes(), **alone).code == "approval.required"


def test_a_call_without_a_digest_is_never_approved() -> None:
    policy = {"kind": "ToolPolicy", "metadata": {"namespace": "billing", "name": "a"}, "spec": {"rules": [ASK]}}
    given = merge(GIVEN, {"approvals": [yes(spec={"call": {"digest": ""}})]})
    asked = question(given, {**FILE["call"], "digest": ""})
    assert decide(asked, RuleSet.compile([policy]), SERVERS).code == "approval.required"


def test_an_allow_beside_it_does_not_avoid_the_question() -> None:
    allow = {"name": "all", "effect": "Allow", "tools": STRIPE}
    assert answer(rules=[ASK, allow]).code == "approval.required"
    assert answer(yes(), rules=[ASK, allow]).rule == "ask"


def test_approval_lifts_no_deny_and_nothing_undecided() -> None:
    assert answer(yes(), rules=[ASK, {"name": "no", "effect": "Deny"}]).code == "policy.denied"
    undecided = {"name": "no", "effect": "Deny", "when": "args.x == 1"}
    assert answer(yes(), rules=[ASK, undecided]).code == "policy.undecided"
    assert answer(yes(), task={"spec": {"state": "Ended"}}).code == "task.ended"


def test_in_audit_mode_nobody_is_asked() -> None:
    policy = {
        "kind": "ToolPolicy",
        "metadata": {"namespace": "billing", "name": "a"},
        "spec": {"mode": "Audit", "rules": [ASK]},
    }
    found = decide(question(GIVEN, FILE["call"]), RuleSet.compile([policy]), SERVERS)
    assert found.code == "policy.default_deny"
    assert [(mark.rule, mark.effect) for mark in found.audit] == [("ask", "RequireApproval")]
