"""A set of rules that was edited is the set that is compiled from what is there in the end, whatever the edits were."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from policy.strategies import ANY, ASKED, JSON, SERVERS, quick

from countersign.policy import RuleSet, decide, explain, listable, names_server

if TYPE_CHECKING:
    from countersign.policy.compiled import Policy
    from countersign.policy.rule import Rule

CLUSTER = st.fixed_dictionaries(
    {
        "kind": st.just("ClusterToolPolicy"),
        "metadata": st.fixed_dictionaries({"name": st.sampled_from("xy")}),
        "spec": st.fixed_dictionaries(
            {"rules": st.just([{"name": "all", "effect": "Deny", "tools": [{"names": ["create_refund"]}]}])},
            optional={"namespaceSelector": st.sampled_from([{"matchLabels": {"a": "b"}}, {}, {"matchLabels": 1}])},
        ),
    }
)
GOING = ANY.map(lambda one: {**one, "metadata": {**one["metadata"], "deletionTimestamp": "2026-11-24T10:00:00Z"}})
# What a watch tells: by name, the object as it is now, or None.
EDIT = st.dictionaries(st.sampled_from("abcdefg"), st.none() | ANY | CLUSTER | GOING | JSON, max_size=4)


def mark(policy: Policy, rule: Rule | None) -> tuple[Any, ...]:
    return policy.label, policy.digest, rule.name if rule else None, rule.effect if rule else None


def shape(rules: RuleSet) -> dict[str, Any]:
    """Return all that a set is made of, without the order of what has none."""
    return {
        "digest": rules.digest,
        "policies": Counter((one.label, one.digest) for one in rules.policies),
        "index": {place: Counter(mark(*entry) for entry in found) for place, found in rules._index.items()},
        "grants": {place: Counter(mark(*entry) for entry in found) for place, found in rules._grants.items()},
        "selecting": Counter(one.label for one in rules._selecting.values()),
    }


def answers(rules: RuleSet) -> tuple[Any, ...]:
    views = Counter((view.mark, view.enforced, view.value, view.parts) for view in explain(ASKED, rules, SERVERS))
    listed = listable(ASKED, rules, SERVERS)
    return decide(ASKED, rules, SERVERS), listed, names_server(ASKED, rules, SERVERS), views


@quick
@given(st.lists(EDIT, max_size=6))
def test_edited_rules_are_the_rules_that_are_compiled_at_once(edits: list[dict[str, Any]]) -> None:
    rules, there, sets = RuleSet(), dict[str, Any](), list[tuple[RuleSet, dict[str, Any]]]()
    for edit in edits:
        present = {name: found for name, found in edit.items() if found is not None}
        rules = rules.edited(present, [name for name, found in edit.items() if found is None])
        there = {name: found for name, found in {**there, **edit}.items() if found is not None}
        sets.append((rules, dict(there)))
    for one, objects in sets:  # at the end: a set that was edited is what it was
        whole = RuleSet.compile(objects.values())
        assert shape(one) == shape(whole)
        assert answers(one) == answers(whole)


@quick
@given(st.lists(ANY | JSON, max_size=5))
def test_what_is_said_again_changes_nothing(policies: list[Any]) -> None:
    rules = RuleSet.compile(policies)
    again = rules.edited({}, ["never there"])
    assert again is rules
    assert shape(rules.edited(dict(enumerate(policies)))) == shape(rules)


@quick
@given(st.lists(ANY | CLUSTER | JSON, max_size=5))
def test_a_set_whose_every_policy_went_is_the_empty_one(policies: list[Any]) -> None:
    emptied = RuleSet.compile(policies).edited({}, range(len(policies)))
    assert shape(emptied) == shape(RuleSet())
    assert emptied.digest == "sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"
