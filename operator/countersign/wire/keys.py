"""P-256 keys as the wire names and shows them: thumbprint, public JWK, signatures of 64 bytes (wire.md 1.1, 1.2, 3.1.3)."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from countersign.wire.encoding import b64u, unb64u

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "SIGNATURE_BYTES",
    "RequestKey",
    "es256_verifies",
    "jwk_of",
    "raw_signature",
    "read_jwk",
    "sign_es256",
    "thumbprint",
    "thumbprint_of",
]

SIGNATURE_BYTES: Final = 64
_COORDINATE: Final = 32
_ES256: Final = ec.ECDSA(SHA256())
_SECRET: Final = frozenset({"d", "k", "p", "q", "dp", "dq", "qi", "oth"})


class RequestKey(Protocol):
    """A key that can sign requests: an instance key in its TPM, or a software twin."""

    @property
    def jkt(self) -> str:
        """Its thumbprint."""

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Its public half, P-256."""

    async def sign(self, data: bytes) -> bytes:
        """Return r and s of ECDSA over SHA-256 of ``data``, 32 bytes each, big-endian."""


def jwk_of(public_key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """Return the four members of RFC 7518 6.2.1, in the order of the thumbprint. Raises ValueError unless P-256."""
    if not isinstance(public_key.curve, ec.SECP256R1):
        msg = "the key is not P-256"
        raise ValueError(msg)  # noqa: TRY004 - the curve is wrong, not the type of an argument
    numbers = public_key.public_numbers()
    x, y = (b64u(number.to_bytes(_COORDINATE, "big")) for number in (numbers.x, numbers.y))
    return {"crv": "P-256", "kty": "EC", "x": x, "y": y}


def thumbprint(public_key: ec.EllipticCurvePublicKey) -> str:
    """Return the jkt of a P-256 key: RFC 7638 with SHA-256, base64url, 43 characters."""
    return thumbprint_of(jwk_of(public_key))


def thumbprint_of(jwk: Mapping[str, str]) -> str:
    """Return the jkt of what :func:`jwk_of` wrote: its order is that of the RFC, and nothing in it needs an escape."""
    members = '{{"crv":"{crv}","kty":"{kty}","x":"{x}","y":"{y}"}}'.format_map(jwk)
    return b64u(sha256(members.encode("ascii")).digest())


def read_jwk(jwk: Mapping[str, Any]) -> ec.EllipticCurvePublicKey:
    """Read a public P-256 JWK; which further members may be there is the caller's to say.

    Raises ValueError for another kind or curve, another spelling of a coordinate, a point off the curve, a private key.
    """
    if jwk.get("kty") != "EC" or jwk.get("crv") != "P-256" or _SECRET & jwk.keys():
        msg = "not a public P-256 key"
        raise ValueError(msg)
    x, y = (_coordinate(jwk.get(name)) for name in ("x", "y"))
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


def _coordinate(value: object) -> int:
    data = unb64u(value) if isinstance(value, str) and value.isascii() else b""
    if len(data) != _COORDINATE:
        msg = "a coordinate is 32 bytes in base64url"
        raise ValueError(msg)
    return int.from_bytes(data, "big")


def raw_signature(der: bytes) -> bytes:
    """Turn a DER signature into the 64 bytes of the wire."""
    r, s = decode_dss_signature(der)
    return r.to_bytes(_COORDINATE, "big") + s.to_bytes(_COORDINATE, "big")


def sign_es256(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Sign with a key in memory; return the 64 bytes of the wire."""
    return raw_signature(key.sign(data, _ES256))


def es256_verifies(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> bool:
    """Tell whether ``signature`` (64 bytes, else it does not) is one of ``key`` over ``data``."""
    if len(signature) != SIGNATURE_BYTES or not isinstance(key.curve, ec.SECP256R1):
        return False
    r, s = (int.from_bytes(half, "big") for half in (signature[:_COORDINATE], signature[_COORDINATE:]))
    try:
        key.verify(encode_dss_signature(r, s), data, _ES256)
    except InvalidSignature:
        return False
    return True
