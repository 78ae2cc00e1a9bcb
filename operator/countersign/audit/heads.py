"""Signed heads: the issuer key's word for where a log stood (wire.md 9). A JWS, made here and read back here.

A head names one line by ``seq`` and digest. Whoever keeps one outside the log, as the ConfigMap does, can tell later that
the line, and by its chain everything before it, is still there.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from countersign.audit.compact import ALG, Compact, read_compact, sign_compact, verify_compact

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Head", "HeadKeys", "read_head", "read_keys", "sign_head"]

HeadKeys = dict[str, ec.EllipticCurvePublicKey]
"""Public issuer keys by ``kid``."""

_TYPE: Final = "countersign-audit-head+jwt"
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
    return sign_compact({"typ": _TYPE, "kid": kid}, claims, key)


def read_head(text: str, keys: HeadKeys | None) -> Head:
    """Return what a signed head says; with ``keys`` None the signature is not looked at.

    Raises
    ------
    ValueError
        If it has another form, or its signature is not by the one of ``keys`` that it names; the words say which.

    """
    header, claims, signature, signed = _parts(text)
    if header.keys() != {"alg", "typ", "kid"} or (header["alg"], header["typ"]) != (ALG, _TYPE):
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
    verify_compact(key, signature, signed)


def _parts(text: str) -> Compact:
    try:
        return read_compact(text)
    except (ValueError, RecursionError) as error:
        msg = "not a signed head"
        raise ValueError(msg) from error


def _head(claims: Mapping[str, Any]) -> Head:
    iss, log, seq, head, iat = (claims.get(name) for name in ("iss", "log", "seq", "head", "iat"))
    texts = isinstance(iss, str) and isinstance(log, str) and isinstance(head, str) and _DIGEST.fullmatch(head)
    if not texts or type(seq) is not int or type(iat) is not int or seq < 0 or len(claims) != len(Head.__annotations__):
        msg = "a head has iss, log, seq, head and iat"
        raise ValueError(msg)
    return Head(str(iss), str(log), seq, str(head), iat)


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
