"""The signature base, what it covers, and making a signature; the RFC's own examples, and forms that are not ours."""

from __future__ import annotations

import base64
import contextlib
import re
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import example, given
from hypothesis import strategies as st
from support.signed_vectors import Case, VectorKey, cases, with_session
from support.wire_vectors import load

from countersign.errors import CountersignError, Denied
from countersign.wire import (
    Message,
    content_digest,
    covered_components,
    es256_verifies,
    read_jwk,
    sign_request,
    signature_fields,
    verify_leg_t,
)
from countersign.wire.signature import signature_base
from countersign.wire.signature_fields import read_signature, read_signature_input

GOOD = [case for leg in "TC" for case in cases(leg) if case.code is None]
PUBLISHED = load("published")


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
async def test_our_signer_builds_the_bases_of_the_vectors(case: Case) -> None:
    received = case.message()
    message = Message.build(received.method, received.target, received.headers, received.body)
    [member] = read_signature_input(message.get("signature-input") or "")
    values = dict(member.parameters)
    key = VectorKey(case.key)

    signed = await sign_request(
        message,
        key,
        audience=values["wimse-aud"].strip('"'),
        nonce=values["nonce"].strip('"'),
        created=int(values["created"]),
        seconds=int(values["expires"]) - int(values["created"]),
    )

    assert key.signed == [case.signature_base]
    assert signed.get("signature-input") == message.get("signature-input")
    assert signed.get("content-digest") == message.get("content-digest")


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_the_vectors_signatures_verify_under_their_keys(case: Case) -> None:
    received = case.message()
    message = Message.build(received.method, received.target, received.headers, received.body)
    [signature] = read_signature(message.get("signature") or "")

    raw = base64.b64decode(signature.text.strip(":"))

    assert es256_verifies(VectorKey(case.key).public_key, raw, case.signature_base)
    assert not es256_verifies(VectorKey("root").public_key, raw, case.signature_base)


@pytest.mark.parametrize("example", PUBLISHED["rfc9421"][:2], ids=lambda example: example["name"])
def test_the_rfcs_ecdsa_examples_verify(example: dict[str, Any]) -> None:
    base = example["signature_base"].encode()
    lines = [line.partition('": ') for line in example["signature_base"].split("\n")]
    values = tuple((name.lstrip('"'), value) for name, _, value in lines[:-1])
    message = Message(dict(values).get("@method", ""), "", values, b"")

    assert signature_base(message, dict(values), lines[-1][2]) == base
    assert es256_verifies(read_jwk(example["jwk"]), base64.b64decode(example["signature"]), base)


def test_the_rfcs_request_example_gives_its_base() -> None:
    [example] = [one for one in PUBLISHED["rfc9421"] if "request" in one]
    request = example["request"]
    headers = [(name, value) for name, value in request["headers"]]
    message = Message.build(request["method"], request["target"], headers, base64.b64decode(request["body"]))
    names = ("date", "@method", "content-type", "content-length")
    params = example["signature_base"].rpartition('"@signature-params": ')[2]

    ours = signature_base(message, names, params).decode().split("\n")

    expected = example["signature_base"].split("\n")
    assert ours == [line for line in expected if not line.startswith(('"@path', '"@authority'))]
    x = base64.urlsafe_b64decode(example["jwk"]["x"] + "=")
    signature = base64.b64decode(example["signature"])
    ed25519.Ed25519PublicKey.from_public_bytes(x).verify(signature, example["signature_base"].encode())


def test_the_rfcs_content_digest() -> None:
    [example] = PUBLISHED["rfc9530"]

    assert content_digest(base64.b64decode(example["body"])) == example["content_digest"]


def test_covered_components_are_a_function_of_the_message() -> None:
    headers = (
        ("mcp-param-zone", "1"),
        ("accept", "x"),
        ("mcp-name", "n"),
        ("mcp-method", "m"),
        ("mcp-param-area", "2"),
        ("mcp-session-id", "s"),
        ("authorization", "a"),
        ("content-type", "t"),
    )

    covered = covered_components(Message("POST", "/", headers, b""))

    assert covered == (
        "@method",
        "@request-target",
        "content-type",
        "authorization",
        "mcp-method",
        "mcp-name",
        "mcp-session-id",
        "mcp-param-area",
        "mcp-param-zone",
    )


async def test_an_old_signature_is_replaced_and_never_covered() -> None:
    key = VectorKey("tpm")
    message = Message("POST", "/", (("content-type", "t"),), b"{}")

    first = await sign_request(message, key, audience="https://a", nonce="n" * 22, created=1)
    again = await sign_request(first, key, audience="https://a", nonce="n" * 22, created=1)

    assert [name for name, _ in again.headers] == [name for name, _ in first.headers]
    assert key.signed[0] == key.signed[1]


@pytest.mark.parametrize(("audience", "nonce"), [('https://a"', "n" * 22), ("https://a", "short"), ("", "n" * 22)])
async def test_what_cannot_be_written_down_is_not_signed(audience: str, nonce: str) -> None:
    key = VectorKey("tpm")

    with pytest.raises(ValueError, match="cannot be signed"):
        await sign_request(Message("GET", "/", (), b""), key, audience=audience, nonce=nonce, created=1)

    assert key.signed == []


async def test_a_key_that_signs_otherwise_is_a_bug() -> None:
    class Der(VectorKey):
        async def sign(self, data: bytes) -> bytes:
            return (await super().sign(data))[:63]

    with pytest.raises(ValueError, match="64 bytes"):
        await sign_request(Message("GET", "/", (), b""), Der("tpm"), audience="https://a", nonce="n" * 22, created=1)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "wimse",
        "wimse=",
        "wimse=()x",
        "wimse=(@method)",
        'wimse=("@method" );created=1',
        'wimse=("@method"  "a");created=1',
        'wimse=("@method");created=1 ;expires=2',
        'wimse=("@method");nonce="a\\"b"',
        'wimse=("@method");nonce="a',
        'wimse=("@meth\u00f6d")',
        'wimse=("@method"),',
        ',wimse=("@method")',
        'wimse=("@method");Created=1',
        'wimse=("@method")\n',
    ],
)
def test_what_is_no_dictionary_of_inner_lists(value: str) -> None:
    with pytest.raises(Denied) as refusal:
        read_signature_input(value)

    assert refusal.value.code == "proof.format"


@given(st.text(alphabet='wimse=(")@;:,ab1 \t-.*', max_size=60))
def test_any_text_is_read_whole_or_refused_with_the_code(value: str) -> None:
    for reader in (read_signature, read_signature_input):
        with contextlib.suppress(_BadForm):
            members = _read(reader, value)
            written = ",".join(f"{one.label}={one.text}" for one in members)
            assert re.sub(r"[ \t]*,[ \t]*", ",", value) == re.sub(r"[ \t]*,[ \t]*", ",", written)


class _BadForm(Exception):
    """The refusal that is allowed."""


def _read(reader: Any, value: str) -> Any:
    try:
        return reader(value)
    except Denied as error:
        raise _BadForm if error.code == "proof.format" else error from error


@pytest.mark.parametrize("case", [one for one in cases("T") if one.name == "t_tpm"], ids=lambda one: one.name)
async def test_truncated_anywhere_the_fields_are_refused(case: Case) -> None:
    message = case.message()
    for name in ("signature", "signature-input", "content-digest"):
        value = message.get(name) or ""
        for end in range(0, len(value), 7):
            headers = tuple((each, text[:end] if each == name else text) for each, text in message.headers)
            with pytest.raises(CountersignError):
                await verify_leg_t(replace(message, headers=headers), await case.leg_t())


def test_the_cases_left_out_are_those_of_sessions_alone() -> None:
    assert {case.name for case in cases("T") if with_session(case)} == {
        "t_session",
        "session_not_covered",
        "session_signed_by_leaf",
        "session_of_other_leaf",
        "session_expired",
    }


_NAMES = st.sampled_from(["created", "expires", "nonce", "tag", "wimse-aud", "alg", "keyid"])
_WRITTEN = st.sampled_from(
    [
        "1795521600",
        "0",
        "007",
        "-1",
        "1.5",
        '"AAAAAAAAAAAAAAAAAAAAAA"',
        '"short"',
        '"a b"',
        '""',
        "?1",
        ":YQ==:",
        '"https://a/b"',
    ]
)
_COMPONENTS = st.lists(st.sampled_from(['"@method"', '"mcp-param-x"', '"a b"', '" "', '""', '"A"']), max_size=4)
_USUAL = 'wimse=("@method" "content-digest");created=1;expires=31;nonce="AAAAAAAAAAAAAAAAAAAAAA";tag="t";wimse-aud="https://a/b"'


def answer_of(read: Any, value: str) -> Any:
    try:
        return read(value)
    except Denied as refused:
        return refused.code


@given(_COMPONENTS, st.lists(st.tuples(_NAMES, _WRITTEN), max_size=6), st.sampled_from(["wimse", "sig1"]))
@example(['"@method"'], [], "wimse")
def test_the_usual_way_to_write_an_input_is_read_as_its_grammar_says(
    components: list[str], parameters: list[tuple[str, str]], label: str
) -> None:
    written = "".join(f";{name}={value}" for name, value in parameters)
    for value in (f"{label}=({' '.join(components)}){written}", _USUAL, _USUAL + written):
        found = answer_of(read_signature_input, value)
        if not isinstance(found, str):
            found = tuple(member._replace(usual=False) for member in found)
        assert found == answer_of(signature_fields._input_by_grammar, value)


@given(st.from_regex(r"\A(wimse|sig1)=:[A-Za-z0-9+/]{85,87}={0,2}:;?\Z") | st.text(max_size=20))
def test_the_usual_way_to_write_a_signature_is_read_as_its_grammar_says(value: str) -> None:
    assert answer_of(read_signature, value) == answer_of(signature_fields._signature_by_grammar, value)


def test_what_signers_write_is_the_usual_way() -> None:
    assert signature_fields._USUAL_INPUT.fullmatch(_USUAL)
    assert signature_fields._USUAL_SIGNATURE.fullmatch(f"wimse=:{'A' * 86}==:")
