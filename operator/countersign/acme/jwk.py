"""Public keys as JWKs (RFC 7517, 7518) and their thumbprints (RFC 7638)."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from countersign.acme.encoding import from_base64url, to_base64url
from countersign.acme.problems import AcmeProblem

__all__ = ["PublicKey", "jwk_of", "key_from_jwk", "thumbprint"]

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_CURVES: Final[dict[str, tuple[ec.EllipticCurve, int]]] = {"P-256": (ec.SECP256R1(), 32), "P-384": (ec.SECP384R1(), 48)}
_REQUIRED: Final = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n")}
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_RSA_BITS: Final = range(2048, 8193)
_RSA_EXPONENTS: Final = range(65537, 1 << 32, 2)


def key_from_jwk(jwk: dict[str, Any]) -> PublicKey:
    """Return the key of ``jwk``: P-256, P-384, or RSA of 2048 to 8192 bits with a public exponent of at least 65537.

    Members beside the required ones are ignored (the step CLI sends ``use``, ``kid``, ``alg``).

    :raises AcmeProblem: ``badPublicKey`` for another type, size or point, and for a private key.
    """
    if _PRIVATE & jwk.keys():
        raise AcmeProblem("badPublicKey", "the JWK holds a private key")
    kind = jwk.get("kty")
    if kind == "EC":
        return _ec(jwk)
    if kind == "RSA":
        return _rsa(jwk)
    raise AcmeProblem("badPublicKey", "kty is neither EC nor RSA")


def jwk_of(key: PublicKey) -> dict[str, str]:
    """Return the required members of the JWK of ``key``, in the order of a thumbprint."""
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"e": _unsigned(numbers.e), "kty": "RSA", "n": _unsigned(numbers.n)}
    point = key.public_numbers()
    for name, (curve, size) in _CURVES.items():
        if isinstance(key.curve, type(curve)):
            x, y = (to_base64url(value.to_bytes(size)) for value in (point.x, point.y))
            return {"crv": name, "kty": "EC", "x": x, "y": y}
    raise AcmeProblem("badPublicKey", "the curve is neither P-256 nor P-384")


def thumbprint(jwk: dict[str, Any]) -> str:
    """Return the RFC 7638 SHA-256 thumbprint, base64url, over the required members alone."""
    members = {name: jwk[name] for name in _REQUIRED[str(jwk["kty"])]}
    return to_base64url(hashlib.sha256(json.dumps(members, sort_keys=True, separators=(",", ":")).encode()).digest())


def _ec(jwk: dict[str, Any]) -> ec.EllipticCurvePublicKey:
    curve, size = _CURVES.get(_member(jwk, "crv"), (None, 0))
    if curve is None:
        raise AcmeProblem("badPublicKey", "crv is neither P-256 nor P-384")
    x, y = (from_base64url(_member(jwk, name)) for name in ("x", "y"))
    if len(x) != size or len(y) != size:
        raise AcmeProblem("badPublicKey", "x or y has the wrong length")
    try:
        return ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve).public_key()
    except ValueError as error:
        raise AcmeProblem("badPublicKey", "the point is not on the curve") from error


def _rsa(jwk: dict[str, Any]) -> rsa.RSAPublicKey:
    n, e = (int.from_bytes(from_base64url(_member(jwk, name))) for name in ("n", "e"))
    if n.bit_length() not in _RSA_BITS or e not in _RSA_EXPONENTS:
        raise AcmeProblem("badPublicKey", "an RSA key has 2048 to 8192 bits and an odd exponent of at least 65537")
    try:
        return rsa.RSAPublicNumbers(e, n).public_key()
    except ValueError as error:
        raise AcmeProblem("badPublicKey", "not an RSA key") from error


def _member(jwk: dict[str, Any], name: str) -> str:
    value = jwk.get(name)
    if not isinstance(value, str) or not value:
        raise AcmeProblem("badPublicKey", f"{name} is missing")
    return value


def _unsigned(value: int) -> str:
    return to_base64url(value.to_bytes((value.bit_length() + 7) // 8))
