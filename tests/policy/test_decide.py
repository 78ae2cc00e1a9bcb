"""What a replica cannot read, what is not known, base methods, and what the vectors leave out of the five steps."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from policy.given import load, merge, question, servers_of

from countersign.policy import Decision, Question, RuleSet, decide, listable, names_server, policy_digest
from countersign.policy.compiled import _digest
from countersign.policy.facts import CallFacts
from countersign.policy.model import Fact

FILE = load("01-combining.yaml")
SERVERS = servers_of(FILE["given"])
READ: dict[str, Any] = {"name": "read", "effect": "Allow", "tools": [{"server": {"name": "stripe"}}]}


def asked(call: dict[str, Any] | None = None, **given: Any) -> Question:
    return question(merge(FILE["given"], given), {**FILE["call"], **(call or {})})


def tool_policy(*rules: Any, name: str = "a", **spec: Any) -> dict[str, Any]:
    return {
        "kind": "ToolPolicy",
        "metadata": {"namespace": "billing", "name": name},
        "spec": {"rules": list(rules), **spec},
    }


def cluster_policy(*rules: Any, name: str = "c", **spec: Any) -> dict[str, Any]:
    return {"kind": "ClusterToolPolicy", "metadata": {"name": name}, "spec": {"rules": list(rules), **spec}}


def answer(*policies: Any, ask: Question | None = None) -> Decision:
    return decide(ask or asked(), RuleSet.compile(policies), SERVERS)


UNREADABLE = [
    {"kind": "ToolPolicy", "metadata": {"namespace": "billing", "name": "z"}},
    {"kind": "ToolPolicy", "metadata": {"namespace": "billing", "name": "z"}, "spec": {"rules": None}},
    tool_policy(name="z"),
    tool_policy({"effect": "Deny"}, name="z"),
    tool_policy({"name": "x"}, name="z"),
    tool_policy({**READ, "effect": None}, name="z"),
    tool_policy("x", name="z"),
    tool_policy(READ, name="z", mode="DryRun"),
    tool_policy(READ, name="z", mode=None),
    tool_policy(READ, name="z", mode=["Audit"]),
]


@pytest.mark.parametrize("policy", UNREADABLE)
def test_a_policy_that_cannot_be_read_denies_as_a_whole(policy: dict[str, Any]) -> None:
    found = answer(tool_policy(READ, name="zz"), policy)
    assert (found.code, found.policy, found.rule) == ("policy.undecided", "ToolPolicy billing/z", None)
    assert not names_server(asked(), RuleSet.compile([policy]), SERVERS)
    assert listable(asked(), RuleSet.compile([tool_policy(READ), policy]), SERVERS) == ()


def test_an_unreadable_policy_of_another_namespace_says_nothing_here() -> None:
    other = {"kind": "ToolPolicy", "metadata": {"namespace": "dev", "name": "z"}, "spec": {}}
    assert answer(tool_policy(READ), other).allowed


@pytest.mark.parametrize("broken", [None, 7, {}, {"kind": "Pod"}, {"kind": "ToolPolicy", "metadata": {"name": "x"}}])
def test_an_object_that_is_no_policy_denies_everybody(broken: Any) -> None:
    assert answer(tool_policy(READ), broken).code == "policy.undecided"


def test_a_policy_that_is_being_deleted_is_gone() -> None:
    gone = tool_policy({"name": "stop", "effect": "Deny"}, name="b")
    gone["metadata"]["deletionTimestamp"] = "2026-11-24T11:00:00Z"
    assert answer(tool_policy(READ), gone).allowed


STRIPE = [{"server": {"name": "stripe"}}]
UNKNOWN_PARTS: list[dict[str, Any]] = [
    {"argumants": [{"pointer": "/charge"}]},
    {"subjects": {}},
    {"subjects": {"agents": []}},
    {"subjects": {"agents": [{"name": "refund-agent", "cluster": "x"}]}},
    {"subjects": {"agents": [{"namespace": "billing", "name": "refund-agent"}]}},
    {"subjects": {"roles": ["x"]}},
    {"subjects": None},
    {"task": {"purposes": []}},
    {"task": {"purposes": ["support-ticket"], "names": ["x"]}},
    {"environment": {}},
    {"environment": {"minAssurance": "Quantum"}},
    {"environment": {"sources": ["Anywhere"]}},
    {"environment": {"clusters": []}},
    {"environment": {"minTPM": 2}},
    {"environment": {"facts": [{"name": "disk-encryption"}]}},
    {"environment": None},
    {"tools": []},
    {"tools": [{}]},
    {"tools": [{"server": {"name": "stripe"}, "names": []}]},
    {"tools": [{"server": {"name": "stripe"}, "access": ["Harmless"]}]},
    {"tools": [{"server": {"name": "stripe"}, "tags": ["x"]}]},
    {"tools": [{"server": {}}]},
    {"arguments": []},
    {"arguments": None},
    {"arguments": [{"pointer": "/charge", "type": "Number"}]},
    {"when": "args.charge"},
    {"when": "user.nmae == 'x'"},
    {"when": "true &&"},
    {"when": "true || " + "true || " * 200 + "true"},
    {"when": ""},
    {"when": 7},
]


@pytest.mark.parametrize("part", UNKNOWN_PARTS, ids=str)
def test_a_part_that_cannot_be_read_is_undecided(part: dict[str, Any]) -> None:
    """As if absent in an Allow rule, a refusal in a Deny rule; and another part that is false settles the rule."""
    assert answer(tool_policy({**READ, **part})).code == "policy.default_deny"
    deny = {"name": "stop", "effect": "Deny", **part}
    found = answer(tool_policy(READ, deny))
    assert (found.code, found.rule) == ("policy.undecided", "stop")
    elsewhere = (
        {"environment": {"clusters": ["elsewhere"]}} if "environment" not in part else {"task": {"purposes": ["x"]}}
    )
    assert answer(tool_policy(READ, {**deny, **elsewhere})).allowed


@pytest.mark.parametrize(
    "rule",
    [
        {"name": "x", "effect": "Perhaps"},
        {"name": "x", "effect": "Deny", "approval": {"groups": ["a"]}},
        {"name": "x", "effect": "Deny", "environment": {"minAssurance": "Hardware"}},
        {"name": "x", "effect": "Deny", "unless": {}},
        {"name": "x", "effect": "RequireApproval", "tools": STRIPE},
        {"name": "x", "effect": "RequireApproval", "tools": STRIPE, "approval": {}},
        {"name": "x", "effect": "RequireApproval", "tools": STRIPE, "approval": {"groups": []}},
        {"name": "x", "effect": "RequireApproval", "approval": {"groups": ["finance"]}},
    ],
)
def test_a_rule_that_cannot_be_followed_refuses(rule: dict[str, Any]) -> None:
    found = answer(tool_policy(READ, rule))
    assert found.effect == "Deny"
    assert found.rule == "x"


@pytest.mark.parametrize("extra", [{"unless": {"minKeyTier": "TPM"}}, {"approval": {"groups": ["finance"]}}])
def test_what_belongs_to_another_effect_never_widens_an_allow(extra: dict[str, Any]) -> None:
    assert answer(tool_policy({**READ, **extra})).code == "policy.default_deny"


def test_an_allow_rule_without_tools_or_server_allows_nothing() -> None:
    assert answer(tool_policy({"name": "x", "effect": "Allow"})).code == "policy.default_deny"
    assert (
        answer(tool_policy({"name": "x", "effect": "Allow", "tools": [{"names": ["get_charge"]}]})).code
        == "policy.default_deny"
    )
    cluster = cluster_policy({"name": "x", "effect": "Allow", "tools": [{"server": {"name": "stripe"}}]})
    assert answer(cluster).code == "policy.default_deny"


def test_a_misspelt_field_of_a_spec_leaves_every_rule_undecided() -> None:
    misspelt = cluster_policy(
        {**READ, "tools": [{"server": {"namespace": "billing", "name": "stripe"}}]}, namespaceSelecter={}
    )
    assert answer(misspelt).code == "policy.default_deny"


DENY = {"name": "stop", "effect": "Deny", "tools": [{"names": ["something-else"]}]}


def test_a_selector_that_needs_an_unknown_namespace_leaves_every_rule_undecided() -> None:
    policy = cluster_policy(DENY, namespaceSelector={"matchLabels": {"team": "billing"}})
    unknown = asked(caller={"agent": {"namespaceLabels": None}})
    assert answer(tool_policy(READ), policy).allowed
    found = answer(tool_policy(READ), policy, ask=unknown)
    assert (found.code, found.policy) == ("policy.undecided", "ClusterToolPolicy c")
    assert answer(tool_policy(READ), cluster_policy(DENY), ask=unknown).allowed


@pytest.mark.parametrize(
    ("selector", "speaks"),
    [
        ({"matchLabels": {"team": "billing"}}, True),
        ({"matchLabels": {"team": "dev"}}, False),
        ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["billing", "dev"]}]}, True),
        ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["billing"]}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x"]}]}, True),
        ({"matchExpressions": [{"key": "team", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}, False),
        ({"matchLabels": {"team": "billing"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["", "dev"]}]}, False),
    ],
)
def test_namespace_selector(selector: dict[str, Any], speaks: Any) -> None:
    stop = cluster_policy({"name": "stop", "effect": "Deny"}, namespaceSelector=selector)
    assert answer(tool_policy(READ), stop).allowed is not speaks


@pytest.mark.parametrize(
    "selector",
    [
        {},
        None,
        [],
        {"matchLabels": {}},
        {"matchLabels": {"team": 1}},
        {"matchExpressions": []},
        {"matchExpressions": [{"key": "team", "operator": "Like", "values": ["b"]}]},
        {"matchExpressions": [{"key": "team", "operator": "In", "values": []}]},
        {"matchExpressions": [{"key": "team", "operator": "Exists", "values": ["x"]}]},
        {"matchFields": {"a": "b"}},
    ],
)
def test_a_selector_that_cannot_be_read_selects_undecided_rules(selector: Any) -> None:
    policy = cluster_policy(DENY, namespaceSelector=selector)
    assert answer(tool_policy(READ), policy).code == "policy.undecided"


def environment(block: dict[str, Any], ask: Question) -> bool | None:
    """Return what a block says, read off an Allow and a Deny rule."""
    if answer(tool_policy({**READ, "environment": block}), ask=ask).allowed:
        return True
    code = answer(tool_policy(READ, {"name": "d", "effect": "Deny", "unless": block}), ask=ask).code
    return None if code == "policy.undecided" else False


def device(**changes: Any) -> Question:
    base = asked()
    return replace(base, caller=replace(base.caller, device=replace(base.caller.device, **changes)))


def instance(**changes: Any) -> Question:
    base = asked()
    return replace(base, caller=replace(base.caller, instance=replace(base.caller.instance, **changes)))


NOW = asked().now
ON = {"facts": [{"name": "disk", "values": ["on"]}]}
FRESH = {"facts": [{"name": "disk", "values": ["on"], "maxAgeSeconds": 60}]}
BY_NODE = {"facts": [{"name": "disk", "values": ["on"], "source": "node"}]}


def fact(value: str = "on", source: str = "mdm", age: float | None = 10) -> Fact:
    return Fact("disk", value, source, None if age is None else NOW - timedelta(seconds=age))


@pytest.mark.parametrize(
    ("block", "ask", "expected"),
    [
        ({"maxAttestationAgeSeconds": 60}, device(attestation_time=None), None),
        ({"maxAttestationAgeSeconds": 60}, device(attestation_time=NOW + timedelta(seconds=1)), None),
        ({"maxAttestationAgeSeconds": 60}, device(attestation_time=NOW - timedelta(seconds=60.5)), False),
        ({"maxAttestationAgeSeconds": 60}, device(attestation_time=NOW - timedelta(seconds=60)), True),
        ({"imageDigests": ["sha256:a"]}, instance(image_digests=("sha256:a",)), True),
        ({"imageDigests": ["sha256:a"]}, instance(image_digests=("sha256:a", "sha256:b")), False),
        ({"imageDigests": ["sha256:a"]}, instance(image_digests=("sha256:a", "nginx:1")), None),
        ({"imageDigests": ["sha256:a"]}, instance(image_digests=()), None),
        ({"imageDigests": ["sha256:a"]}, instance(image_digests=None), None),
        ({"imageDigests": ["sha256:a"]}, instance(image_digests=("sha256:a",), source="Run"), None),
        ({"imageDigests": ["sha256:a"]}, instance(image_digests=("sha256:a",), source="OwnSigner"), True),
        (ON, device(facts=(fact(),)), True),
        (ON, device(facts=(fact("off"),)), False),
        (ON, device(facts=()), None),
        (ON, device(facts=(fact(age=-1),)), None),
        (ON, device(facts=(fact(age=None),)), None),
        (ON, device(facts=(fact(source="node"),)), None),
        (BY_NODE, device(facts=(fact(source="node"),)), True),
        (BY_NODE, device(facts=(fact(),)), None),
        (ON, device(facts=(fact(), fact("off", "scanner"))), None),
        (FRESH, device(facts=(fact(age=60),)), True),
        (FRESH, device(facts=(fact(age=61),)), None),
        (FRESH, device(facts=(fact(age=61), fact(source="scanner"))), True),
        ({**ON, "clusters": ["elsewhere"]}, device(facts=()), False),
    ],
)
def test_environment(block: dict[str, Any], ask: Question, expected: Any) -> None:
    assert environment(block, ask) is expected


def test_on_a_software_device_every_tier_is_software() -> None:
    ask = device(assurance="Software")
    low = replace(ask, caller=replace(ask.caller, agent=replace(ask.caller.agent, min_assurance="Software")))
    facts = CallFacts.of(low, server="", tool="", access="")
    assert facts.key_tier == 0
    assert answer(tool_policy(READ), ask=low).code == "environment.key_tier_too_low"


@pytest.mark.parametrize("word", ["Gold", "", None, 7])
def test_a_word_that_no_order_knows_is_under_every_floor_and_a_floor_over_every_word(word: Any) -> None:
    policy, base = tool_policy(READ), asked()
    assert answer(policy, ask=device(assurance=word)).code == "environment.assurance_too_low"
    tier = replace(base, caller=replace(base.caller, key_tier=word))
    assert answer(policy, ask=tier).code == "environment.key_tier_too_low"
    floor = replace(base, caller=replace(base.caller, agent=replace(base.caller.agent, min_assurance=word)))
    assert answer(policy, ask=floor).code == "environment.assurance_too_low"


@pytest.mark.parametrize(
    ("task", "code"),
    [
        ({"metadata": {"namespace": "dev"}}, "task.not_bound"),
        ({"spec": {"agentRef": {"name": "other"}}}, "task.not_bound"),
        ({"status": "DELETE"}, "task.not_bound"),
        ({"status": {"instanceRef": "inst-1"}}, "task.not_bound"),
        ({"spec": {"state": "Sleeping"}}, "task.ended"),
        ({"metadata": {"deletionTimestamp": "2026-11-24T11:00:00Z"}}, "task.ended"),
        ({"status": {"expirationTime": "DELETE"}}, "task.expired"),
        ({"status": {"expirationTime": "tomorrow"}}, "task.expired"),
        ({"status": {"expirationTime": "2026-11-24T13:00:00"}}, "task.expired"),
        ({"spec": {"budget": {"calls": "many"}}}, "task.budget_exhausted"),
        ({"spec": {"budget": {}}}, "task.budget_exhausted"),
        ({"spec": {"budget": {"calls": 9}}, "status": {"calls": {"allowed": "few"}}}, "task.budget_exhausted"),
        ({"spec": {"budget": {"calls": 9}}, "status": {"calls": {"allowed": -1}}}, "task.budget_exhausted"),
        ({"spec": {"tools": []}}, "task.tool_not_included"),
        ({"spec": {"tools": [{"names": ["get_charge"]}]}}, "task.tool_not_included"),
        ({"spec": {"tools": [{"server": {"name": "stripe"}, "x": 1}]}}, "task.tool_not_included"),
        ({"spec": {"budget": {"calls": 1}}, "status": {"calls": "DELETE"}}, "policy.allowed"),
    ],
)
def test_d17_task(task: dict[str, Any], code: str) -> None:
    assert answer(tool_policy(READ), ask=asked(task=task)).code == code


def test_a_task_is_looked_at_even_where_none_is_needed() -> None:
    ask = asked(caller={"agent": {"tasks": "Optional"}}, task={"spec": {"state": "Ended"}})
    assert answer(tool_policy(READ), ask=ask).code == "task.ended"


def test_a_server_is_found_by_its_audience_too() -> None:
    assert answer(tool_policy(READ), ask=asked({"server": "https://tools.example.com/stripe"})).allowed
    assert answer(tool_policy(READ), ask=asked({"server": None})).code == "tool.server_unknown"


def test_another_protocol_than_the_servers_is_refused() -> None:
    assert answer(tool_policy(READ), ask=replace(asked(), protocol="HTTP", method="POST")).code == "request.details"


def base_method(method: str = "initialize", **given: Any) -> Question:
    return asked({"method": method, "tool": "", "arguments": {}}, **given)


APPROVAL = {"name": "ask", "effect": "RequireApproval", "tools": STRIPE, "approval": {"groups": ["finance"]}}


@pytest.mark.parametrize(
    ("policy", "named"),
    [
        (tool_policy(READ), True),
        (tool_policy(APPROVAL), True),
        (tool_policy({**READ, "subjects": {"agents": [{"name": "refund-agent"}]}}), True),
        (tool_policy({**READ, "tools": [{"server": {"name": "stripe"}, "names": ["fetch"]}]}), True),
        (tool_policy({**READ, "subjects": {"agents": [{"name": "other"}]}}), False),
        (tool_policy({**READ, "tools": [{"server": {"name": "other"}}]}), False),
        (tool_policy({**READ, "effect": "Deny"}), False),
        (tool_policy(READ, mode="Audit"), False),
        (cluster_policy({**READ, "tools": [{"server": {"namespace": "billing", "name": "stripe"}}]}), True),
        (
            cluster_policy(
                {**READ, "tools": [{"server": {"namespace": "billing", "name": "stripe"}}]},
                namespaceSelector={"matchLabels": {"team": "dev"}},
            ),
            False,
        ),
    ],
)
def test_d5_base_methods_need_a_rule_that_names_the_server(policy: dict[str, Any], named: Any) -> None:
    rules = RuleSet.compile([policy])
    assert names_server(base_method(), rules, SERVERS) is named
    for method in ("initialize", "ping", "tools/list", "server/discover", "notifications/initialized"):
        found = decide(base_method(method), rules, SERVERS)
        assert found.code == ("policy.allowed" if named else "tool.server_not_exposed")


@pytest.mark.parametrize("method", ["tools/delete", "resources/read", "", "TOOLS/LIST", "tasks/update"])
def test_d5_another_method_is_unknown(method: str) -> None:
    assert answer(tool_policy(READ), ask=base_method(method)).code == "mcp.method_unknown"


def test_base_methods_pass_the_other_steps_too() -> None:
    policy = tool_policy(READ)
    assert answer(policy, ask=base_method(task={"spec": {"state": "Ended"}})).code == "task.ended"
    assert (
        answer(policy, ask=base_method(caller={"agent": {"minKeyTier": "TPM"}})).code == "environment.key_tier_too_low"
    )
    assert answer(policy, ask=asked({"method": "ping", "tool": "get_charge"})).code == "mcp.method_unknown"


def test_a_list_is_empty_under_a_floor() -> None:
    rules = RuleSet.compile([tool_policy(READ)])
    assert listable(base_method("tools/list"), rules, SERVERS) != ()
    assert listable(base_method("tools/list", caller={"keyTier": "Software"}), rules, SERVERS) == ()


def test_all_rules_that_settled_it_are_recorded_in_order() -> None:
    stop = {"name": "stop", "effect": "Deny"}
    found = answer(tool_policy(READ, stop, {**stop, "name": "also"}), cluster_policy(stop))
    assert [(mark.policy, mark.rule) for mark in found.settled] == [
        ("ClusterToolPolicy c", "stop"),
        ("ToolPolicy billing/a", "also"),
        ("ToolPolicy billing/a", "stop"),
    ]


def test_the_digest_follows_the_rules_and_not_their_order() -> None:
    stop = {"name": "stop", "effect": "Deny"}
    one, other = tool_policy(READ, stop), tool_policy(stop, READ)
    assert policy_digest(one) == policy_digest(other)
    assert RuleSet.compile([one, cluster_policy(stop)]).digest == RuleSet.compile([cluster_policy(stop), other]).digest
    assert RuleSet.compile([one]).digest != RuleSet.compile([tool_policy(READ)]).digest
    assert RuleSet.compile([one]).digest != RuleSet.compile([tool_policy(READ, stop, mode="Audit")]).digest
    assert RuleSet.compile([one]).digest != RuleSet.compile([tool_policy(READ, stop, name="b")]).digest


def test_an_object_that_says_what_it_said_is_not_compiled_again() -> None:
    policy = tool_policy(READ)
    first = RuleSet.compile([policy])
    touched = {**policy, "metadata": {**policy["metadata"], "resourceVersion": "2"}, "status": {"rules": 1}}
    assert first.edited({0: touched}) is first
    assert not decide(asked(), first.edited({0: {**policy, "spec": {"rules": [DENY]}}}), SERVERS).allowed
    assert first.edited({}, [0]).policies == ()
    assert first.policies, "a set never changes"


def test_an_object_that_is_no_json_is_compiled_each_time() -> None:
    policy = tool_policy({**READ, "reason": {1, 2}})
    first = RuleSet.compile([policy])
    again = first.edited({0: policy})
    assert again is not first
    assert again.digest == first.digest


def test_one_edit_among_ten_thousand_compiles_one_policy_and_gives_the_same_rules_as_from_scratch() -> None:
    policies = [tool_policy(READ, name=f"p{number}") for number in range(10_000)]
    before = RuleSet.compile(policies)
    policies[77] = tool_policy({"name": "stop", "effect": "Deny"}, name="p77")
    after = before.edited({77: policies[77]})
    assert len({*map(id, after.policies)} - {*map(id, before.policies)}) == 1
    assert after.digest == RuleSet.compile(policies).digest != before.digest
    assert after.digest == _digest(sorted(policy.digest for policy in after.policies))
    assert decide(asked(), before, SERVERS).allowed
    assert not decide(asked(), after, SERVERS).allowed


def test_a_decision_looks_at_few_rules_however_many_there_are() -> None:
    """The cost of a decision follows the rules that could speak about it: counted, not timed."""

    def others(count: int) -> list[Any]:
        found = []
        for number in range(count):
            agent = {"subjects": {"agents": [{"name": f"agent-{number}"}]}}
            elsewhere = {**READ, "tools": [{"server": {"name": f"server-{number}"}}]}
            one_tool = {**READ, "tools": [{"server": {"name": "stripe"}, "names": [f"tool-{number}"]}]}
            found += [tool_policy({**READ, **agent}, elsewhere, one_tool, name=f"p{number}")]
        return found

    facts = CallFacts.of(asked(), server="billing/stripe", tool="get_charge", access="ReadOnly")
    looked_at = [len(list(RuleSet.compile([tool_policy(READ), *others(count)]).about(facts))) for count in (0, 10, 300)]
    assert looked_at == [1, 1, 1]


def test_a_rule_with_many_names_does_not_blow_up_the_index() -> None:
    rule = {
        **READ,
        "subjects": {"agents": [{"name": f"agent-{number}"} for number in range(64)]},
        "tools": [{"server": {"name": f"s-{n}"}, "names": [f"t-{k}" for k in range(64)]} for n in range(32)],
    }
    rules = RuleSet.compile([tool_policy(rule)])
    assert sum(len(entries) for entries in rules._index.values()) <= 128
