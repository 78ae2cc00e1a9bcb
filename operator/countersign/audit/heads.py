"""Signed heads: the issuer key's word for where a log stood (wire.md 9). A JWS, made here and read back here.

A head names one line by ``seq`` and digest. Whoever keeps one outside the log, as the ConfigMap does, can tell later that
the line, and by its chain everything before it, is still there.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Head", "HeadKeys", "read_head", "read_keys", "sign_head"]

HeadKeys = dict[str, ec.EllipticCurvePublicKey]
"""Public issuer keys by ``kid``."""

_ALG: Final = "ES256"
_TYPE: Final = "countersign-audit-head+jwt"
_HALF: Final = 32
_MAX: Final = 4096
_ES256: Final = ec.ECDSA(SHA256())
_PART: Final = re.compile(r"[A-Za-z0-9_-]+")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Head:
    """``head`` is the digest of line ``seq`` of ``log``, which was on disk at ``iat`` (seconds since 1970) at ``iss``."""

    iss: str
    log: str
    seq: int
    head: str
    iat: int


def sign_head(head: Head, *, key: ec.EllipticCurvePrivateKey, kid: str) -> str:
    """Return the JWS of ``head`` in compact form."""
    claims = {"iss": head.iss, "log": head.log, "seq": head.seq, "head": head.head, "iat": head.iat}
    parts = [json.dumps(part, separators=(",", ":")) for part in ({"alg": _ALG, "typ": _TYPE, "kid": kid}, claims)]
    signed = ".".join(_encode(part.encode()) for part in parts)
    r, s = decode_dss_signature(key.sign(signed.encode(), _ES256))
    return f"{signed}.{_encode(r.to_bytes(_HALF, 'big') + s.to_bytes(_HALF, 'big'))}"


def read_head(text: str, keys: HeadKeys | None) -> Head:
    """Return what a signed head says; with ``keys`` None the signature is not looked at.

    Raises
    ------
    ValueError
        If it has another form, or its signature is not by the one of ``keys`` that it names; the words say which.

    """
    header, claims, signature, signed = _parts(text)
    if header.keys() != {"alg", "typ", "kid"} or (header["alg"], header["typ"]) != (_ALG, _TYPE):
        msg = "not a signed head"
        raise ValueError(msg)
    if keys is not None:
        _verify(keys.get(str(header["kid"])), signature, signed)
    return _head(claims)


def read_keys(document: Any) -> HeadKeys:
    """Return the P-256 keys of a JWKS by ``kid``. Raises ValueError for anything else."""
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        msg = "not a JWKS"
        raise ValueError(msg)  # noqa: TRY004 - the content is wrong, not the type of an argument
    return dict(_key(entry) for entry in entries)


def _key(entry: Any) -> tuple[str, ec.EllipticCurvePublicKey]:
    try:
        if (entry["kty"], entry["crv"]) != ("EC", "P-256"):
            msg = "an issuer key is P-256"
            raise ValueError(msg)
        x, y = (int.from_bytes(_decode(entry[name]), "big") for name in ("x", "y"))
        return str(entry["kid"]), ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except (KeyError, TypeError) as error:
        msg = "not a key of a JWKS"
        raise ValueError(msg) from error


def _verify(key: ec.EllipticCurvePublicKey | None, signature: bytes, signed: bytes) -> None:
    if key is None:
        msg = "signed by a key that was not given"
        raise ValueError(msg)
    try:
        r, s = (int.from_bytes(half, "big") for half in (signature[:_HALF], signature[_HALF:]))
        key.verify(encode_dss_signature(r, s), signed, _ES256)
    except InvalidSignature as error:
        msg = "its signature is wrong"
        raise ValueError(msg) from error


def _parts(text: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    texts = text.split(".") if len(text) <= _MAX else []
    if [bool(_PART.fullmatch(part)) for part in texts] != [True, True, True]:
        msg = "not a signed head"
        raise ValueError(msg)
    header, claims = (json.loads(_decode(part)) for part in texts[:2])
    signature = _decode(texts[2])
    if not isinstance(header, dict) or not isinstance(claims, dict) or len(signature) != 2 * _HALF:
        msg = "not a signed head"
        raise ValueError(msg)
    return header, claims, signature, f"{texts[0]}.{texts[1]}".encode()


def _head(claims: Mapping[str, Any]) -> Head:
    iss, log, seq, head, iat = (claims.get(name) for name in ("iss", "log", "seq", "head", "iat"))
    texts = isinstance(iss, str) and isinstance(log, str) and isinstance(head, str) and _DIGEST.fullmatch(head)
    if not texts or type(seq) is not int or type(iat) is not int or seq < 0 or len(claims) != len(Head.__annotations__):
        msg = "a head has iss, log, seq, head and iat"
        raise ValueError(msg)
    return Head(str(iss), str(log), seq, str(head), iat)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
