"""Nonces: their bytes, whose they are, how long they live."""

from __future__ import annotations

import base64
import hmac
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countersign.errors import Denied
from countersign.wire import Nonces

KEY = bytes(range(32))
JKT = "04EU9dd1Er0TPyk59DOtXKXngn7iGt4yHzXLJtSsA1s"
OTHER = "666x5JklB4zJ78mM72OA3eto8i30vlLJQKj9FPNu9HQ"
NOW = 1_795_521_600


def test_the_bytes_are_those_of_the_page() -> None:
    nonce = Nonces(KEY).make(JKT, NOW)

    data = base64.urlsafe_b64decode(nonce)
    assert (len(nonce), len(data), data[0]) == (44, 33, 1)
    assert int.from_bytes(data[1:5], "big") == NOW
    assert data[17:] == hmac.new(KEY, b"countersign nonce v1\x00" + data[:17] + JKT.encode(), sha256).digest()[:16]


def test_no_two_are_equal() -> None:
    assert len({Nonces(KEY).make(JKT, NOW) for _ in range(100)}) == 100


@pytest.mark.parametrize("age", [0, 59, 60])
def test_it_lives_sixty_seconds(age: int) -> None:
    assert Nonces(KEY).check(Nonces(KEY).make(JKT, NOW), JKT, NOW + age) == NOW


def refused(nonce: str, jkt: str = JKT, now: int = NOW, key: bytes = KEY) -> str:
    with pytest.raises(Denied) as refusal:
        Nonces(key).check(nonce, jkt, now)
    return refusal.value.code


def test_an_older_one_is_expired() -> None:
    assert refused(Nonces(KEY).make(JKT, NOW), now=NOW + 61) == "nonce.expired"


def test_a9_one_of_another_key_or_another_start_is_invalid() -> None:
    nonce = Nonces(KEY).make(JKT, NOW)

    assert refused(nonce, jkt=OTHER) == "nonce.invalid"
    assert refused(nonce, key=b"x" * 32) == "nonce.invalid"


def test_a_changed_byte_anywhere_is_invalid() -> None:
    data = bytearray(base64.urlsafe_b64decode(Nonces(KEY).make(JKT, NOW)))
    for at in range(len(data)):
        data[at] ^= 1
        assert refused(base64.urlsafe_b64encode(bytes(data)).decode()) == "nonce.invalid"
        data[at] ^= 1


def test_another_version_under_our_own_key_is_invalid() -> None:
    head = b"\x02" + NOW.to_bytes(4, "big") + bytes(12)
    mac = hmac.new(KEY, b"countersign nonce v1\x00" + head + JKT.encode(), sha256).digest()[:16]

    assert refused(base64.urlsafe_b64encode(head + mac).decode()) == "nonce.invalid"


@given(st.text(max_size=300))
def test_any_text_is_invalid(text: str) -> None:
    assert refused(text) == "nonce.invalid"


def test_a_short_key_makes_no_nonces() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Nonces(b"short")
