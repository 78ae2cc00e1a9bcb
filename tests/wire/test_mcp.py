"""MCP requests: every vector fails at its own check and at no other, and the rules that no vector shows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.wire_vectors import body_of, cases, load

from countersign.errors import CountersignError
from countersign.wire import Message, base_methods, parse_mcp
from countersign.wire.mcp import MCP_CHECKS

FILE = load("mcp-calls")
SCHEMAS = FILE["input_schemas"]
AUDIENCE = FILE["audience"]
_SHARED = {"get", "delete", "response", "param_missing"}
"""Cases whose code is not one check's alone, or that nothing could read further."""
OWN_CHECK = {
    "mcp.http_method": "_check_post",
    "parse.encoding": "_check_media_type",
    "mcp.envelope": "_check_envelope",
    "mcp.version": "_check_version",
    "mcp.header_missing": "_check_required_headers",
    "mcp.params": "_check_call",
    "mcp.method_unknown": "_check_method",
}


def message_of(case: dict[str, Any], target: str = "/mcp") -> Message:
    return Message.build(case["method"], target, [tuple(field) for field in case["headers"]], body_of(case))


def code_of(message: Message, **more: Any) -> str:
    with pytest.raises(CountersignError) as caught:
        parse_mcp(message, **{"path": "/mcp", "input_schemas": SCHEMAS, **more})
    return caught.value.code


@pytest.mark.parametrize("case", cases("mcp-calls", accept=True))
def test_accepted(case: dict[str, Any]) -> None:
    request = parse_mcp(message_of(case), path="/mcp", input_schemas=SCHEMAS)
    call = request.call(AUDIENCE)

    assert {"method": call.method, "tool": call.tool, "args": call.args} == case["call"]
    assert call.digest == case["call_digest"]
    assert call.protocol == "MCP"
    assert request.id == json.loads(body_of(case)).get("id")
    assert request.is_notification is (request.id is None)


@pytest.mark.parametrize("case", cases("mcp-calls", accept=False))
def test_refused(case: dict[str, Any]) -> None:
    with pytest.raises(CountersignError) as caught:
        parse_mcp(message_of(case), path="/mcp", input_schemas=SCHEMAS)

    assert caught.value.code == case["code"]


def test_the_vectors_are_all_there() -> None:
    assert (len(cases("mcp-calls", accept=True)), len(cases("mcp-calls", accept=False))) == (16, 53)


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in cases("mcp-calls", accept=False)
        if case.values[0]["code"] in OWN_CHECK and case.values[0]["name"] not in _SHARED
    ],
)
def test_without_its_own_check_a_case_gets_further(case: dict[str, Any]) -> None:
    """What only one check refuses is accepted, or fails later with another code, once that check is left out."""
    own = OWN_CHECK[case["code"]]
    checks = [check for check in MCP_CHECKS if check.__name__ != own]
    assert len(checks) == len(MCP_CHECKS) - 1

    try:
        parse_mcp(message_of(case), path="/mcp", input_schemas=SCHEMAS, checks=checks)
    except CountersignError as error:
        assert error.code != case["code"]  # noqa: PT017 - either outcome is right, but for this code
    except (KeyError, AttributeError, TypeError):
        assert case["code"] in {"mcp.envelope", "mcp.params"}, "only what a shape check guards may break later"


# What no vector shows


def call(
    *headers: tuple[str, str],
    version: str = "2025-11-25",
    body: Any = None,
    target: str = "/mcp",
    content_type: str = "application/json",
    **params: Any,
) -> Message:
    body = body or {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "execute_sql", "arguments": {}, **params},
    }
    fields = [("content-type", content_type), ("mcp-protocol-version", version), *headers]
    return Message.build("POST", target, fields, json.dumps(body).encode())


def test_the_target_is_the_endpoint_and_nothing_more() -> None:
    assert code_of(call(target="/mcp/")) == "http.path"
    assert code_of(call(target="/mcp?")) == "http.path"
    assert code_of(call(target="/other?x=1"), path=None) == "http.path"
    assert parse_mcp(call(target="/other"), path=None, input_schemas=SCHEMAS).tool == "execute_sql"


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON; charset=UTF-8"])
def test_the_media_type_may_say_utf8(content_type: str) -> None:
    assert parse_mcp(call(content_type=content_type), path="/mcp", input_schemas=SCHEMAS).method == "tools/call"


@pytest.mark.parametrize("content_type", ["application/json;", "application/json;charset=utf-8", "application/jsonx"])
def test_the_media_type_says_nothing_else(content_type: str) -> None:
    assert code_of(call(content_type=content_type)) == "parse.encoding"


@pytest.mark.parametrize("body", [b"1", b'"tools/call"', b"null"])
def test_a_scalar_is_no_message(body: bytes) -> None:
    message = Message("POST", "/mcp", (("content-type", "application/json"),), body)

    assert code_of(message) == "parse.type"


@pytest.mark.parametrize(
    "change",
    [
        {"jsonrpc": "1.0"},
        {"jsonrpc": 2.0},
        {"method": 1},
        {"method": None},
        {"id": 1.5},
        {"id": []},
        {"params": None},
        {"result": {}},
        {"error": {}},
        {"method": "notifications/cancelled"},
    ],
)
def test_an_envelope_that_is_wrong(change: dict[str, Any]) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping", **change}

    assert code_of(call(body=body)) == "mcp.envelope"


def test_a_cancellation_has_no_id() -> None:
    body = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    request = parse_mcp(call(body=body), path="/mcp", input_schemas=SCHEMAS)

    assert request.is_notification
    assert request.call(AUDIENCE).arguments == {}


def test_other_notifications_are_unknown() -> None:
    body = {"jsonrpc": "2.0", "method": "notifications/progress"}

    assert code_of(call(body=body)) == "mcp.method_unknown"


def test_which_methods_a_version_has() -> None:
    assert base_methods("2026-07-28") == {"server/discover", "tools/list"}
    assert "initialize" in base_methods("2025-06-18")
    assert "tools/call" not in base_methods("2025-11-25")


@pytest.mark.parametrize("name", ["", "a" * 129, "caf\u00e9", "a/b", "a\n", 1, None, ["a"]])
def test_the_name_of_a_tool_is_plain(name: Any) -> None:
    assert code_of(call(name=name)) == "mcp.params"


def test_a_header_names_no_tool_that_the_body_does_not() -> None:
    assert code_of(call(("mcp-name", "execute_sql"), name=None)) == "mcp.header_mismatch"


def test_headers_of_arguments_must_agree_in_every_version() -> None:
    region: dict[str, Any] = {"arguments": {"region": "eu"}}
    assert parse_mcp(call(("mcp-param-region", "eu"), **region), path=None, input_schemas=SCHEMAS).tool
    assert code_of(call(("mcp-param-region", "us"), **region)) == "mcp.header_mismatch"
    assert code_of(call(("mcp-param-query", "x"), arguments={"query": "x"})) == "mcp.header_mismatch"
    assert code_of(call(("mcp-param-region", "eu"), arguments={})) == "mcp.header_mismatch"
    assert code_of(call(("mcp-param-limit", "1"), arguments={"options": 1})) == "mcp.header_mismatch"


def test_an_argument_in_a_header_belongs_to_a_tool() -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}

    assert code_of(call(("mcp-param-region", "eu"), body=body)) == "mcp.header_mismatch"
    assert code_of(call(("mcp-param-region", "eu"), body=body), input_schemas=None) == "mcp.header_mismatch"


def test_without_schemas_the_signature_covers_the_headers() -> None:
    message = call(("mcp-param-anything", "x"), name="unheard_of")

    assert parse_mcp(message, path=None, input_schemas=None).tool == "unheard_of"


@pytest.mark.parametrize(
    ("sent", "value"),
    [("true", True), ("false", False), ("-7", -7), ("0", 0), ("1", 1), ("", ""), ("=?base64?w6k=?=", "\u00e9")],
)
def test_how_a_value_is_spelt(sent: str, value: Any) -> None:
    schemas = {"execute_sql": {"properties": {"v": {"x-mcp-header": "V"}}}}
    message = call(("Mcp-Param-V", sent), arguments={"v": value})

    assert parse_mcp(message, path=None, input_schemas=schemas).arguments == {"v": value}


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("True", True),
        ("1", True),
        ("true", 1),
        ("1", "1 "),
        ("+1", 1),
        ("01", 1),
        ("1.5", 1.5),
        ("[]", []),
        ("\u00e9", "\u00e9"),
        ("=?base64?w6k?=", "\u00e9"),
        ("=?base64?w6l=?=", "\u00e9"),
        ("=?BASE64?w6k=?=", "=?BASE64?w6k=?="),
        ("=?base64?x", "=?base64?x"),
    ],
)
def test_how_a_value_is_not_spelt(sent: str, value: Any) -> None:
    schemas = {"execute_sql": {"properties": {"v": {"x-mcp-header": "V"}}}}

    assert code_of(call(("Mcp-Param-V", sent), arguments={"v": value}), input_schemas=schemas) == "mcp.header_mismatch"


def test_two_arguments_of_one_header_must_both_agree() -> None:
    schemas = {"execute_sql": {"properties": {"a": {"x-mcp-header": "V"}, "b": {"x-mcp-header": "v"}}}}

    assert parse_mcp(call(("mcp-param-v", "1"), arguments={"a": 1, "b": 1}), path=None, input_schemas=schemas).tool
    assert code_of(call(("mcp-param-v", "1"), arguments={"a": 1}), input_schemas=schemas) == "mcp.header_mismatch"


@pytest.mark.parametrize("schema", [None, [], {"properties": []}, {"properties": {"a": 1}}, {"x-mcp-header": "a"}])
def test_a_schema_that_marks_nothing(schema: Any) -> None:
    assert code_of(call(("mcp-param-a", "1"), arguments={"a": 1}), input_schemas={"execute_sql": schema}) == (
        "mcp.header_mismatch"
    )


def test_arguments_do_not_show() -> None:
    request = parse_mcp(call(arguments={"query": "hunter2"}), path=None, input_schemas=SCHEMAS)

    assert "hunter2" not in repr(request)
    assert "hunter2" not in repr(request.call(AUDIENCE))


@pytest.mark.parametrize("cut", range(0, 120, 7))
def test_a_truncated_body_is_refused(cut: int) -> None:
    whole = call(arguments={"region": "eu", "query": "SELECT 1", "options": {"limit": 1}})
    message = Message(whole.method, whole.target, whole.headers, whole.body[:cut])

    assert code_of(message) == "parse.syntax"
