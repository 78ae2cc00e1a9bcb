"""A question to a log elsewhere: read whole or not at all, and nothing is said before its signature is good."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from countersign.audit import Filters, Question, read_question, sign_question
from countersign.audit.compact import sign_compact

KEY = ec.generate_private_key(ec.SECP256R1())
TYPE = "countersign-audit-question+jwt"
SINCE = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
WHOLE = Question(
    "https://issuer.example.com", "reader-x2x9p", 1795521600, "billing", Filters(code="policy.", since=SINCE), 7
)
CLAIMS: dict[str, Any] = {
    "aud": "https://issuer.example.com",
    "reader": "reader-x2x9p",
    "iat": 1795521600,
    "namespace": None,
    "filters": {},
    "limit": 1,
}


@pytest.mark.parametrize("namespace", ["billing", None])
def test_a_question_is_read_as_it_was_asked(namespace: str | None) -> None:
    asked = Question(WHOLE.aud, WHOLE.reader, WHOLE.iat, namespace, WHOLE.filters, WHOLE.limit)

    assert read_question(sign_question(asked, KEY)).verify(KEY.public_key()) == asked


def test_a_question_of_another_key_says_nothing() -> None:
    stranger = ec.generate_private_key(ec.SECP256R1())

    with pytest.raises(ValueError, match="signature"):
        read_question(sign_question(WHOLE, stranger)).verify(KEY.public_key())


@pytest.mark.parametrize(
    "change",
    [
        {"aud": 1},
        {"reader": "Not A Name"},
        {"reader": "../x"},
        {"iat": "1795521600"},
        {"iat": True},
        {"iat": -1},
        {"iat": 10**400},
        {"limit": 0},
        {"limit": 1001},
        {"namespace": ""},
        {"namespace": "a/b"},
        {"filters": []},
        {"filters": {"unknown": "x"}},
        {"filters": {"code": 1}},
        {"filters": {"code": ""}},
        {"filters": {"answer": "maybe"}},
        {"filters": {"since": "2026-11-24T12:00:00"}},
        {"filters": {"since": "yesterday"}},
        {"more": 1},
    ],
)
def test_a_member_that_is_odd_is_no_question(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has words of its own
        read_question(sign_compact({"typ": TYPE}, {**CLAIMS, **change}, KEY))


@pytest.mark.parametrize("name", CLAIMS)
def test_a_member_that_is_missing_is_no_question(name: str) -> None:
    claims = {each: value for each, value in CLAIMS.items() if each != name}

    with pytest.raises(ValueError, match="a question has"):
        read_question(sign_compact({"typ": TYPE}, claims, KEY))


@pytest.mark.parametrize(
    "header", [{}, {"typ": "countersign-audit-head+jwt"}, {"typ": TYPE, "kid": "x"}, {"typ": TYPE, "alg": "none"}]
)
def test_another_header_is_no_question(header: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="not a question"):
        read_question(sign_compact(header, CLAIMS, KEY))


@pytest.mark.parametrize(
    "text", ["", "a.b", "a.b.c", "a.b.c.d", "e30.e30." + "A" * 86, "x" * 5000, "W10.W10." + "A" * 86]
)
def test_what_is_no_jws_is_no_question(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has words of its own
        read_question(text)


def test_a_name_that_comes_twice_is_no_question() -> None:
    import base64  # noqa: PLC0415 - this one test spells a JWS by hand

    def part(text: str) -> str:
        return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()

    doubled = part('{"alg":"ES256","typ":"x","typ":"y"}')

    with pytest.raises(ValueError, match="twice"):
        read_question(f"{doubled}.{part('{}')}.{'A' * 86}")
