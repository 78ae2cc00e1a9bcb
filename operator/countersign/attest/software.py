"""What does an attestation device without a TPM do? The twin of ``attest.tpm``: the same structures from software keys.

It serves tests, and the tier Software. It claims ``fixedTPM`` of keys that lie in memory, so nothing but the root that
signed its endorsement certificate tells it from a TPM: list such a root only in a pool of assurance Software.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from countersign.attest.algorithms import Alg, Attribute, Curve, Structure, digest
from countersign.attest.certificates import TPM_MANUFACTURER, TPM_MODEL, TPM_VERSION
from countersign.attest.credential import PrivateKey, open_credential
from countersign.attest.device import Ak, AkKind, Certified, Endorsement, check_signable, jkt_of
from countersign.attest.ek import EK_CERTIFICATE
from countersign.attest.evidence import MAGIC
from countersign.attest.public import PublicKey, TpmtPublic
from countersign.attest.reader import tpm2b, u16, u32, u64
from countersign.errors import Denied

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

__all__ = ["SoftwareDevice", "SoftwareKey", "attest_bytes", "public_area", "sign_attest"]

EkKind = Literal["RSA2048", "P256", "P384"]

_CURVES: Final = {256: Curve.P256, 384: Curve.P384}
_MADE_HERE: Final = (
    Attribute.FIXED_TPM
    | Attribute.FIXED_PARENT
    | Attribute.SENSITIVE_DATA_ORIGIN
    | Attribute.USER_WITH_AUTH
    | Attribute.NO_DA
    | Attribute.SIGN
)
AK_ATTRIBUTES: Final = _MADE_HERE | Attribute.RESTRICTED
KEY_ATTRIBUTES: Final = _MADE_HERE


@dataclass(frozen=True)
class SoftwareKey:
    """An instance key in memory: the twin of a key in the TPM."""

    private_key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half."""
        return self.private_key.public_key()

    @property
    def jkt(self) -> str:
        """RFC 7638 thumbprint."""
        return jkt_of(self.public_key)

    async def sign(self, data: bytes) -> bytes:
        """Return ES256 over ``data``, r || s; see :meth:`AttestingKey.sign`."""
        check_signable(data)
        r, s = decode_dss_signature(self.private_key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)


@dataclass
class SoftwareDevice:
    """An attestation device whose keys are in memory."""

    endorsement_key: PrivateKey = field(repr=False)
    certificates: list[bytes] = field(default_factory=list)
    _ak: PrivateKey | None = field(default=None, init=False, repr=False)
    _ak_public: bytes = field(default=b"", init=False, repr=False)
    _key: SoftwareKey | None = field(default=None, init=False, repr=False)

    @classmethod
    def make(
        cls,
        issuer: tuple[x509.Certificate, CertificateIssuerPrivateKeyTypes] | None = None,
        *,
        kind: EkKind = "P256",
    ) -> Self:
        """Make a device with a new endorsement key and, given an issuer, an endorsement certificate as long as its."""
        key: PrivateKey
        if kind == "RSA2048":
            key = rsa.generate_private_key(65537, 2048)
        else:
            key = ec.generate_private_key(ec.SECP256R1() if kind == "P256" else ec.SECP384R1())
        return cls(key, [_endorse(key.public_key(), *issuer)] if issuer else [])

    async def endorsements(self) -> list[Endorsement]:
        """Return the one endorsement key."""
        spki = self.endorsement_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return [Endorsement(spki, list(self.certificates))]

    async def create_ak(self, kind: AkKind) -> Ak:
        """Make an AK and certify its creation by itself."""
        key: PrivateKey
        key = rsa.generate_private_key(65537, 2048) if kind == "RSA2048" else ec.generate_private_key(ec.SECP256R1())
        scheme = Alg.RSASSA if kind == "RSA2048" else Alg.ECDSA
        public = public_area(key.public_key(), AK_ATTRIBUTES, scheme)
        creation = u32(0) + tpm2b(b"") + b"\x01" + u16(Alg.SHA256) + tpm2b(b"") + tpm2b(b"") + tpm2b(b"")
        name = TpmtPublic.parse(public).name
        attest = attest_bytes(Structure.CREATION, name, digest(Alg.SHA256, creation))
        self._ak, self._ak_public = key, public
        return Ak(public, creation, attest, sign_attest(key, attest))

    async def activate(self, credential: bytes, secret: bytes) -> bytes:
        """Open a credential made for this endorsement key and the present AK."""
        if self._ak is None:
            raise Denied("attest.request", "no attestation key yet")
        return open_credential(self.endorsement_key, TpmtPublic.parse(self._ak_public).name, credential, secret)

    async def create_key(self) -> SoftwareKey:
        """Make the instance key."""
        self._key = SoftwareKey(ec.generate_private_key(ec.SECP256R1()))
        return self._key

    async def certify(self, qualifying: bytes) -> Certified:
        """Certify the instance key with the AK."""
        if self._ak is None or self._key is None:
            raise Denied("attest.request", "no attestation key or no instance key yet")
        public = public_area(self._key.public_key, KEY_ATTRIBUTES, Alg.NULL)
        name = TpmtPublic.parse(public).name
        attest = attest_bytes(Structure.CERTIFY, name, name, extra_data=qualifying)
        return Certified(public, attest, sign_attest(self._ak, attest))

    async def aclose(self) -> None:
        """Forget every key."""
        self._ak = self._key = None


def public_area(key: PublicKey, attributes: int, scheme: int, *, name_alg: int = Alg.SHA256) -> bytes:
    """Return a TPMT_PUBLIC for ``key``; ``scheme`` with SHA-256, or ``Alg.NULL``."""
    head = u16(Alg.RSA if isinstance(key, rsa.RSAPublicKey) else Alg.ECC) + u16(name_alg) + u32(attributes) + tpm2b(b"")
    details = u16(Alg.NULL) + u16(scheme) + (b"" if scheme == Alg.NULL else u16(Alg.SHA256))
    if isinstance(key, rsa.RSAPublicKey):
        modulus = key.public_numbers().n.to_bytes(key.key_size // 8)
        return head + details + u16(key.key_size) + u32(0) + tpm2b(modulus)
    size = (key.curve.key_size + 7) // 8
    x, y = key.public_numbers().x.to_bytes(size), key.public_numbers().y.to_bytes(size)
    return head + details + u16(_CURVES[key.curve.key_size]) + u16(Alg.NULL) + tpm2b(x) + tpm2b(y)


def attest_bytes(kind: int, name: bytes, detail: bytes, *, extra_data: bytes = b"", magic: int = MAGIC) -> bytes:
    """Return a TPMS_ATTEST about the object ``name``."""
    head = u32(magic) + u16(kind) + tpm2b(b"") + tpm2b(extra_data)
    clock = u64(1) + u32(0) + u32(0) + b"\x01"
    return head + clock + u64(0) + tpm2b(name) + tpm2b(detail)


def sign_attest(key: PrivateKey, attest: bytes) -> bytes:
    """Return a TPMT_SIGNATURE of ``attest``: RSASSA or ECDSA with SHA-256."""
    if isinstance(key, rsa.RSAPrivateKey):
        return u16(Alg.RSASSA) + u16(Alg.SHA256) + tpm2b(key.sign(attest, padding.PKCS1v15(), hashes.SHA256()))
    r, s = decode_dss_signature(key.sign(attest, ec.ECDSA(hashes.SHA256())))
    size = (key.curve.key_size + 7) // 8
    return u16(Alg.ECDSA) + u16(Alg.SHA256) + tpm2b(r.to_bytes(size)) + tpm2b(s.to_bytes(size))


def _endorse(key: PublicKey, issuer: x509.Certificate, issuer_key: CertificateIssuerPrivateKeyTypes) -> bytes:
    rsa_key = isinstance(key, rsa.RSAPublicKey)
    named = [(TPM_MANUFACTURER, "id:00000000"), (TPM_MODEL, "countersign-twin"), (TPM_VERSION, "id:00000001")]
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in named])
    usage = dict.fromkeys(_KEY_USAGES, False) | {("key_encipherment" if rsa_key else "key_agreement"): True}
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(key)
        .serial_number(secrets.randbits(127) + 1)
        .not_valid_before(issuer.not_valid_before_utc)
        .not_valid_after(issuer.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName([x509.DirectoryName(name)]), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([EK_CERTIFICATE]), critical=False)
    )
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.DER)


_KEY_USAGES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
