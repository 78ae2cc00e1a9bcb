"""The CA keys: one attestation CA, one identity CA for each Embedded issuer, each in a Secret of its own.

Different keys, each with an extended key usage that the other's certificates fail: the attestation CA serves AK
certificates only, so no SPIFFE ID under it is a client; an identity CA serves clients and servers, so no AK is under it.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from countersign.clock import COMPARE_CLOCKS

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["OWNER", "CaError", "CertificateAuthority", "made", "new_secret", "pem", "read_ca"]

OWNER: Final = {"app.kubernetes.io/managed-by": "countersign-authority"}
"""The label of what is ours to change."""
_LIFE: Final = timedelta(days=3650)
_BACKDATE: Final = timedelta(hours=1)
"""Whose clock is behind is told that by what compares clocks, not by a CA that does not seem to be one yet."""
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
    """A certificate that may sign, its key, and a throw-away key of the same type for lints.

    ``others`` are believed beside it: the next one, which is published already, and former ones whose certificates may
    be in use. ``took_over`` says that this very look made it the one that signs.
    """

    certificate: x509.Certificate
    key: _PrivateKey = field(repr=False)
    lint_key: _PrivateKey = field(repr=False)
    others: tuple[x509.Certificate, ...] = ()
    took_over: bool = False

    def told(self) -> CertificateAuthority:
        """Return the same, without the news that it took over."""
        return replace(self, took_over=False)

    @property
    def hash(self) -> hashes.SHA256 | hashes.SHA384:
        """The digest that its signatures are made over."""
        if isinstance(self.key, ec.EllipticCurvePrivateKey) and isinstance(self.key.curve, ec.SECP384R1):
            return hashes.SHA384()
        return hashes.SHA256()

    @property
    def pem(self) -> str:
        """The certificate as PEM."""
        return pem(self.certificate).decode()

    @property
    def believed(self) -> tuple[x509.Certificate, ...]:
        """The certificates under which what it and its neighbours signed is found good."""
        return (self.certificate, *self.others)

    @property
    def bundle(self) -> str:
        """The same as PEM."""
        return b"".join(map(pem, self.believed)).decode()

    @property
    def der(self) -> bytes:
        """The certificate as DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)


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
    if now < certificate.not_valid_before_utc:
        begins = f"{certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
        raise CaError("SecretInvalid", f"valid from {begins} on, which is ahead of this clock; {COMPARE_CLOCKS}")
    if now >= certificate.not_valid_after_utc:
        raise CaError("CAExpired", f"valid until {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}")
    return CertificateAuthority(certificate, key, _same_type(key))


def made(name: str, usages: Sequence[x509.ObjectIdentifier], now: datetime) -> tuple[bytes, bytes]:
    """Make a root that signs leaves only; return certificate and key as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    # The name carries the key: two CAs of one name and different keys confuse clients that build chains by name.
    mark = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:8]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name[:55]} {mark}")])
    start = now.replace(microsecond=0) - _BACKDATE
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
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem(certificate), private


def pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def new_secret(namespace: str, name: str, certificate: bytes, key: bytes) -> dict[str, Any]:
    """Return the Secret of a CA that was just made (PEM)."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": OWNER},
        "type": "kubernetes.io/tls",
        "data": {
            name: base64.b64encode(value).decode()
            for name, value in (("tls.crt", certificate), ("tls.key", key), ("ca.crt", certificate))
        },
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
