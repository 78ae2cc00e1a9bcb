"""The issuer's keys: when there must be a new one, and ``keys.json`` as the front door reads it (wire.md 5).

Pure but for the making of a key. A key is published ten minutes before it signs, so that every verifier has it by then, and stays for ten minutes after it
last signed. Only the first key of all is used at once: nobody could verify anything before it anyway.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from countersign.kube.rotation import Overlap
from countersign.wire import thumbprint

__all__ = ["TokenKey", "read_keys", "rotated", "written"]

_LIFE: Final = 30 * 86400
_OVERLAP: Final = Overlap(ahead=timedelta(minutes=10), kept=timedelta(minutes=10))
# The successor is made a day early: an operator that is down for hours must not leave the front door without a key.
_EARLY: Final = 86400
_FIELDS: Final = {"kid": str, "privateKey": str, "createdAt": int, "useFrom": int, "useUntil": int}


@dataclass(frozen=True)
class TokenKey:
    """One key; times in seconds since 1970. It signs from ``use_from`` until before ``use_until``."""

    kid: str
    private_key: str = field(repr=False)
    created_at: int
    use_from: int
    use_until: int


def rotated(
    keys: tuple[TokenKey, ...], now: int, overlap: Overlap = _OVERLAP, *, forced: bool = False
) -> tuple[TokenKey, ...]:
    """Return the keys that there should be at ``now``, oldest first; the same ones if nothing is due.

    When ``forced``, a successor is published now, and the keys of today end when it begins.
    """
    kept = tuple(key for key in keys if now < key.use_until + int(overlap.kept.total_seconds()))
    if not any(key.use_from <= now < key.use_until for key in kept):
        return _ordered((*kept, _new(now, now)))
    start = now + int(overlap.ahead.total_seconds())
    if forced and all(key.use_from <= now for key in kept):
        kept = tuple(replace(key, use_until=min(key.use_until, start)) for key in kept)
        return _ordered((*kept, _new(now, start)))
    if max(key.use_until for key in kept) - now <= _EARLY:
        return _ordered((*kept, _new(now, start)))
    return _ordered(kept)


def read_keys(text: bytes) -> tuple[TokenKey, ...]:
    """Read ``keys.json``. Raises ``ValueError`` if any of it is not as :func:`written` writes it."""
    document = json.loads(text)
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        msg = "keys.json has another form"
        raise ValueError(msg)  # noqa: TRY004 - the content is wrong, not the type of an argument
    return _ordered(tuple(_read(entry) for entry in document["keys"]))


def written(keys: tuple[TokenKey, ...]) -> bytes:
    """Return ``keys.json``."""
    entries = [
        {
            "kid": key.kid,
            "privateKey": key.private_key,
            "createdAt": key.created_at,
            "useFrom": key.use_from,
            "useUntil": key.use_until,
        }
        for key in keys
    ]
    return json.dumps({"keys": entries}).encode()


def _new(now: int, use_from: int) -> TokenKey:
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return TokenKey(thumbprint(private.public_key()), pem, now, use_from, use_from + _LIFE)


def _ordered(keys: tuple[TokenKey, ...]) -> tuple[TokenKey, ...]:
    return tuple(sorted(keys, key=lambda key: (key.use_from, key.kid)))


def _read(entry: Any) -> TokenKey:
    """Read one key; what is wrong is said without repeating it."""
    if not isinstance(entry, dict) or set(entry) != set(_FIELDS):
        msg = "keys.json has a key with other fields"
        raise ValueError(msg)
    if any(type(entry[name]) is not kind for name, kind in _FIELDS.items()):
        msg = "keys.json has a key whose fields are of other types"
        raise ValueError(msg)
    try:
        private = load_pem_private_key(entry["privateKey"].encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        msg = "keys.json has a key that cannot be read"
        raise ValueError(msg) from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or thumbprint(private.public_key()) != entry["kid"]:
        msg = "keys.json has a key that is not the one it is named after"
        raise ValueError(msg)
    return TokenKey(entry["kid"], entry["privateKey"], entry["createdAt"], entry["useFrom"], entry["useUntil"])
