"""Plain HTTP calls: the digest input has one spelling, and what routers read differently is refused."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from support.wire_vectors import body_of, cases

from countersign.errors import Invalid
from countersign.wire import Message, canonical, parse_http


def message_of(case: dict[str, Any]) -> Message:
    headers = [("content-type", case["content_type"])] if case["content_type"] else []
    return Message.build(case["method"], case["target"], headers, body_of(case))


@pytest.mark.parametrize("case", cases("http-calls", accept=True))
def test_accepted(case: dict[str, Any]) -> None:
    call = parse_http(message_of(case), audience="a", base_path=case["base_path"])

    assert call.arguments == case["input"]
    assert canonical(call.arguments) == base64.b64decode(case["canonical"])
    assert call.args == case["args"]
    assert (call.protocol, call.method, call.tool) == ("HTTP", case["method"], "")


@pytest.mark.parametrize("case", cases("http-calls", accept=False))
def test_refused(case: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        parse_http(message_of(case), audience="a", base_path=case["base_path"])

    assert caught.value.code == case["code"]


def test_the_vectors_are_all_there() -> None:
    assert (len(cases("http-calls", accept=True)), len(cases("http-calls", accept=False))) == (10, 32)


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/a%3bb", "http.path"),
        ("/a%2Fb", "http.path"),
        ("/a%7f", "http.path"),
        ("/a%C2%85", "http.path"),
        ("/.", "http.path"),
        ("/a%", "http.path"),
        ("/a%C0%AF", "http.path"),
        ("//", "http.path"),
        ("/a[b", "http.path"),
        ("/a?=1", "http.query"),
        ("/a?x=%00", "http.query"),
        ("/a?x=%ff", "http.query"),
        ("/a?x=%3", "http.query"),
        ("/a?x=1&", "http.query"),
        ("/a??x=1&x=2&", "http.query"),
    ],
)
def test_more_refusals(target: str, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_http(Message.build("GET", target, [], b""), audience="a", base_path="")

    assert caught.value.code == code


def test_a_target_that_is_the_base_with_a_slash() -> None:
    assert parse_http(Message.build("GET", "/v1/", [], b""), audience="a", base_path="/v1").arguments["path"] == "/"
