"""The CA keys: one attestation CA, one identity CA for each Embedded issuer, each in a Secret of its own.

Different keys, each with an extended key usage that the other's certificates fail: the attestation CA serves AK
certificates only, so no SPIFFE ID under it is a client; an identity CA serves clients and servers, so no AK is under it.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from countersign.authority.issue import OID_AK
from countersign.kube import SECRETS, Conflict, Kube, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CaError", "CertificateAuthority", "attestation_ca", "identity_ca", "identity_secret_name"]

ATTESTATION_SECRET: Final = "countersign-attestation-ca"  # noqa: S105 - an object's name
_LIFE: Final = timedelta(days=3650)
_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_RSA_BITS: Final = 2048


class CaError(Exception):
    """A CA that cannot be used; ``reason`` is a reason of IdentityIssuer's condition Ready (crds.md 3.1)."""

    def __init__(self, reason: str, message: str) -> None:
        """Keep both."""
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class CertificateAuthority:
    """A certificate that may sign, its key, and a throw-away key of the same type for lints."""

    certificate: x509.Certificate
    key: _PrivateKey = field(repr=False)
    lint_key: _PrivateKey = field(repr=False)

    @property
    def hash(self) -> hashes.SHA256 | hashes.SHA384:
        """The digest that its signatures are made over."""
        if isinstance(self.key, ec.EllipticCurvePrivateKey) and isinstance(self.key.curve, ec.SECP384R1):
            return hashes.SHA384()
        return hashes.SHA256()

    @property
    def pem(self) -> str:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def der(self) -> bytes:
        """The certificate as DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)


async def attestation_ca(kube: Kube, namespace: str, *, cluster: str, now: datetime) -> CertificateAuthority:
    """Return the attestation CA, made if it is not there yet.

    :raises CaError: the Secret holds no usable CA.
    """
    made = _made(f"Countersign attestation CA {cluster}", [OID_AK], now)
    return await _read_or_make(kube, namespace, ATTESTATION_SECRET, made, now)


def identity_secret_name(issuer: dict[str, Any]) -> str:
    """Return the name of the Secret that holds the CA of ``issuer``: the given one, or ours."""
    given = (issuer["spec"].get("embedded") or {}).get("caSecretRef")
    return str(given["name"]) if given else f"countersign-identity-ca-{issuer['metadata']['name']}"


async def identity_ca(kube: Kube, namespace: str, issuer: dict[str, Any], now: datetime) -> CertificateAuthority:
    """Return the identity CA of an Embedded issuer; ours is made if it is not there yet, a given one is only read.

    :raises CaError: ``SecretNotFound``, ``SecretInvalid`` or ``CAExpired``.
    """
    name = identity_secret_name(issuer)
    if (issuer["spec"].get("embedded") or {}).get("caSecretRef"):
        try:
            return read_ca(await kube.get(SECRETS, name, namespace), now)
        except NotFound as error:
            raise CaError("SecretNotFound", f"Secret {namespace}/{name} does not exist") from error
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    made = _made(f"Countersign identity CA {issuer['metadata']['name']}", usages, now)
    return await _read_or_make(kube, namespace, name, made, now)


def read_ca(secret: dict[str, Any], now: datetime) -> CertificateAuthority:
    """Return the CA that a ``kubernetes.io/tls`` Secret holds.

    :raises CaError: ``SecretInvalid`` or ``CAExpired``; the message never repeats the Secret's data.
    """
    try:
        data = {name: base64.b64decode(value, validate=True) for name, value in (secret.get("data") or {}).items()}
        certificate = x509.load_pem_x509_certificates(data["tls.crt"])[0]
        key = serialization.load_pem_private_key(data["tls.key"], None)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (KeyError, IndexError, ValueError, TypeError, binascii.Error, x509.ExtensionNotFound) as error:
        raise CaError("SecretInvalid", "no CA certificate in tls.crt, or no private key in tls.key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) or not _strong(key):
        raise CaError("SecretInvalid", "the key is neither P-256, P-384 nor RSA of 2048 bits or more")
    if key.public_key() != certificate.public_key():
        raise CaError("SecretInvalid", "tls.key is not the key of tls.crt")
    if not constraints.ca or not usage.key_cert_sign:
        raise CaError("SecretInvalid", "the certificate may not sign certificates")
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise CaError("CAExpired", f"valid until {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}")
    return CertificateAuthority(certificate, key, _same_type(key))


async def _read_or_make(
    kube: Kube, namespace: str, name: str, made: tuple[x509.Certificate, _PrivateKey], now: datetime
) -> CertificateAuthority:
    """Read the Secret; where there is none, offer ``made``, and on conflict take what another made first."""
    try:
        return read_ca(await kube.get(SECRETS, name, namespace), now)
    except NotFound:
        pass
    try:
        return read_ca(await kube.create(SECRETS, _secret(namespace, name, *made)), now)
    except Conflict:
        return read_ca(await kube.get(SECRETS, name, namespace), now)


def _made(
    name: str, usages: Sequence[x509.ObjectIdentifier], now: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Make a root that signs leaves only."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    start = now.replace(microsecond=0) - timedelta(minutes=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + _LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_CERTIFICATES, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _secret(namespace: str, name: str, certificate: x509.Certificate, key: _PrivateKey) -> dict[str, Any]:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    data = {"tls.crt": certificate.public_bytes(serialization.Encoding.PEM), "tls.key": private}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": "kubernetes.io/tls",
        "data": {member: base64.b64encode(value).decode() for member, value in data.items()},
    }


def _strong(key: _PrivateKey) -> bool:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.key_size >= _RSA_BITS
    return isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)


def _same_type(key: _PrivateKey) -> _PrivateKey:
    if isinstance(key, rsa.RSAPrivateKey):
        return rsa.generate_private_key(65537, _RSA_BITS)
    return ec.generate_private_key(key.curve)


_CERTIFICATES: Final = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
