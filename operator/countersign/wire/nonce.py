"""Nonces that need no memory: whoever has the key K knows its own, how old it is, and for which key (wire.md 3.3.3)."""

from __future__ import annotations

import hmac
import os
from hashlib import sha256
from typing import Final, Protocol

from countersign.errors import Denied
from countersign.wire.encoding import b64u, unb64u

__all__ = ["NONCE_SECONDS", "NonceCheck", "Nonces"]

NONCE_SECONDS: Final = 60
"""How long a nonce lives."""

_VERSION: Final = b"\x01"
_LABEL: Final = b"countersign nonce v1\x00"
_RANDOM: Final = 12
_MAC: Final = 16
_HEAD: Final = len(_VERSION) + 4 + _RANDOM
_LONGEST: Final = 64
_MIN_KEY: Final = 32
_BLOCK: Final = 64
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))


class NonceCheck(Protocol):
    """Tells whether a nonce is one of ours."""

    def check(self, nonce: str, jkt: str, now: int) -> int:
        """Return when it was issued; raise Denied ``nonce.invalid`` or ``nonce.expired``."""


class Nonces:
    """Makes and checks nonces under one key of at least 32 bytes. Single use is the replay cache's task."""

    def __init__(self, key: bytes) -> None:
        """Use ``key``, K of the page."""
        if len(key) < _MIN_KEY:
            msg = f"the nonces' key has at least {_MIN_KEY} bytes"
            raise ValueError(msg)
        # HMAC by its two halves (RFC 2104): what the key adds to each is worked out once.
        padded = (key if len(key) <= _BLOCK else sha256(key).digest()).ljust(_BLOCK, b"\0")
        self._inner = sha256(padded.translate(_INNER) + _LABEL)
        self._outer = sha256(padded.translate(_OUTER))

    def make(self, jkt: str, now: int) -> str:
        """Return a nonce for the key ``jkt``, issued at ``now`` in seconds since 1970."""
        head = _VERSION + now.to_bytes(4, "big") + os.urandom(_RANDOM)
        return b64u(head + self._mac(head, jkt))

    def check(self, nonce: str, jkt: str, now: int) -> int:
        """Return when ``nonce`` was issued.

        Raises
        ------
        Denied
            ``nonce.invalid`` if it is not ours or for another key, ``nonce.expired`` if it is older than 60 s.

        """
        try:
            data = unb64u(nonce) if len(nonce) <= _LONGEST and nonce.isascii() else b""
        except ValueError:
            data = b""
        head = data[:_HEAD]
        if len(data) != _HEAD + _MAC or not hmac.compare_digest(data[_HEAD:], self._mac(head, jkt)):
            raise Denied("nonce.invalid", "not a nonce of ours for this key")
        if head[:1] != _VERSION:
            raise Denied("nonce.invalid", "a nonce of another version")
        issued = int.from_bytes(head[1:5], "big")
        if now - issued > NONCE_SECONDS:
            raise Denied("nonce.expired", f"older than {NONCE_SECONDS} s")
        return issued

    def _mac(self, head: bytes, jkt: str) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(head + jkt.encode())
        outer.update(inner.digest())
        return outer.digest()[:_MAC]
