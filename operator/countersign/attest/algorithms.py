"""Which TPM algorithm identifiers are known here, and what ``cryptography`` calls them (TCG registry, TPM 2.0 part 2)."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["CURVES", "HASHES", "Alg", "Attribute", "Curve", "Structure", "digest"]


class Alg(IntEnum):
    """TPM_ALG_ID."""

    RSA = 0x0001
    AES = 0x0006
    SHA256 = 0x000B
    SHA384 = 0x000C
    SHA512 = 0x000D
    NULL = 0x0010
    RSASSA = 0x0014
    RSAES = 0x0015
    RSAPSS = 0x0016
    OAEP = 0x0017
    ECDSA = 0x0018
    ECDH = 0x0019
    ECDAA = 0x001A
    SM2 = 0x001B
    ECSCHNORR = 0x001C
    ECMQV = 0x001D
    ECC = 0x0023
    CFB = 0x0043


class Curve(IntEnum):
    """TPM_ECC_CURVE, those accepted."""

    P256 = 0x0003
    P384 = 0x0004


class Structure(IntEnum):
    """TPM_ST, those a TPMS_ATTEST is judged by."""

    CERTIFY = 0x8017
    CREATION = 0x801A


class Attribute(IntFlag):
    """TPMA_OBJECT."""

    FIXED_TPM = 1 << 1
    ST_CLEAR = 1 << 2
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    FIRMWARE_LIMITED = 1 << 8
    SVN_LIMITED = 1 << 9
    NO_DA = 1 << 10
    ENCRYPTED_DUPLICATION = 1 << 11
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18
    X509_SIGN = 1 << 19


HASHES: Final[dict[int, type[hashes.HashAlgorithm]]] = {
    Alg.SHA256: hashes.SHA256,
    Alg.SHA384: hashes.SHA384,
    Alg.SHA512: hashes.SHA512,
}
"""The hashes accepted anywhere in evidence: SHA-1 is not among them."""

CURVES: Final[dict[int, type[ec.EllipticCurve]]] = {Curve.P256: ec.SECP256R1, Curve.P384: ec.SECP384R1}
"""The curves accepted anywhere in evidence."""


def digest(alg: int, data: bytes) -> bytes:
    """Return the digest of ``data`` under the TPM algorithm ``alg``, one of :data:`HASHES`."""
    state = hashes.Hash(HASHES[alg]())
    state.update(data)
    return state.finalize()
