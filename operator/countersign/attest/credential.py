"""How is a secret wrapped so that one TPM alone, holding one AK, can read it? TPM2_MakeCredential in software.

TPM 2.0 part 1, section 24 (credential protection), 11.4.10 (KDFa, KDFe) and annexes B.10.4 and C.6.1 (seeds). The EK is
taken to be a default template of the TCG's EK credential profile: RSA-2048 and P-256 with SHA-256 and AES-128, RSA-3072
and P-384 with SHA-384 and AES-256, all in CFB mode. A TPM whose EK is another cannot open what is made for it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from countersign.attest.reader import Reader, tpm2b, u32

if TYPE_CHECKING:
    from countersign.attest.public import PublicKey

__all__ = ["make_credential", "open_credential"]

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

_LABEL: Final = b"IDENTITY\x00"
_SMALL_RSA: Final = 2048
_SMALL_CURVE: Final = 256
_CODE: Final = "attest.request"


@dataclass(frozen=True)
class _Template:
    """What the EK's public area would say: its name hash and the bits of its symmetric cipher."""

    hash: hashes.SHA256 | hashes.SHA384
    key_bits: int

    @property
    def name(self) -> str:
        return self.hash.name

    @property
    def hash_bits(self) -> int:
        return self.hash.digest_size * 8


def make_credential(ek: PublicKey, ak_name: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """Return (TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET), both with their size prefix, for the holder of ``ek``.

    The TPM gives ``secret``, at most 32 bytes, back only while the object named ``ak_name`` is loaded in it.
    """
    template = _template(ek)
    seed, encrypted_seed = _wrap_rsa(ek, template) if isinstance(ek, rsa.RSAPublicKey) else _wrap_ecc(ek, template)
    encryptor = _cipher(template, seed, ak_name).encryptor()
    identity = encryptor.update(tpm2b(secret)) + encryptor.finalize()
    integrity = tpm2b(_integrity(template, seed, identity + ak_name))
    return tpm2b(integrity + identity), tpm2b(encrypted_seed)


def open_credential(ek: PrivateKey, ak_name: bytes, credential: bytes, secret: bytes) -> bytes:
    """Do TPM2_ActivateCredential with a software endorsement key, for the software twin.

    Raises:
        Denied: ``attest.request``, when it was made for another EK or another AK.
    """
    template = _template(ek.public_key())
    encrypted_seed = _unsized(secret)
    seed = (
        _open_rsa(ek, encrypted_seed, template)
        if isinstance(ek, rsa.RSAPrivateKey)
        else _open_ecc(ek, encrypted_seed, template)
    )
    blob = _unsized(credential)
    reader = Reader(blob, code=_CODE)
    integrity = reader.tpm2b()
    identity = reader.take(len(blob) - len(integrity) - 2)
    if not hmac.compare_digest(integrity, _integrity(template, seed, identity + ak_name)):
        raise reader.fail("made for another EK or another AK")
    decryptor = _cipher(template, seed, ak_name).decryptor()
    return _unsized(decryptor.update(identity) + decryptor.finalize())


def _template(ek: PublicKey) -> _Template:
    small = _SMALL_RSA if isinstance(ek, rsa.RSAPublicKey) else _SMALL_CURVE
    return _Template(hashes.SHA256(), 128) if ek.key_size <= small else _Template(hashes.SHA384(), 256)


def _wrap_rsa(ek: rsa.RSAPublicKey, template: _Template) -> tuple[bytes, bytes]:
    seed = secrets.token_bytes(template.hash.digest_size)
    return seed, ek.encrypt(seed, _oaep(template))


def _open_rsa(ek: rsa.RSAPrivateKey, encrypted_seed: bytes, template: _Template) -> bytes:
    try:
        return ek.decrypt(encrypted_seed, _oaep(template))
    except ValueError as error:
        raise Reader(b"", code=_CODE).fail("made for another EK") from error


def _oaep(template: _Template) -> padding.OAEP:
    return padding.OAEP(padding.MGF1(template.hash), template.hash, _LABEL)


def _wrap_ecc(ek: ec.EllipticCurvePublicKey, template: _Template) -> tuple[bytes, bytes]:
    ephemeral = ec.generate_private_key(ek.curve)
    point = ephemeral.public_key()
    seed = _kdfe(template, ephemeral.exchange(ec.ECDH(), ek), _x(point), _x(ek))
    return seed, tpm2b(_x(point)) + tpm2b(_y(point))


def _open_ecc(ek: ec.EllipticCurvePrivateKey, encrypted_seed: bytes, template: _Template) -> bytes:
    reader = Reader(encrypted_seed, code=_CODE)
    x, y = (int.from_bytes(reader.tpm2b()) for _ in range(2))
    reader.end()
    try:
        point = ec.EllipticCurvePublicNumbers(x, y, ek.curve).public_key()
    except ValueError as error:
        raise reader.fail("a point off the EK's curve") from error
    return _kdfe(template, ek.exchange(ec.ECDH(), point), _x(point), _x(ek.public_key()))


def _cipher(template: _Template, seed: bytes, ak_name: bytes) -> Cipher[CFB]:
    key = _kdfa(template, seed, b"STORAGE", ak_name, template.key_bits)
    return Cipher(algorithms.AES(key), CFB(bytes(16)))


def _integrity(template: _Template, seed: bytes, data: bytes) -> bytes:
    key = _kdfa(template, seed, b"INTEGRITY", b"", template.hash_bits)
    return hmac.digest(key, data, template.name)


def _kdfa(template: _Template, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """Return KDFa: SP 800-108 in counter mode with HMAC; one block is enough for every key here."""
    return hmac.digest(key, u32(1) + label + b"\x00" + context + u32(bits), template.name)[: bits // 8]


def _kdfe(template: _Template, z: bytes, party_u: bytes, party_v: bytes) -> bytes:
    """Return KDFe: SP 800-56A's one-step function; the seed is one digest long."""
    return hashlib.new(template.name, u32(1) + z + _LABEL + party_u + party_v).digest()


def _x(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_numbers().x.to_bytes((key.curve.key_size + 7) // 8)


def _y(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_numbers().y.to_bytes((key.curve.key_size + 7) // 8)


def _unsized(data: bytes) -> bytes:
    reader = Reader(data, code=_CODE)
    inner = reader.tpm2b()
    reader.end()
    return inner
