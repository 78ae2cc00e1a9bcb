"""Servers: whose audience, exposed to whom, which are accepted, and what their schemas let through."""

from __future__ import annotations

from typing import Any

import pytest

from countersign.policy import Catalogue, audience_owned, exposes, schema_fault
from countersign.policy.schema import compile_schema

GRANTS = [("https://tools.example.com", ["billing"]), ("http://127.0.0.1:", ["dev", "billing"])]
OPEN = {"type": "object"}


def server(namespace: str = "billing", name: str = "stripe", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": namespace, "name": name, "creationTimestamp": "2026-11-24T10:00:00Z"},
        "spec": {
            "audience": "https://tools.example.com/stripe",
            "protocol": "MCP",
            "tools": [{"name": "get", "access": "ReadOnly", "inputSchema": OPEN}],
            **spec,
        },
    }


@pytest.mark.parametrize(
    ("audience", "namespaces"),
    [
        ("https://tools.example.com", {"billing"}),
        ("https://tools.example.com/stripe", {"billing"}),
        ("https://tools.example.com.evil.org", set()),
        ("https://tools.example.com:8443/x", set()),
        ("https://tools.example.com@evil.org/", set()),
        ("http://tools.example.com/", set()),
        ("http://127.0.0.1:9000/mcp", {"billing", "dev"}),
        ("http://127.0.0.1.evil.org/", set()),
        ("http://stripe.billing.svc/mcp", {"billing"}),
        ("https://stripe.billing.svc.cluster.local:8443", {"billing"}),
        ("http://a.b.dev.svc", {"dev"}),
        ("http://billing.svc", set()),
        ("http://stripe.billing.svc.evil.org", set()),
        ("https://webhook.example.com", set()),
        ("nonsense", set()),
        ("http://[::1", set()),
    ],
)
def test_whose_audience(audience: str, namespaces: set[str]) -> None:
    owners = {one for one in ("billing", "dev", "tools") if audience_owned(audience, one, GRANTS)}
    assert owners == namespaces


def test_no_grant_gives_the_issuers_own_origin_or_anothers_service() -> None:
    grants = [("https://", ["dev"]), ("http://", ["dev"])]
    assert audience_owned("https://tools.example.com/x", "dev", grants, "https://countersign.example.com")
    for own in (
        "https://countersign.example.com",
        "https://countersign.example.com/x",
        "https://countersign.example.com:443/",
    ):
        assert not audience_owned(own, "dev", grants, "https://countersign.example.com")
    assert not audience_owned("http://stripe.billing.svc/mcp", "dev", grants)


def test_without_a_grant_an_audience_is_unknown() -> None:
    assert Catalogue.build([server()]).servers == {}
    assert Catalogue.build([server()], GRANTS).by_audience("https://tools.example.com/stripe") is not None


def test_an_audience_is_compared_byte_for_byte() -> None:
    found = Catalogue.build([server()], GRANTS)
    for other in (
        "https://tools.example.com/stripe/",
        "https://TOOLS.example.com/stripe",
        "https://tools.example.com:443/stripe",
    ):
        assert found.find(other) is None


def test_the_older_object_keeps_a_doubled_audience() -> None:
    younger = server(name="aaa")
    younger["metadata"]["creationTimestamp"] = "2026-11-24T10:00:01Z"
    for order in ([server(), younger], [younger, server()]):
        found = Catalogue.build(order, GRANTS)
        assert set(found.servers) == {"billing/stripe"}
        assert found.find("billing/aaa") is None


def test_the_older_object_keeps_it_even_if_it_is_not_acceptable_itself() -> None:
    younger = server(name="aaa")
    younger["metadata"]["creationTimestamp"] = "2026-11-24T10:00:01Z"
    assert Catalogue.build([server(tools=[]), younger], GRANTS).servers == {}


def test_who_may_not_claim_an_audience_does_not_block_it() -> None:
    squatter = server(namespace="dev", name="aaa")
    squatter["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
    assert set(Catalogue.build([squatter, server()], GRANTS).servers) == {"billing/stripe"}


def test_an_object_that_is_being_deleted_is_gone() -> None:
    gone = server()
    gone["metadata"]["deletionTimestamp"] = "2026-11-24T11:00:00Z"
    assert Catalogue.build([gone], GRANTS).servers == {}


@pytest.mark.parametrize(
    "spec",
    [
        {"protocol": "GRPC"},
        {"tools": []},
        {"tools": None},
        {"tools": [{"name": "get", "access": "ReadOnly"}]},
        {"tools": [{"name": "get", "access": "Harmless", "inputSchema": OPEN}]},
        {"tools": [{"name": "get", "access": ["ReadOnly"], "inputSchema": OPEN}]},
        {"tools": [{"name": "g*t", "access": "ReadOnly", "inputSchema": OPEN}]},
        {"tools": [{"name": "get", "access": "ReadOnly", "inputSchema": {"type": "obj"}}]},
        {"tools": [{"name": "get", "access": "ReadOnly", "inputSchema": {"$ref": "https://evil.example.com/s"}}]},
        {"requires": {"maxAttestationAgeSeconds": "1h"}},
        {"requires": {"minLevel": 3}},
        {"requires": "much"},
    ],
)
def test_what_is_not_acceptable_is_unknown(spec: dict[str, Any]) -> None:
    assert Catalogue.build([server(**spec)], GRANTS).servers == {}


def test_a_pinned_tool_counts_as_changed_until_pins_are_observed() -> None:
    tools = [
        {"name": "get", "access": "ReadOnly", "inputSchema": OPEN, "definitionDigest": "sha256:" + "b" * 64},
        {"name": "put", "access": "ReadWrite", "inputSchema": OPEN},
    ]
    found = Catalogue.build([server(tools=tools)], GRANTS).servers["billing/stripe"]
    assert (found.tools["get"].changed, found.tools["put"].changed) == (True, False)


def test_an_http_tool_without_schema_takes_the_names_of_its_path() -> None:
    tools = [{"name": "get_repo", "access": "ReadOnly", "http": {"method": "GET", "path": "/repos/{owner}/{repo}"}}]
    fits = (
        Catalogue.build([server(protocol="HTTP", tools=tools)], GRANTS).servers["billing/stripe"].tools["get_repo"].fits
    )
    assert fits({"owner": "a", "repo": "b"})
    assert not fits({"owner": "a", "repo": "b", "x": 1})
    assert not fits([])


TEAM = {"from": "Selector", "selector": {"matchLabels": {"team": "billing"}}}


@pytest.mark.parametrize(
    ("expose", "own", "labels", "let_in"),
    [
        (None, True, None, True),
        (None, False, {}, False),
        ({"from": "Same"}, True, None, True),
        ({"from": "All"}, False, None, True),
        (TEAM, False, {"team": "billing"}, True),
        (TEAM, False, {"team": "dev"}, False),
        (TEAM, True, {"team": "dev"}, False),
        (TEAM, False, None, False),
        ({"from": "Selector"}, True, {}, False),
        ({"from": "Selector", "selector": {}}, True, {}, False),
        ({"from": "Everyone"}, True, {}, False),
        ({"from": "All", "selector": {"matchLabels": {"a": "b"}}}, True, {}, False),
        ({"from": "All", "but": "dev"}, True, {}, False),
        ("All", True, {}, False),
    ],
)
def test_exposure(expose: Any, own: Any, labels: Any, let_in: Any) -> None:
    assert exposes(expose, own=own, labels=labels) is let_in


def test_the_catalogue_lists_by_name_what_a_namespace_may_know() -> None:
    other = server(name="aaa", audience="https://tools.example.com/aaa", exposeTo={"from": "All"})
    found = Catalogue.build([server(), other], GRANTS)
    assert [one.key for one in found.exposed_to("billing", None)] == ["billing/aaa", "billing/stripe"]
    assert [one.key for one in found.exposed_to("dev", {})] == ["billing/aaa"]


def test_an_unchanged_object_is_not_read_again() -> None:
    one = server()
    one["metadata"] |= {"uid": "u1", "resourceVersion": "7"}
    first = Catalogue.build([one], GRANTS)
    again = Catalogue.build([one], GRANTS, previous=first)
    assert again.servers["billing/stripe"] is first.servers["billing/stripe"]
    one["metadata"]["resourceVersion"] = "8"
    assert (
        Catalogue.build([one], GRANTS, previous=again).servers["billing/stripe"] is not first.servers["billing/stripe"]
    )
    assert Catalogue.build([one], [], previous=first).servers == {}


POINT = {"type": "object", "properties": {"x": {"type": "integer"}}}
KIND = {"properties": {"kind": {"const": "a"}}}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (POINT, [{"x": 1}, {}], [{"x": 1, "y": 1}, {"x": "1"}, [], "x", None]),
        ({**POINT, "additionalProperties": True}, [{"y": 1}], [{"x": "1"}]),
        ({**POINT, "additionalProperties": False}, [{"x": 1}], [{"y": 1}]),
        # Only `additionalProperties: true` opens an object that gives properties.
        ({**POINT, "additionalProperties": {"type": "string"}}, [{"x": 1}], [{"y": "text"}]),
        ({"type": "object"}, [{"anything": 1}], []),
        ({"properties": {"p": POINT}}, [{"p": {"x": 1}}], [{"p": {"y": 1}}, {"q": 1}]),
        ({"properties": {"p": {"type": "array", "items": POINT}}}, [{"p": [{"x": 1}]}], [{"p": [{"x": 1}, {"y": 1}]}]),
        ({"properties": {"p": {"prefixItems": [POINT]}}}, [{"p": [{"x": 1}]}], [{"p": [{"y": 1}]}]),
        ({"additionalProperties": POINT}, [{"any": {"x": 1}}], [{"any": {"y": 1}}]),
        ({"properties": {"free": {"type": "object"}}}, [{"free": {"a": 1}}], [{"other": 1}]),
        ({"patternProperties": {"^x-": {}}, "properties": {"a": {}}}, [{"a": 1, "x-b": 1}], [{"b": 1}]),
        ({"properties": {"a": {}}, "allOf": [{"properties": {"b": {}}}]}, [{"a": 1, "b": 1}], [{"a": 1, "c": 1}]),
        (
            {
                "oneOf": [
                    {"properties": {"k": {"const": 1}, "a": {}}, "required": ["k"]},
                    {"properties": {"b": {}}, "required": ["b"]},
                ]
            },
            [{"k": 1, "a": 1}, {"b": 1}],
            [{"k": 1, "c": 1}],
        ),
        ({"$ref": "#/$defs/P", "$defs": {"P": POINT}}, [{"x": 1}], [{"y": 1}]),
        ({"properties": {"p": {"$ref": "#/$defs/P"}}, "$defs": {"P": POINT}}, [{"p": {"x": 1}}], [{"p": {"y": 1}}]),
        (
            {
                "allOf": [{"$ref": "#/$defs/P"}, {"$ref": "#/$defs/Q"}],
                "$defs": {"P": POINT, "Q": {"properties": {"q": {}}}},
            },
            [{"x": 1, "q": 1}],
            [{"x": 1, "r": 1}],
        ),
        (
            {"properties": {"p": {"$ref": "#/$defs/Free"}}, "$defs": {"Free": {"type": "object"}}},
            [{"p": {"a": 1}}],
            [{"q": 1}],
        ),
        (
            {"properties": {"next": {"$ref": "#"}, "x": {}}},
            [{"next": {"next": {"x": 1}}}],
            [{"next": {"next": {"y": 1}}}],
        ),
        # Closing must not turn a condition round: `not` and `if` keep the meaning that they were written with.
        (
            {"properties": {"kind": {}, "y": {}}, "not": KIND},
            [{"kind": "b", "y": 1}],
            [{"kind": "a", "y": 1}, {"kind": "a"}],
        ),
        (
            {"properties": {"kind": {}, "y": {}}, "if": KIND, "then": {"required": ["y"]}},
            [{"kind": "a", "y": 1}, {"kind": "b"}],
            [{"kind": "a"}, {"kind": "b", "z": 1}],
        ),
        ({"properties": {"a": {"$ref": "#/properties/a"}}}, [{}], [{"a": 1}]),
        ({"properties": {"a": {"pattern": "(?<bad"}}}, [{}], [{"a": "x"}]),
    ],
)
def test_schema(schema: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    fits = compile_schema(schema)
    assert [one for one in good if not fits(one)] == []
    assert [one for one in bad if fits(one)] == []


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"type": "object"}, None),
        ({"$schema": "https://json-schema.org/draft/2020-12/schema"}, None),
        ({"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {}}}, None),
        ({"properties": {"$ref": {"type": "string"}}}, None),
        ({"enum": [{"$ref": "https://x"}]}, None),
        ({"type": "obj"}, "/type: anyOf"),
        ({"properties": {"a": {"minimum": "1"}}}, "/properties/a/minimum: type"),
        (
            {"properties": {"a": {"$ref": "https://evil.example.com/s"}}},
            "/properties/a/$ref: only references into this schema",
        ),
        ({"$dynamicRef": "file:///etc/passwd"}, "/$dynamicRef: only references into this schema"),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#"},
            "/$schema: only https://json-schema.org/draft/2020-12/schema",
        ),
        ({"$defs": {"a": {"$id": "https://evil.example.com/"}}}, "/$defs/a: $schema and $id belong to the top"),
        ({"const": {"$schema": "x"}}, "/const: $schema and $id belong to the top"),
        ({"x": [{"$schema": "x"}], "$ref": "#/x/0"}, "/x/0: $schema and $id belong to the top"),
        ({"properties": {"$schema": {"type": "string"}}}, None),
        ([], "/: not an object"),
        (None, "/: not an object"),
        (True, "/: not an object"),
    ],
)
def test_schema_fault(schema: Any, fault: str | None) -> None:
    assert schema_fault(schema) == fault


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth else {}


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"properties": {"a": {"allOf": [{"$ref": "#"}] * 2}}}, nested(3), nested(30)),
        (
            {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "properties": {"a": {"anyOf": [{"$ref": "#"}] * 3}},
            },
            nested(1),
            nested(30),
        ),
        (
            {"properties": {"a": {"uniqueItems": True}}},
            {"a": [str(number) for number in range(5000)]},
            {"a": [{"b": number} for number in range(5000)]},
        ),
    ],
)
def test_e3_arguments_that_take_too_many_steps_do_not_fit(schema: Any, good: Any, bad: Any) -> None:
    fits = compile_schema(schema)
    assert fits(good)
    assert not fits(bad)
    assert fits(good)  # each evaluation has steps of its own


@pytest.mark.timeout(20)
def test_e3_a_schema_whose_references_multiply_is_compiled_in_time() -> None:
    twice = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)}
    schema = {"$defs": {**twice, "d60": {}}, "allOf": [{"$ref": "#/$defs/d0"}]}
    assert schema_fault(schema) is None
    compile_schema(schema)
    last = {"properties": {"a": {}}}
    fits = compile_schema({"$defs": {**twice, "d57": last}, "allOf": [{"$ref": "#/$defs/d54"}]})
    assert fits({"a": 1})
    assert not fits({"b": 1})


def test_references_in_a_ring_are_closed_from_wherever_they_are_entered() -> None:
    ring = {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}, {"properties": {"x": {}}}]}}
    for entry in ("a", "b"):
        schema = {"$defs": ring, "properties": {"one": {"$ref": "#/$defs/b"}, "two": {"$ref": f"#/$defs/{entry}"}}}
        fits = compile_schema(schema)
        assert not fits({"two": {"y": 1}}), entry


def test_e3_a_schema_that_cannot_be_compiled_takes_its_own_server_away_and_no_other() -> None:
    chain = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(3000)}
    odd = server(name="odd", audience="https://odd.billing.svc/x")
    odd["spec"]["tools"][0]["inputSchema"] = {"$defs": {**chain, "d3000": {}}, "allOf": [{"$ref": "#/$defs/d0"}]}
    found = Catalogue.build([odd, server(audience="https://stripe.billing.svc/x")])
    assert [one.name for one in found.servers.values()] == ["stripe"]


def test_a_schema_nested_without_end_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(3000):
        schema = {"not": schema}
    assert schema_fault(schema) is not None


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"pattern": "(?=a)"}, "/pattern: not a pattern that RE2 can read"),
        ({"properties": {"a": {"pattern": r"(a)\1"}}}, "/properties/a/pattern: not a pattern"),
        ({"patternProperties": {"(?=a)": {}}}, "/patternProperties/(?=a): not a pattern"),
        ({"pattern": "\ud800"}, "/pattern: not a pattern that RE2 can read"),
        ({"pattern": "a" * 1025}, "/pattern: a pattern has at most 1024 characters"),
        ({"patternProperties": {"^x": {}}, "allOf": [{"properties": {"a": {}}}]}, "/: patternProperties together with"),
        ({"patternProperties": {"^x": {}}, "unevaluatedProperties": False}, "/: patternProperties together with"),
    ],
)
def test_a_pattern_that_cannot_be_evaluated_in_linear_time_is_a_fault(schema: dict[str, Any], fault: str) -> None:
    assert str(schema_fault(schema)).startswith(fault)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"properties": {"a": {"pattern": "^(a+)+$"}}}, {"a": "a" * 5000}, {"a": "a" * 5000 + "!"}),
        ({"patternProperties": {"^(a+)+$": {"type": "string"}}}, {"a" * 5000: "x"}, {"a" * 5000: 1}),
        ({"properties": {"b": {}}, "patternProperties": {"^(a+)+$": {}}}, {"b": 1}, {"a" * 5000 + "!": 1}),
        ({"properties": {"a": {"pattern": "^b$"}}}, {"a": "b"}, {"a": "b\n"}),
        ({"properties": {"a": {"pattern": "b"}}}, {"a": "abc"}, {"a": "ac"}),
        ({"properties": {"a": {"pattern": "b"}}}, {"a": 7}, {"a": "7"}),
        ({"additionalProperties": {"type": "string"}}, {"a": "b"}, {"a": 1}),
    ],
)
def test_e3_a_pattern_costs_no_more_than_its_text(schema: dict[str, Any], good: Any, bad: Any) -> None:
    check = compile_schema(schema)
    assert check(good)
    assert not check(bad)
