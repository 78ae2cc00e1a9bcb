"""A signed ACME request: the flattened JWS of RFC 8555 section 6.2, one function per question about it.

The order in which a server asks is its own; nothing here looks a key, an account or a nonce up.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

from countersign.acme.encoding import from_base64url, read_json, to_base64url
from countersign.acme.jwk import PublicKey, jwk_of
from countersign.acme.problems import AcmeProblem

__all__ = ["Jws", "check_algorithm", "check_jwk_only", "check_kid_only", "check_url", "parse_jws", "sign", "verify"]

ALGORITHMS: Final = ("ES256", "ES384", "RS256")
_SIZES: Final = {"ES256": 32, "ES384": 48}
_MEMBERS: Final = frozenset({"protected", "payload", "signature"})


@dataclass(frozen=True)
class Jws:
    """A JWS that parses; nothing about it is verified yet.

    ``signing_input`` is what the signature covers; ``jwk`` and ``kid`` are as sent, either may be None.
    """

    algorithm: str
    nonce: str
    url: str
    jwk: dict[str, Any] | None
    kid: str | None
    payload: bytes
    signature: bytes
    signing_input: bytes


def parse_jws(body: bytes) -> Jws:
    """Read a flattened JWS (RFC 7515 section 7.2.2).

    :raises AcmeProblem: ``malformed``: other members than the three, ``b64`` or ``crit``, a missing header.
    """
    outer = read_json(body)
    if outer.keys() != _MEMBERS or not all(isinstance(value, str) for value in outer.values()):
        raise AcmeProblem("malformed", "a flattened JWS has exactly protected, payload and signature")
    header = read_json(from_base64url(outer["protected"]))
    if header.keys() & {"crit", "b64"}:
        raise AcmeProblem("malformed", "crit and b64 are not understood")
    jwk, kid = header.get("jwk"), header.get("kid")
    if (jwk is not None and not isinstance(jwk, dict)) or (kid is not None and not isinstance(kid, str)):
        raise AcmeProblem("malformed", "jwk is an object and kid a string")
    return Jws(
        algorithm=_header(header, "alg"),
        nonce=_header(header, "nonce", problem="badNonce"),
        url=_header(header, "url"),
        jwk=jwk,
        kid=kid,
        payload=from_base64url(outer["payload"]),
        signature=from_base64url(outer["signature"]),
        signing_input=f"{outer['protected']}.{outer['payload']}".encode(),
    )


def check_algorithm(jws: Jws) -> None:
    """Refuse every algorithm that is not of the list (RFC 8555 section 6.2); the list travels in the problem."""
    if jws.algorithm not in ALGORITHMS:
        raise AcmeProblem("badSignatureAlgorithm", f"alg must be one of {', '.join(ALGORITHMS)}")


def check_url(jws: Jws, expected: str) -> None:
    """Refuse a JWS made for another resource (RFC 8555 section 6.4): compared byte for byte."""
    if jws.url != expected:
        raise AcmeProblem("unauthorized", "the header url is not this resource")


def check_jwk_only(jws: Jws) -> dict[str, Any]:
    """Return the key of a request that brings its own, as newAccount does; ``kid`` beside it is refused."""
    if jws.jwk is None or jws.kid is not None:
        raise AcmeProblem("malformed", "this resource wants jwk and no kid")
    return jws.jwk


def check_kid_only(jws: Jws) -> str:
    """Return the account's URL of every other request; ``jwk`` beside it is refused."""
    if jws.kid is None or jws.jwk is not None:
        raise AcmeProblem("malformed", "this resource wants kid and no jwk")
    return jws.kid


def verify(jws: Jws, key: PublicKey) -> None:
    """Check the signature with ``key``; the algorithm must be the one of the key's type.

    :raises AcmeProblem: ``badSignatureAlgorithm`` if key and ``alg`` do not fit, ``malformed`` for a wrong signature.
    """
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            _verify_ecdsa(jws, key)
        elif jws.algorithm == "RS256":
            key.verify(jws.signature, jws.signing_input, padding.PKCS1v15(), hashes.SHA256())
        else:
            raise AcmeProblem("badSignatureAlgorithm", "alg does not fit the key")
    except InvalidSignature as error:
        raise AcmeProblem("malformed", "the signature does not verify") from error


def sign(
    payload: dict[str, Any] | None,
    *,
    key: ec.EllipticCurvePrivateKey,
    url: str,
    nonce: str,
    kid: str | None = None,
) -> bytes:
    """Return a flattened ES256 JWS; without ``kid`` it brings the key, a None ``payload`` is POST-as-GET."""
    who: dict[str, Any] = {"kid": kid} if kid is not None else {"jwk": jwk_of(key.public_key())}
    protected = to_base64url(_compact({"alg": "ES256", "nonce": nonce, "url": url} | who))
    body = "" if payload is None else to_base64url(_compact(payload))
    r, s = utils.decode_dss_signature(key.sign(f"{protected}.{body}".encode(), ec.ECDSA(hashes.SHA256())))
    signature = to_base64url(r.to_bytes(32) + s.to_bytes(32))
    return _compact({"protected": protected, "payload": body, "signature": signature})


def _verify_ecdsa(jws: Jws, key: ec.EllipticCurvePublicKey) -> None:
    expected, digest = ("ES256", hashes.SHA256()) if isinstance(key.curve, ec.SECP256R1) else ("ES384", hashes.SHA384())
    if jws.algorithm != expected:
        raise AcmeProblem("badSignatureAlgorithm", "alg does not fit the key")
    size = _SIZES[expected]
    if len(jws.signature) != 2 * size:
        raise AcmeProblem("malformed", "the signature has the wrong length")
    r, s = int.from_bytes(jws.signature[:size]), int.from_bytes(jws.signature[size:])
    key.verify(utils.encode_dss_signature(r, s), jws.signing_input, ec.ECDSA(digest))


def _header(header: dict[str, Any], name: str, *, problem: str = "malformed") -> str:
    value = header.get(name)
    if not isinstance(value, str) or not value:
        raise AcmeProblem(problem, f"the header {name} is missing")
    return value


def _compact(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
