"""What does the TPM's own word say? TPMS_ATTEST, TPMS_CREATION_DATA and TPMT_SIGNATURE (TPM 2.0 part 2, 10.12 to 11.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from countersign.attest.algorithms import HASHES, Alg, Structure
from countersign.attest.reader import Reader
from countersign.errors import Denied

if TYPE_CHECKING:
    from countersign.attest.public import PublicKey

__all__ = ["MAGIC", "TpmsAttest", "TpmsCreationData", "TpmtSignature", "check_signature"]

MAGIC: Final = 0xFF544347
"""TPM_GENERATED_VALUE: only the TPM writes it in front of what a restricted key signs."""

_MAX_NAME: Final = 66
_MAX_DATA: Final = 66
_MAX_DIGEST: Final = 64
_MAX_SIGNATURE: Final = 512
_MAX_REGISTERS: Final = 16
_MAX_SELECT: Final = 4


@dataclass(frozen=True)
class TpmsAttest:
    """An attestation: what was attested (``kind``), over which caller's data, and the two fields of its body.

    CERTIFY: ``name`` and ``detail`` are Name and qualified name of the certified object. CREATION: ``name`` and
    ``detail`` are the object's Name and its creation hash. Any other kind: both are empty, and no check accepts it.
    """

    raw: bytes
    magic: int
    kind: int
    extra_data: bytes
    name: bytes
    detail: bytes

    @classmethod
    def parse(cls, data: bytes, *, code: str = "attest.cert_info") -> Self:
        """Read a TPMS_ATTEST to its last byte.

        Raises:
            Denied: ``code``.
        """
        reader = Reader(data, code=code)
        magic, kind = reader.u32(), reader.u16()
        reader.tpm2b(_MAX_NAME)  # qualifiedSigner: obfuscated in the owner hierarchy, so never judged
        extra_data = reader.tpm2b(_MAX_DATA)
        reader.take(16)  # clock, resetCount, restartCount: for quotes
        if reader.u8() > 1:
            raise reader.fail("clockInfo.safe is neither 0 nor 1")
        reader.u64()  # firmwareVersion
        name = detail = b""
        if kind in {Structure.CERTIFY, Structure.CREATION}:
            name, detail = reader.tpm2b(_MAX_NAME), reader.tpm2b(_MAX_NAME)
            reader.end()
        return cls(data, magic, kind, extra_data, name, detail)


@dataclass(frozen=True)
class TpmsCreationData:
    """Where and how a key was made; only its digest is judged, so only its form is kept."""

    raw: bytes
    outside_info: bytes

    @classmethod
    def parse(cls, data: bytes, *, code: str = "attest.ak_format") -> Self:
        """Read a TPMS_CREATION_DATA to its last byte.

        Raises:
            Denied: ``code``.
        """
        reader = Reader(data, code=code)
        count = reader.u32()
        if count > _MAX_REGISTERS:
            raise reader.fail(f"{count} PCR selections")
        for _ in range(count):
            reader.u16()  # bank
            size = reader.u8()
            if size > _MAX_SELECT:
                raise reader.fail(f"a PCR selection of {size} bytes")
            reader.take(size)
        reader.tpm2b(_MAX_DIGEST)  # pcrDigest
        reader.u8()  # locality
        reader.u16()  # parentNameAlg
        reader.tpm2b(_MAX_NAME)  # parentName
        reader.tpm2b(_MAX_NAME)  # parentQualifiedName
        outside_info = reader.tpm2b(_MAX_DATA)
        reader.end()
        return cls(data, outside_info)


@dataclass(frozen=True)
class TpmtSignature:
    """A signature: RSASSA or RSAPSS (``parts`` is one string) or ECDSA (``parts`` is r and s)."""

    alg: int
    hash_alg: int
    parts: tuple[bytes, ...]

    @classmethod
    def parse(cls, data: bytes, *, code: str = "attest.signature_format") -> Self:
        """Read a TPMT_SIGNATURE to its last byte.

        Raises:
            Denied: ``code``.
        """
        reader = Reader(data, code=code)
        alg, hash_alg = reader.u16(), reader.u16()
        if alg in {Alg.RSASSA, Alg.RSAPSS}:
            parts: tuple[bytes, ...] = (reader.tpm2b(_MAX_SIGNATURE),)
        elif alg == Alg.ECDSA:
            parts = (reader.tpm2b(_MAX_DIGEST + 2), reader.tpm2b(_MAX_DIGEST + 2))
        else:
            raise reader.fail(f"signature algorithm {alg:#06x}")
        reader.end()
        return cls(alg, hash_alg, parts)

    def fits(self, key: PublicKey) -> bool:
        """Tell whether ``key`` can have made such a signature, under a hash that is accepted."""
        if self.hash_alg not in HASHES:
            return False
        return (self.alg == Alg.ECDSA) == isinstance(key, ec.EllipticCurvePublicKey)


def check_signature(key: PublicKey, signature: TpmtSignature, data: bytes, *, code: str) -> None:
    """Verify ``signature`` of ``data`` by ``key``.

    Raises:
        Denied: ``code``, for a signature that does not fit the key or is not the key's over ``data``.
    """
    if not signature.fits(key):
        raise Denied(code, "the signature's algorithm is not one of the key's")
    hash_alg = HASHES[signature.hash_alg]()
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            r, s = (int.from_bytes(part) for part in signature.parts)
            key.verify(encode_dss_signature(r, s), data, ec.ECDSA(hash_alg))
        elif signature.alg == Alg.RSASSA:
            key.verify(signature.parts[0], data, padding.PKCS1v15(), hash_alg)
        else:
            pss = padding.PSS(padding.MGF1(hash_alg), padding.PSS.AUTO)
            key.verify(signature.parts[0], data, pss, hash_alg)
    except InvalidSignature as error:
        raise Denied(code, "the signature is not this key's over these bytes") from error
