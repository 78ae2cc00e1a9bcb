"""The body of ``/token``: every way it can be wrong has a code, and nothing in it is looked at before the proof."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.world import AUDIENCE, ISSUER, details, form

from countersign.errors import Invalid
from countersign_webhook.decide.form import _pairs

if TYPE_CHECKING:
    from support.world import World

TOO_DEEP = json.dumps([{"type": "countersign_call", "arguments": {}}]).replace("{}", '{"a":' * 40 + "1" + "}" * 40)


@pytest.mark.parametrize(
    ("body", "status", "code", "error"),
    [
        (b"grant_type", 400, "request.parameter", "invalid_request"),
        (b"&", 400, "request.parameter", "invalid_request"),
        (b"=x", 400, "request.parameter", "invalid_request"),
        (b"{}", 400, "request.parameter", "invalid_request"),
        (b"\xff\xfe", 400, "request.parameter", "invalid_request"),
        # Read in one pass: not tried in the very many ways in which the first part could be split.
        (b"resource=" + b"a" * 100_000 + b"\x80", 400, "request.parameter", "invalid_request"),
        (form() + b"&", 400, "request.parameter", "invalid_request"),
        (form() + b"&resource=https%3A%2F%2Fother", 400, "request.parameter", "invalid_request"),
        (form(resource=AUDIENCE + "%zz").replace(b"%25zz", b"%zz"), 400, "request.parameter", "invalid_request"),
        (form(resource="x").replace(b"resource=x", b"resource=%ff"), 400, "request.parameter", "invalid_request"),
        (form(actor_token="x"), 400, "request.parameter", "invalid_request"),
        (form(audience=AUDIENCE), 400, "request.parameter", "invalid_request"),
        (form(scope="all"), 400, "request.parameter", "invalid_request"),
        (form(client_id="x"), 400, "request.parameter", "invalid_request"),
        (form(client_secret="x"), 400, "request.parameter", "invalid_request"),
        (form(client_assertion="x"), 400, "request.parameter", "invalid_request"),
        (form(dpop_jkt="x" * 43), 400, "request.parameter", "invalid_request"),
        (form(whatever="1"), 400, "request.parameter", "invalid_request"),
        (form(requested_token_type="urn:x"), 400, "request.parameter", "invalid_request"),
        (form(subject_token=None), 400, "request.parameter", "invalid_request"),
        (form(subject_token=""), 400, "request.parameter", "invalid_request"),
        (form(grant_type="client_credentials"), 400, "request.grant", "unsupported_grant_type"),
        (form(grant_type=None), 400, "request.grant", "unsupported_grant_type"),
        (form(subject_token_type="urn:x"), 400, "request.subject_type", "invalid_request"),
        (form(resource=None), 400, "request.resource", "invalid_target"),
        (form(resource=""), 400, "request.resource", "invalid_target"),
        (form(None), 400, "request.details", "invalid_authorization_details"),
        (form("{}"), 400, "request.details", "invalid_authorization_details"),
        (form("[]"), 400, "request.details", "invalid_authorization_details"),
        (form(details() + " "), 200, "", ""),
        (form(details(more=1)), 400, "request.details", "invalid_authorization_details"),
        (form(details(type="other")), 400, "request.details", "invalid_authorization_details"),
        (form(details(protocol="SOAP")), 400, "request.details", "invalid_authorization_details"),
        (form(details(arguments=[])), 400, "request.details", "invalid_authorization_details"),
        (form("[{"), 400, "parse.syntax", "invalid_request"),
        (form(TOO_DEEP), 400, "parse.depth", "invalid_request"),
        (form('[{"type":"a","Type":"b"}]'), 400, "parse.duplicate", "invalid_request"),
        (form("[1e999]"), 400, "parse.number_range", "invalid_request"),
        (form(details(method="ping") + "x"), 400, "parse.trailing", "invalid_request"),
    ],
)
async def test_a_body_that_is_wrong(world: World, body: bytes, status: int, code: str, error: str) -> None:
    answer = await world.send(await world.signed(body=body))

    assert answer.status_code == status, answer.text
    if status != 200:
        assert (answer.json()["code"], answer.json()["error"]) == (code, error)
        assert "countersign-nonce" in answer.headers
        [record] = await world.records()
        assert record["status_code"] == code


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/x-www-form-urlencoded; charset=utf-7", "text/plain", "multipart/form-data"],
)
async def test_another_media_type_is_refused(world: World, content_type: str) -> None:
    answer = await world.send(await world.signed(body=form(), content_type=content_type))

    assert (answer.status_code, answer.json()["code"]) == (415, "parse.encoding")


async def test_parameters_in_the_target_are_refused(world: World) -> None:
    answer = await world.send(
        await world.signed(path="/token?subject_token=other", audience=f"{ISSUER}/token", body=form())
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "request.parameter")


async def test_an_empty_body_is_refused(world: World) -> None:
    answer = await world.send(await world.signed())

    assert answer.status_code in (400, 415)


async def test_the_body_is_not_read_before_the_proof_is_good(world: World) -> None:
    message = await world.signed(body=b"\xff")
    headers = tuple(field for field in message.headers if field[0] != "signature")

    answer = await world.send(type(message)(message.method, message.target, headers, message.body))

    assert answer.json()["code"] == "proof.missing"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD"])
async def test_another_method_is_refused(world: World, method: str) -> None:
    message = await world.signed(body=form())

    answer = await world.send(type(message)(method, message.target, message.headers, b""))

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


async def test_an_oversize_body_is_refused(world: World) -> None:
    message = await world.signed(body=form(details(arguments={"charge": "x" * (1 << 20)})))

    answer = await world.send(message)

    assert (answer.status_code, answer.json()["code"]) == (413, "parse.size")


async def test_a_compressed_body_is_refused(world: World) -> None:
    message = await world.signed(body=form())
    headers = (*message.headers, ("content-encoding", "gzip"))

    answer = await world.send(type(message)(message.method, message.target, headers, message.body))

    assert (answer.status_code, answer.json()["code"]) == (415, "parse.encoding")


async def test_a_field_that_comes_twice_is_refused(world: World) -> None:
    message = await world.signed(body=form())
    headers = (*message.headers, ("signature", "x"))

    answer = await world.send(type(message)(message.method, message.target, headers, message.body))

    assert (answer.status_code, answer.json()["code"]) == (400, "parse.duplicate_header")


_ESCAPED = re.compile(rb"(?:[!\"#$'()*+,\-./0-9:;<>?@A-Z\[\\\]^_`a-z{|}~]+|%[0-9A-Fa-f]{2})*")
"""The grammar of a value as the page has it."""


@given(
    st.lists(
        st.sampled_from([*(bytes([byte]) for byte in range(256)), b"%41", b"%0a", b"%3D", b"%e2%82%ac", b"%4"])
    ).map(b"".join)
)
@example(bytes(range(0x21, 0x7F)))
@example(b"".join(b"%%%02x" % byte for byte in range(256)))
def test_a_value_is_refused_or_decoded_as_its_grammar_says(value: bytes) -> None:
    body = b"subject_token=" + value
    try:
        wanted = unquote_to_bytes(value.replace(b"+", b" ")).decode() if _ESCAPED.fullmatch(value) else None
    except UnicodeDecodeError:
        wanted = None

    try:
        found = _pairs(body).get("subject_token")
    except Invalid:
        found = None

    if b"&" not in value:
        assert found == wanted
