"""Build, lint, sign once, check: the only way a certificate of ours comes to be.

``prepare`` signs the certificate with a throw-away key and lints the result; ``PreparedCertificate.sign`` signs the very
same bytes with the CA's key, once, and checks what came out. A certificate that breaks its profile is a bug, so it is
``attest.failed`` and never leaves.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from countersign.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from countersign.authority.ca import CertificateAuthority

__all__ = ["AK_LIFE", "OID_AK", "OID_PERMANENT_IDENTIFIER", "PreparedCertificate", "prepare_ak", "prepare_identity"]

OID_AK: Final = x509.ObjectIdentifier("2.23.133.8.3")
OID_PERMANENT_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.3")
_TPM_NAMES: Final = tuple(x509.ObjectIdentifier(f"2.23.133.2.{last}") for last in (1, 2, 3))

AK_LIFE: Final = timedelta(minutes=10)
_BACKDATE: Final = timedelta(seconds=30)
"""How far in its past a certificate's life begins: the reader's clock may be slow."""
_SERIAL_BITS: Final = 64
_UTF8: Final = 0x0C
_SEQUENCE: Final = 0x30


class PreparedCertificate:
    """A certificate that passed its lint and waits for its one signature. Made by ``prepare_…`` alone."""

    def __init__(self, builder: x509.CertificateBuilder, authority: CertificateAuthority, tbs: bytes) -> None:
        """Keep what was linted."""
        self._builder: x509.CertificateBuilder | None = builder
        self._authority = authority
        self._tbs = tbs

    def sign(self) -> x509.Certificate:
        """Return the certificate; a second call is refused.

        :raises Unavailable: ``attest.failed`` when what was signed is not what was linted.
        """
        builder, self._builder = self._builder, None
        if builder is None:
            raise Unavailable("attest.failed", "a prepared certificate is signed once")
        certificate = builder.sign(self._authority.key, self._authority.hash)
        if certificate.tbs_certificate_bytes != self._tbs:
            raise Unavailable("attest.failed", "what was signed is not what was linted")
        try:
            certificate.verify_directly_issued_by(self._authority.certificate)
        except (InvalidSignature, ValueError, TypeError) as error:
            raise Unavailable("attest.failed", "the CA's own certificate does not verify the signature") from error
        return certificate


@dataclass(frozen=True)
class TpmNames:
    """Manufacturer, model and firmware version of a TPM, as its EK certificate gives them."""

    manufacturer: str
    model: str
    firmware: str


def prepare_ak(
    authority: CertificateAuthority,
    *,
    public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    identifier: str,
    tpm: TpmNames,
    now: datetime,
) -> PreparedCertificate:
    """Prepare an AK certificate (acme-device-attest.md 2.3): ten minutes, PermanentIdentifier without assigner."""
    values = (tpm.manufacturer, tpm.model, tpm.firmware)
    if not all(values):
        raise Unavailable("attest.failed", "the EK certificate names no manufacturer, model or version")
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in zip(_TPM_NAMES, values, strict=True)])
    permanent = x509.OtherName(OID_PERMANENT_IDENTIFIER, _der(_SEQUENCE, _der(_UTF8, identifier.encode())))
    san = x509.SubjectAlternativeName([x509.DirectoryName(name), permanent])
    builder = _builder(authority, public_key, san=san, usage=OID_AK, now=now, life=AK_LIFE)
    return _prepare(builder, authority, _AK_LINTS, AK_LIFE)


def prepare_identity(
    authority: CertificateAuthority,
    *,
    public_key: ec.EllipticCurvePublicKey,
    spiffe_id: str,
    life: timedelta,
    now: datetime,
) -> PreparedCertificate:
    """Prepare an X.509-SVID (enrolment.md section 3): nothing in it but the SPIFFE ID, nothing of the device."""
    san = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
    builder = _builder(authority, public_key, san=san, usage=ExtendedKeyUsageOID.CLIENT_AUTH, now=now, life=life)
    return _prepare(builder, authority, _IDENTITY_LINTS, life)


def _builder(
    authority: CertificateAuthority,
    public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    *,
    san: x509.SubjectAlternativeName,
    usage: x509.ObjectIdentifier,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    start = now.replace(microsecond=0) - _BACKDATE
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.certificate.public_key())  # type: ignore[arg-type]  # a CA key is one of these
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.certificate.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(min(start + life, authority.certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_SIGNATURES, critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(san, critical=True)
        .add_extension(issuer_key, critical=False)
    )


def _prepare(
    builder: x509.CertificateBuilder,
    authority: CertificateAuthority,
    lints: Sequence[Callable[[x509.Certificate], bool]],
    life: timedelta,
) -> PreparedCertificate:
    """Sign with a key that nobody trusts, and look at the result."""
    draft = builder.sign(authority.lint_key, authority.hash)
    for lint in (*_COMMON_LINTS, *lints):
        if not lint(draft):
            raise Unavailable("attest.failed", f"lint {lint.__name__.strip('_')}")
    if not timedelta(0) < draft.not_valid_after_utc - draft.not_valid_before_utc <= life:
        raise Unavailable("attest.failed", "lint life")
    return PreparedCertificate(builder, authority, draft.tbs_certificate_bytes)


_SIGNATURES: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_EXTENSIONS: Final = {
    ExtensionOID.BASIC_CONSTRAINTS: True,
    ExtensionOID.KEY_USAGE: True,
    ExtensionOID.EXTENDED_KEY_USAGE: False,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME: True,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False,
}


def _version_3(draft: x509.Certificate) -> bool:
    return draft.version == x509.Version.v3


def _empty_subject(draft: x509.Certificate) -> bool:
    return not list(draft.subject)


def _random_serial(draft: x509.Certificate) -> bool:
    return draft.serial_number.bit_length() >= _SERIAL_BITS


def _exact_extensions(draft: x509.Certificate) -> bool:
    return {extension.oid: extension.critical for extension in draft.extensions} == _EXTENSIONS


def _not_a_ca(draft: x509.Certificate) -> bool:
    return not draft.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def _signatures_only(draft: x509.Certificate) -> bool:
    return draft.extensions.get_extension_for_class(x509.KeyUsage).value == _SIGNATURES


def _ak_usage(draft: x509.Certificate) -> bool:
    return list(draft.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [OID_AK]


def _ak_names(draft: x509.Certificate) -> bool:
    names = _names(draft)
    return (
        [type(name) for name in names] == [x509.DirectoryName, x509.OtherName]
        and isinstance(names[1], x509.OtherName)
        and names[1].type_id == OID_PERMANENT_IDENTIFIER
    )


def _client_usage(draft: x509.Certificate) -> bool:
    usages = list(draft.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    return usages == [ExtendedKeyUsageOID.CLIENT_AUTH]


def _one_spiffe_id(draft: x509.Certificate) -> bool:
    names = _names(draft)
    return (
        len(names) == 1
        and isinstance(names[0], x509.UniformResourceIdentifier)
        and names[0].value.startswith("spiffe://")
    )


def _p256_key(draft: x509.Certificate) -> bool:
    key = draft.public_key()
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)


def _names(draft: x509.Certificate) -> list[x509.GeneralName]:
    return list(draft.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)


_COMMON_LINTS: Final = (_version_3, _empty_subject, _random_serial, _exact_extensions, _not_a_ca, _signatures_only)
_AK_LINTS: Final = (_ak_usage, _ak_names)
_IDENTITY_LINTS: Final = (_client_usage, _one_spiffe_id, _p256_key)


def _der(tag: int, content: bytes) -> bytes:
    """Encode one DER value (X.690 8.1.3) of at most 65535 bytes."""
    size = len(content)
    if size < 0x80:  # noqa: PLR2004 - the short form ends here
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + content
