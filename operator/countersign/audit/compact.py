"""JWS in compact form, as heads and questions have it: ES256 over two JSON objects. Form here; what they say is others'."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ALG", "Compact", "read_compact", "sign_compact", "verify_compact"]

Compact = tuple[dict[str, Any], dict[str, Any], bytes, bytes]
"""Header, claims, signature, and the bytes that were signed."""

ALG: Final = "ES256"
_HALF: Final = 32
_MAX: Final = 4096
_ES256: Final = ec.ECDSA(SHA256())
_PART: Final = re.compile(r"[A-Za-z0-9_-]+")


def sign_compact(header: Mapping[str, Any], claims: Mapping[str, Any], key: ec.EllipticCurvePrivateKey) -> str:
    """Return the JWS; ``alg`` is put in front of ``header``."""
    parts = [json.dumps(part, separators=(",", ":")) for part in ({"alg": ALG, **header}, dict(claims))]
    signed = ".".join(_encode(part.encode()) for part in parts)
    r, s = decode_dss_signature(key.sign(signed.encode(), _ES256))
    return f"{signed}.{_encode(r.to_bytes(_HALF, 'big') + s.to_bytes(_HALF, 'big'))}"


def read_compact(text: str) -> Compact:
    """Return the parts of a JWS of at most 4,096 characters. Raises ValueError for any other form; nothing is verified."""
    texts = text.split(".") if len(text) <= _MAX else []
    if [bool(_PART.fullmatch(part)) for part in texts] != [True, True, True]:
        raise ValueError("three base64url parts are wanted")
    header, claims = (_object(_decode(part)) for part in texts[:2])
    signature = _decode(texts[2])
    if len(signature) != 2 * _HALF:
        raise ValueError("an ES256 signature has 64 bytes")
    return header, claims, signature, f"{texts[0]}.{texts[1]}".encode()


def verify_compact(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes) -> None:
    """Check a signature. Raises ValueError if it is not ``key``'s."""
    try:
        r, s = (int.from_bytes(half, "big") for half in (signature[:_HALF], signature[_HALF:]))
        key.verify(encode_dss_signature(r, s), signed, _ES256)
    except InvalidSignature as error:
        raise ValueError("its signature is wrong") from error


def _object(data: bytes) -> dict[str, Any]:
    found = json.loads(data, object_pairs_hook=_once)
    if not isinstance(found, dict):
        raise ValueError("a JSON object is wanted")  # noqa: TRY004 - the content is wrong, not the type of an argument
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that comes twice: two readers may each believe another one."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
