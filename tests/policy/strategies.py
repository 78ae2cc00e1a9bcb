"""Policies, and what is no policy, for the property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from policy.given import load, question, servers_of

BASE = load("01-combining.yaml")
SERVERS = servers_of(BASE["given"])
ASKED = question(BASE["given"], {"server": "billing/stripe", "tool": "create_refund", "arguments": {"charge": "ch_1"}})
quick = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["get_charge", "create_refund", "fetch", "list_charges"])
SERVER = st.sampled_from([{"name": "stripe"}, {"namespace": "tools", "name": "github"}, {"name": "gone"}])
ARGUMENT = st.fixed_dictionaries(
    {"pointer": st.sampled_from(["/amount", "/charge", "/items/0", "/meta/a~1b"])},
).flatmap(
    lambda base: st.sampled_from(
        [
            {**base, "type": "Integer", "integer": {"minimum": 1, "maximum": 10}},
            {**base, "type": "String", "string": {"values": ["ch_1"]}, "whenMissing": "DoesNotMatch"},
            {**base, "type": "Absent"},
            {**base, "type": "Number"},
        ]
    )
)
TOOLS = st.lists(
    st.fixed_dictionaries(
        {"server": SERVER},
        optional={
            "names": st.lists(NAMES, min_size=1, max_size=2),
            "access": st.lists(st.sampled_from(["ReadOnly", "Destructive", "ReadWrite"]), min_size=1, max_size=2),
        },
    ),
    min_size=1,
    max_size=3,
)
PARTS: dict[str, Any] = {
    "subjects": st.sampled_from(
        [{"agents": [{"name": "refund-agent"}]}, {"agents": [{"name": "other"}]}, {"groups": ["support"]}, {}, {"x": 1}]
    ),
    "task": st.sampled_from([{"purposes": ["support-ticket"]}, {"purposes": ["x"]}, {"purposes": []}]),
    "environment": st.sampled_from(
        [{"clusters": ["prod-eu"]}, {"sources": ["Run"]}, {"minKeyTier": "TPM"}, {"minKeyTier": "Gold"}]
    ),
    "arguments": st.lists(ARGUMENT, min_size=1, max_size=2),
    "when": st.sampled_from(
        [
            "true",
            "false",
            "args.charge == 'ch_1'",
            "args.amount > 5",
            "args.amount > 5 || true",
            "args.charge",
            "user.name == 'bent@example.com'",
            "[1, 2, 3].all(x, x > 0) && call.tool == 'create_refund'",
            "1 / 0 == 1",
            "no such thing",
        ]
    ),
    "argumants": st.just([1]),
}


def rule(effects: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    required = {"name": st.sampled_from("abcdef"), "effect": st.sampled_from(effects)}
    optional = {**PARTS, "tools": TOOLS}
    if effects == ["Deny"]:
        optional["unless"] = st.sampled_from([{"minKeyTier": "TPM"}, {"minAssurance": "Hardware"}])
    return st.fixed_dictionaries(required, optional=optional)


def policy(effects: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "kind": st.just("ToolPolicy"),
            "metadata": st.fixed_dictionaries(
                {"namespace": st.sampled_from(["billing", "dev"]), "name": st.sampled_from("pqr")}
            ),
            "spec": st.fixed_dictionaries(
                {"rules": st.lists(rule(effects), min_size=1, max_size=3)},
                optional={"mode": st.sampled_from(["Enforce", "Audit", "Maybe"])},
            ),
        }
    )


ANY = policy(["Allow", "Deny", "RequireApproval", "Perhaps"])
