"""What does an attestation object hold? CBOR ``{fmt, attStmt, authData?}`` with ``attStmt`` of format tpm (WebAuthn 8.3)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from countersign.attest.cbor import Cbor, decode, encode
from countersign.errors import Denied

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["MAX_STATEMENT", "Statement", "attestation_object", "build_statement", "parse_object"]

MAX_STATEMENT: Final = 32768
"""Bytes of an attestation object; a large one, with three RSA-4096 certificates, has about 7,000."""

_MEMBERS: Final = frozenset({"ver", "alg", "x5c", "sig", "certInfo", "pubArea"})


@dataclass(frozen=True)
class Statement:
    """The members of a tpm statement with their right types, nothing judged yet."""

    ver: str
    alg: int
    x5c: list[bytes]
    sig: bytes
    cert_info: bytes
    pub_area: bytes

    @classmethod
    def parse(cls, members: dict[str, Cbor]) -> Self:
        """Read the ``attStmt`` of a tpm attestation object.

        Raises:
            Denied: ``attest.cbor``.
        """
        if members.keys() != _MEMBERS:
            raise Denied("attest.cbor", f"members of attStmt are not {', '.join(sorted(_MEMBERS))}")
        ver, alg, x5c = members["ver"], members["alg"], members["x5c"]
        if not isinstance(ver, str) or not isinstance(alg, int) or not isinstance(x5c, list):
            raise Denied("attest.cbor", "ver is no text, alg no integer, or x5c no array")
        chain = [_bytes(item, "x5c") for item in x5c]
        sig, cert_info, pub_area = (_bytes(members[name], name) for name in ("sig", "certInfo", "pubArea"))
        return cls(ver, alg, chain, sig, cert_info, pub_area)


def parse_object(att_obj: bytes) -> tuple[str, dict[str, Cbor]]:
    """Read an attestation object to its last byte and return its ``fmt`` and ``attStmt``; ``authData`` is ignored.

    Raises:
        Denied: ``attest.payload`` (size), ``attest.cbor``.
    """
    if not 1 <= len(att_obj) <= MAX_STATEMENT:
        raise Denied("attest.payload", f"an attestation object of {len(att_obj)} bytes")
    outer = decode(att_obj)
    if not isinstance(outer, dict) or not {"fmt", "attStmt"} <= outer.keys() <= {"fmt", "attStmt", "authData"}:
        raise Denied("attest.cbor", "not a map of fmt, attStmt and at most authData")
    fmt, inner = outer["fmt"], outer["attStmt"]
    if not isinstance(fmt, str) or not isinstance(inner, dict) or not isinstance(outer.get("authData", b""), bytes):
        raise Denied("attest.cbor", "fmt is no text, attStmt no map, or authData no bytes")
    return fmt, inner


def attestation_object(payload: Mapping[str, Any]) -> bytes:
    """Return the bytes of the challenge payload's member ``attObj``: base64url without padding, one spelling only.

    Unknown members beside it are ignored, as the draft says.

    Raises:
        Denied: ``attest.payload``.
    """
    text = payload.get("attObj")
    if not isinstance(text, str) or not text or len(text) > MAX_STATEMENT * 4 // 3 + 2:
        raise Denied("attest.payload", "attObj is absent, no text, empty or too long")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise Denied("attest.payload", "attObj is not base64url") from error
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != text:
        raise Denied("attest.payload", "attObj is not canonical base64url without padding")
    return data


def build_statement(
    ak_chain: Sequence[bytes], cert_info: bytes, public_area: bytes, signature: bytes, alg: int
) -> bytes:
    """Return the attestation object (CBOR) for a TPM2_Certify.

    ``ak_chain`` is DER, the AK's certificate first; ``cert_info`` a TPMS_ATTEST, ``public_area`` a TPMT_PUBLIC,
    ``signature`` a TPMT_SIGNATURE; ``alg`` the COSE algorithm of the AK, -7 or -257.
    """
    chain: list[Cbor] = list(ak_chain)
    statement: dict[str, Cbor] = {
        "ver": "2.0",
        "alg": alg,
        "x5c": chain,
        "sig": signature,
        "certInfo": cert_info,
        "pubArea": public_area,
    }
    return encode({"fmt": "tpm", "attStmt": statement})


def _bytes(value: Cbor, name: str) -> bytes:
    if not isinstance(value, bytes) or not value:
        raise Denied("attest.cbor", f"{name} is not a non-empty byte string")
    return value
