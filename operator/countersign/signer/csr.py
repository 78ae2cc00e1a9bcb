"""A CSR that names nothing, for a key whose signature comes from elsewhere (RFC 2986; enrolment.md section 3).

``cryptography`` builds CSRs only around a private key that signs at once; this key signs in a TPM, through a queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:
    from countersign.attest import AttestingKey

__all__ = ["build_csr"]

_SEQUENCE: Final = 0x30
_VERSION_0: Final = bytes.fromhex("020100")
_EMPTY_NAME: Final = bytes.fromhex("3000")
_NO_ATTRIBUTES: Final = bytes.fromhex("a000")
_ECDSA_WITH_SHA256: Final = bytes.fromhex("300a06082a8648ce3d040302")
_SHORT_FORM: Final = 0x80


async def build_csr(key: AttestingKey) -> bytes:
    """Return the DER of a CSR with an empty subject and no extensions, signed by ``key``."""
    spki = key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    info = _tlv(_SEQUENCE, _VERSION_0 + _EMPTY_NAME + spki + _NO_ATTRIBUTES)
    raw = await key.sign(info)
    signature = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    return _tlv(_SEQUENCE, info + _ECDSA_WITH_SHA256 + _tlv(0x03, b"\x00" + signature))


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < _SHORT_FORM:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, _SHORT_FORM | len(length)]) + length + content
