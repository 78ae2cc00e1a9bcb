"""What must hold for every set of policies: more Denies never allow, nothing never allows, order and junk change nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from policy.given import servers_of
from policy.strategies import ANY, ASKED, BASE, JSON, SERVERS, policy, quick

from countersign.errors import CODES
from countersign.policy import Decision, RuleSet, decide, explain, listable, names_server
from countersign.policy.decide import judged
from countersign.policy.facts import CallFacts
from countersign.wire import parse_json

if TYPE_CHECKING:
    import random


def answer(policies: list[Any]) -> Decision:
    return decide(ASKED, RuleSet.compile(policies), SERVERS)


@quick
@given(st.lists(ANY, max_size=4), policy(["Deny"]))
def test_one_more_deny_never_allows(policies: list[Any], more: dict[str, Any]) -> None:
    before, after = answer(policies), answer([*policies, more])
    assert before.allowed or not after.allowed


@quick
@given(st.lists(policy(["Deny", "RequireApproval", "Perhaps"]), max_size=4))
def test_without_an_allow_rule_nothing_is_allowed(policies: list[Any]) -> None:
    assert not answer(policies).allowed


@quick
@given(st.lists(policy(["Deny", "Perhaps"]), max_size=4))
def test_without_a_rule_that_grants_nothing_is_listed(policies: list[Any]) -> None:
    assert listable(ASKED, RuleSet.compile(policies), SERVERS) == ()


def test_no_policies_deny() -> None:
    assert answer([]) == Decision("Deny", "policy.default_deny")


@quick
@given(st.lists(ANY, max_size=4), st.randoms(use_true_random=False))
def test_order_does_not_matter(policies: list[Any], chance: random.Random) -> None:
    mixed = [{**one, "spec": {**one["spec"], "rules": one["spec"]["rules"][::-1]}} for one in policies]
    chance.shuffle(mixed)
    assert answer(mixed) == answer(policies)
    assert RuleSet.compile(mixed).digest == RuleSet.compile(policies).digest


@quick
@given(st.lists(ANY, max_size=4))
def test_the_index_finds_what_a_walk_over_all_rules_finds(policies: list[Any]) -> None:
    rules = RuleSet.compile(policies)
    facts = CallFacts.of(ASKED, server="billing/stripe", tool="create_refund", access="Destructive")
    found = {(id(one), id(each), value) for one, each, value in judged(facts, rules)}
    walked = set()
    for one in rules.policies:
        if one.speaks(facts):
            for each in one.rules if one.readable else (None,):
                value = None if each is None or one.all_undecided else each.value(facts)
                if value is not False:
                    walked.add((id(one), id(each), value))
    assert found == walked


@quick
@given(st.lists(ANY, max_size=4))
def test_explain_agrees_with_decide(policies: list[Any]) -> None:
    rules = RuleSet.compile(policies)
    found, views = decide(ASKED, rules, SERVERS), explain(ASKED, rules, SERVERS)
    said = {(view.mark.effect, view.value) for view in views if view.enforced}
    asking = ("RequireApproval", True)
    if ("Deny", True) in said:
        expected = "policy.denied"
    elif said & {("Deny", None), ("RequireApproval", None)}:
        expected = "policy.undecided"
    elif asking in said:
        expected = "approval.required"
    else:
        expected = "policy.allowed" if ("Allow", True) in said else "policy.default_deny"
    assert found.code == expected
    marks = {(view.mark.policy, view.mark.rule) for view in views if view.value is not False}
    assert {(mark.policy, mark.rule) for mark in (*found.settled, *found.audit)} <= marks


@quick
@given(st.lists(ANY, max_size=3))
def test_an_audit_policy_changes_no_outcome(policies: list[Any]) -> None:
    recorded = [{**one, "spec": {**one["spec"], "mode": "Audit"}} for one in policies]
    allow = {"name": "r", "effect": "Allow", "tools": [{"server": {"name": "stripe"}}], "when": "args.charge == 'ch_1'"}
    plain = {"kind": "ToolPolicy", "metadata": {"namespace": "billing", "name": "z"}, "spec": {"rules": [allow]}}
    assert replace(answer([*recorded, plain]), audit=()) == answer([plain])


ENCODINGS = ["5", "5.0", "5e0", "50e-1", "0.5e1"]


@quick
@given(
    st.lists(ANY, max_size=4), st.sampled_from(ENCODINGS), st.sampled_from(['"ch_1"', '"\\u0063h_1"', '"ch\\u005f1"'])
)
def test_an_equivalent_encoding_of_a_call_changes_nothing(policies: list[Any], number: str, word: str) -> None:
    plain = parse_json(b'{"amount":5,"charge":"ch_1"}')
    other = parse_json(f' {{ "charge" : {word},\n"amount":{number}}}'.encode())
    rules = RuleSet.compile(policies)
    assert decide(replace(ASKED, arguments=other), rules, SERVERS) == decide(
        replace(ASKED, arguments=plain), rules, SERVERS
    )


@quick
@given(st.lists(JSON | ANY, max_size=4), st.dictionaries(st.text(max_size=5), JSON, max_size=3))
def test_no_data_makes_it_raise(policies: list[Any], arguments: dict[str, Any]) -> None:
    for tool in ("create_refund", "fetch"):
        asked = replace(ASKED, tool=tool, arguments=arguments)
        rules = RuleSet.compile(policies)
        decision = decide(asked, rules, SERVERS)
        assert decision.code in CODES
        listable(asked, rules, SERVERS)
        names_server(asked, rules, SERVERS)


@quick
@given(
    st.dictionaries(st.sampled_from(["name", "effect", "tools", "arguments", "unless", "when", "x"]), JSON), JSON, JSON
)
def test_a_junk_rule_never_raises_and_never_helps(junk: dict[str, Any], tools: Any, spec: Any) -> None:
    for each in (
        {**junk, "tools": tools},
        {"name": "a", "effect": "Allow", **junk},
        {"name": "a", "effect": "Allow", "tools": [{"server": {"name": "stripe"}}], "arguments": tools},
    ):
        broken = {"kind": "ToolPolicy", "metadata": {"namespace": "billing", "name": "p"}, "spec": {"rules": [each]}}
        assert not answer([broken]).allowed
    assert not answer([{"kind": "ClusterToolPolicy", "metadata": {"name": "c"}, "spec": spec}]).allowed


@quick
@given(JSON, JSON)
def test_a_junk_task_or_server_never_raises(task: Any, server: Any) -> None:
    rules = RuleSet.compile([])
    asked = replace(ASKED, task=task if isinstance(task, dict) else {"metadata": task, "spec": task, "status": task})
    assert not decide(asked, rules, SERVERS).allowed
    given_ = {
        **BASE["given"],
        "toolServers": [server, {"metadata": {"namespace": "billing", "name": "s"}, "spec": server}],
    }
    assert servers_of(given_).servers == {}
