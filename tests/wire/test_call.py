"""The canonical call: its digests, and the description of it that a signer sends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countersign.errors import Invalid
from countersign.wire import Call, canonical, digest_of, parse_details

AUDIENCE = "https://tools.example.com/stripe"
ENTRY: dict[str, Any] = {
    "type": "countersign_call",
    "protocol": "MCP",
    "method": "tools/call",
    "tool": "create_refund",
    "arguments": {"charge": "ch_1", "amount": 1200},
}
HTTP: dict[str, Any] = {
    **ENTRY,
    "protocol": "HTTP",
    "method": "GET",
    "tool": "",
    "arguments": {"body": None, "path": "/a", "query": {}},
}


def code_of(value: Any) -> str:
    with pytest.raises(Invalid) as caught:
        parse_details(value if isinstance(value, str) else json.dumps(value), audience=AUDIENCE)
    return caught.value.code


def test_a_digest_is_written_in_one_way() -> None:
    assert digest_of(b"{}") == "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert canonical({"b": 1, "a": [True, None, "\u00e9"]}) == '{"a":[true,null,"\u00e9"],"b":1}'.encode()


def test_a_call_is_read_and_named() -> None:
    call = parse_details(json.dumps([ENTRY]), audience=AUDIENCE)

    assert call == Call("MCP", "tools/call", "create_refund", {"charge": "ch_1", "amount": 1200}, AUDIENCE)
    assert call.args == "sha256:dd8159d8392a6d01a576bb1430de39193053e77c3c5978befe272b25b26cbe0a"
    assert call.digest == "sha256:a985671730e2bacc6a131e41b00341994a0f198509d33238c509931e5341bb6e"
    assert call.details == {key: value for key, value in ENTRY.items() if key != "arguments"} | {"args": call.args}
    assert "ch_1" not in repr(call)


def test_a_plain_http_call_is_read() -> None:
    assert parse_details(json.dumps([HTTP]), audience=AUDIENCE).protocol == "HTTP"


@pytest.mark.parametrize("name", sorted(ENTRY))
def test_every_member_is_required(name: str) -> None:
    assert code_of([{key: value for key, value in ENTRY.items() if key != name}]) == "request.details"


@pytest.mark.parametrize("value", [{}, [], [[]], [1], None, "x", 1, [ENTRY, ENTRY], ENTRY])
def test_it_is_an_array_with_one_object(value: Any) -> None:
    assert code_of(json.dumps(value)) == "request.details"


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"type": "other"},
        {"type": 1},
        {"protocol": "mcp"},
        {"protocol": 1},
        {"protocol": []},
        {"method": ""},
        {"method": 1},
        {"method": "tools call"},
        {"method": "tools/list"},
        {"method": "tools/list", "tool": ""},
        {"tool": ""},
        {"tool": "a b"},
        {"tool": "a" * 129},
        {"tool": None},
        {"arguments": []},
        {"arguments": None},
    ],
)
def test_a_description_that_is_wrong(change: dict[str, Any]) -> None:
    assert code_of([ENTRY | change]) == "request.details"


@pytest.mark.parametrize(
    "change", [{"tool": "x"}, {"method": "get"}, {"arguments": {}}, {"arguments": {**HTTP["arguments"], "x": 1}}]
)
def test_a_plain_http_description_that_is_wrong(change: dict[str, Any]) -> None:
    assert code_of([HTTP | change]) == "request.details"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[{", "parse.syntax"),
        ("[1]x", "parse.trailing"),
        ('[{"type":1,"Type":2}]', "parse.duplicate"),
        ("\ufeff[]", "parse.bom"),
        ('["\ud800"]', "parse.utf8"),
        ('["' + "x" * (1 << 20) + '"]', "parse.size"),
    ],
)
def test_the_json_is_strict(text: str, code: str) -> None:
    assert code_of(text) == code


_ARGUMENTS = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(-9, 9) | st.text("xyz", max_size=3))


@given(_ARGUMENTS, st.randoms(use_true_random=False))
def test_the_order_of_arguments_does_not_matter(arguments: dict[str, Any], random: Any) -> None:
    names = list(arguments)
    random.shuffle(names)
    shuffled = {name: arguments[name] for name in names}

    assert Call("MCP", "m", "t", arguments, "a").digest == Call("MCP", "m", "t", shuffled, "a").digest


@given(_ARGUMENTS, _ARGUMENTS)
def test_other_arguments_have_another_digest(one: dict[str, Any], other: dict[str, Any]) -> None:
    same = Call("MCP", "m", "t", one, "a").digest == Call("MCP", "m", "t", other, "a").digest

    assert same is (one == other)


@pytest.mark.parametrize("change", [("x", "t", "a"), ("m", "x", "a"), ("m", "t", "x")])
def test_method_tool_and_audience_are_in_the_call_digest(change: tuple[str, str, str]) -> None:
    method, tool, audience = change

    assert Call("MCP", method, tool, {}, audience).digest != Call("MCP", "m", "t", {}, "a").digest
