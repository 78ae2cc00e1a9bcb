"""A request has one reading, or none: target, field lines, body."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countersign.errors import Invalid
from countersign.wire import ONCE_FIELDS, Message, travels
from countersign.wire.message import _one_by_one

if TYPE_CHECKING:
    from collections.abc import Callable


def refused(
    headers: list[tuple[str | bytes, str | bytes]] | None = None,
    *,
    method: str = "POST",
    target: str = "/mcp",
    body: bytes = b"",
    max_body: int = 262_144,
) -> str:
    with pytest.raises(Invalid) as caught:
        Message.build(method, target, headers or [], body, max_body=max_body)
    return caught.value.code


def test_names_are_lower_case_and_values_trimmed_and_the_order_kept() -> None:
    message = Message.build("POST", "/mcp?x=%2F", [("X-B", " \tone two\t "), (b"X-A", b"caf\xe9"), ("x-b", "")], b"b")

    assert message.headers == (("x-b", "one two"), ("x-a", "caf\xe9"), ("x-b", ""))
    assert (message.method, message.target, message.body) == ("POST", "/mcp?x=%2F", b"b")
    assert (message.get("x-b"), message.get("x-a"), message.get("x-c")) == ("one two", "caf\xe9", None)


@pytest.mark.parametrize("name", [*sorted(ONCE_FIELDS - {"content-encoding"}), "countersign-x", "mcp-param-x"])
def test_a_field_that_decides_occurs_once(name: str) -> None:
    assert refused([(name, "a"), (name.title().encode(), b"a")]) == "parse.duplicate_header"


def test_any_content_encoding_is_refused() -> None:
    assert refused([("Content-Encoding", "identity")]) == "parse.encoding"
    assert refused([("content-encoding", "")]) == "parse.encoding"


@pytest.mark.parametrize(
    "target",
    ["", "*", "mcp", "http://h/mcp", "h:443", "/a#b", "/a b", "/caf\u00e9", "/a\n", "/a\x00", "/\x7f", "\\mcp"],
)
def test_a_target_is_in_origin_form(target: str) -> None:
    assert refused(target=target) == "http.path"


@pytest.mark.parametrize("method", ["", "GE T", "GET\n", "G\u00c9T", "A(B"])
def test_a_method_is_a_token(method: str) -> None:
    assert refused(method=method) == "parse.syntax"


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\n", "\u212aey", "a\x00", b"\xe9"])
def test_a_name_is_a_token(name: str | bytes) -> None:
    assert refused([(name, "x")]) == "parse.syntax"


@pytest.mark.parametrize("value", ["a\nb", "a\r\n b", "a\x00", "\x01", "\x7f", "\u20ac", "a\n", b"a\rb"])
def test_a_value_is_printable(value: str | bytes) -> None:
    assert refused([("x", value)]) == "parse.syntax"


def test_the_body_has_a_limit() -> None:
    assert Message.build("POST", "/", [], b"xx", max_body=2).body == b"xx"
    assert refused(body=b"xxx", max_body=2) == "parse.size"
    assert refused(body=b"x" * 262_145) == "parse.size"


def test_what_is_secret_does_not_show() -> None:
    message = Message.build("POST", "/mcp", [("authorization", "Countersign abc")], b"hunter2")

    assert "abc" not in repr(message)
    assert "hunter2" not in repr(message)


@pytest.mark.parametrize(
    "name", ["host", "accept", "content-type", "traceparent", "mcp-method", "mcp-session-id", "mcp-param-a"]
)
def test_what_travels(name: str) -> None:
    assert travels(name)


@pytest.mark.parametrize("name", ["mcp-tenant", "mcp-param", "mcp-"])
def test_d3_a_field_that_no_signature_covers_does_not_travel(name: str) -> None:
    assert not travels(name)


@pytest.mark.parametrize(
    "name", ["cookie", "forwarded", "x-original-url", "x-http-method-override", "authorization", "countersign-chain"]
)
def test_what_does_not_travel(name: str) -> None:
    assert not travels(name)


_NAMES = [
    b"host",
    b"accept",
    b"content-type",
    b"Content-Type",
    b"content-encoding",
    b"countersign-chain",
    b"x-a",
    b"mcp-a",
    b"a b",
    b"",
]
_VALUES = [b"", b" x\t", b"x y", b"a\tb", b"caf\xe9", b"a\nb", b"\x7f", b"\x00"]


@given(st.lists(st.tuples(st.sampled_from(_NAMES), st.sampled_from(_VALUES)), max_size=6))
def test_well_known_fields_are_read_as_each_one_is(headers: list[tuple[bytes, bytes]]) -> None:
    def answer(read: Callable[[], object]) -> object:
        try:
            return read()
        except Invalid as fault:
            return fault.code

    wanted = answer(lambda: _one_by_one([*headers]))
    assert answer(lambda: Message.build("POST", "/", headers, b"").headers) == wanted
    if isinstance(wanted, tuple):
        assert Message.build("POST", "/", headers, b"").fields == dict(reversed(wanted))
