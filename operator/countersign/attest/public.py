"""What does a TPMT_PUBLIC say? TPM 2.0 part 2, 12.2.4; RSA and ECC keys only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from countersign.attest.algorithms import CURVES, HASHES, Alg, Attribute, digest
from countersign.attest.reader import Reader, u16

__all__ = ["PublicKey", "Scheme", "TpmtPublic"]

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

_KNOWN_ATTRIBUTES: Final = sum(attribute.value for attribute in Attribute)
_RSA_WITH_HASH: Final = frozenset({Alg.RSASSA, Alg.RSAPSS, Alg.OAEP})
_ECC_WITH_HASH: Final = frozenset({Alg.ECDSA, Alg.ECDH, Alg.SM2, Alg.ECSCHNORR, Alg.ECMQV})
_MAX_DIGEST: Final = 64
_MAX_MODULUS: Final = 512
_MAX_COORDINATE: Final = 66
_DEFAULT_EXPONENT: Final = 65537


@dataclass(frozen=True)
class Scheme:
    """A signing or key exchange scheme: its algorithm and, unless ``Alg.NULL`` or ``Alg.RSAES``, its hash."""

    alg: int
    hash_alg: int


@dataclass(frozen=True)
class TpmtPublic:
    """A public area, with the very bytes it was read from."""

    raw: bytes
    type: int
    name_alg: int
    attributes: int
    symmetric: int
    scheme: Scheme
    bits: int
    """RSA: keyBits. ECC: 0."""
    exponent: int
    """RSA: the exponent, 65537 for the 0 that stands for it. ECC: 0."""
    curve: int
    """ECC: TPM_ECC_CURVE. RSA: 0."""
    unique: tuple[bytes, ...]
    """RSA: (modulus,). ECC: (x, y)."""

    @classmethod
    def parse(cls, data: bytes, *, code: str = "attest.public_area") -> Self:
        """Read a TPMT_PUBLIC to its last byte.

        Raises:
            Denied: ``code``, for anything but one RSA or ECC public area.
        """
        reader = Reader(data, code=code)
        kind, name_alg, attributes = reader.u16(), reader.u16(), reader.u32()
        if attributes & ~_KNOWN_ATTRIBUTES:
            raise reader.fail(f"reserved attribute bits in {attributes:#010x}")
        reader.tpm2b(_MAX_DIGEST)  # authPolicy: covered by the Name, not judged
        if kind == Alg.RSA:
            symmetric, scheme, bits, exponent, curve, unique = _rsa(reader)
        elif kind == Alg.ECC:
            symmetric, scheme, bits, exponent, curve, unique = _ecc(reader)
        else:
            raise reader.fail(f"key type {kind:#06x}, RSA or ECC wanted")
        reader.end()
        return cls(data, kind, name_alg, attributes, symmetric, scheme, bits, exponent, curve, unique)

    def has(self, attributes: Attribute) -> bool:
        """Tell whether all of ``attributes`` are set."""
        return self.attributes & attributes == attributes

    def lacks(self, attributes: Attribute) -> bool:
        """Tell whether none of ``attributes`` is set."""
        return not self.attributes & attributes

    @property
    def name(self) -> bytes:
        """The Name: nameAlg and the digest of the public area under it; empty for a hash not accepted."""
        if self.name_alg not in HASHES:
            return b""
        return u16(self.name_alg) + digest(self.name_alg, self.raw)

    def public_key(self, *, code: str = "attest.public_area") -> PublicKey:
        """Return the key itself.

        Raises:
            Denied: ``code``, when the numbers are no key: a point off its curve, a modulus of another length.
        """
        reader = Reader(b"", code=code)
        try:
            if self.type == Alg.RSA:
                modulus = int.from_bytes(self.unique[0])
                if modulus.bit_length() != self.bits:
                    raise reader.fail(f"a modulus of {modulus.bit_length()} bits, {self.bits} announced")
                return rsa.RSAPublicNumbers(self.exponent, modulus).public_key()
            curve = CURVES.get(self.curve)
            if curve is None:
                raise reader.fail(f"curve {self.curve:#06x}, P-256 or P-384 wanted")
            x, y = (int.from_bytes(part) for part in self.unique)
            return ec.EllipticCurvePublicNumbers(x, y, curve()).public_key()
        except ValueError as error:
            raise reader.fail("the numbers are no public key") from error


_Details = tuple[int, Scheme, int, int, int, tuple[bytes, ...]]


def _rsa(reader: Reader) -> _Details:
    symmetric = _symmetric(reader)
    alg = reader.u16()
    if alg in _RSA_WITH_HASH:
        scheme = Scheme(alg, reader.u16())
    elif alg in {Alg.NULL, Alg.RSAES}:
        scheme = Scheme(alg, Alg.NULL)
    else:
        raise reader.fail(f"RSA scheme {alg:#06x}")
    bits, exponent = reader.u16(), reader.u32()
    return symmetric, scheme, bits, exponent or _DEFAULT_EXPONENT, 0, (reader.tpm2b(_MAX_MODULUS),)


def _ecc(reader: Reader) -> _Details:
    symmetric = _symmetric(reader)
    alg = reader.u16()
    if alg in _ECC_WITH_HASH:
        scheme = Scheme(alg, reader.u16())
    elif alg == Alg.ECDAA:
        scheme = Scheme(alg, reader.u16())
        reader.u16()  # count
    elif alg == Alg.NULL:
        scheme = Scheme(alg, Alg.NULL)
    else:
        raise reader.fail(f"ECC scheme {alg:#06x}")
    curve = reader.u16()
    if reader.u16() != Alg.NULL:  # the key derivation scheme
        reader.u16()
    return symmetric, scheme, 0, 0, curve, (reader.tpm2b(_MAX_COORDINATE), reader.tpm2b(_MAX_COORDINATE))


def _symmetric(reader: Reader) -> int:
    alg = reader.u16()
    if alg != Alg.NULL:
        reader.u16()  # key bits
        reader.u16()  # mode
    return alg
