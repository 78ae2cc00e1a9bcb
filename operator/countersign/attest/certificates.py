"""What do TPM certificates say, and who vouches for them? X.509 as TPM makers and our attestation CA write it.

The chain is checked by ``cryptography``'s verifier under a policy of our own: TPM certificates have an empty subject, a
critical SAN of directory names, and extended key usages of the TCG that the verifier's web defaults refuse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Optional, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.x509 import verification

from countersign.errors import Denied

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

__all__ = [
    "PermanentIdentifier",
    "TpmFacts",
    "check_chain",
    "directory_names",
    "extension_of",
    "load_certificate",
    "permanent_identifiers",
    "tpm_facts",
]

PERMANENT_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.3")
TPM_MANUFACTURER: Final = x509.ObjectIdentifier("2.23.133.2.1")
TPM_MODEL: Final = x509.ObjectIdentifier("2.23.133.2.2")
TPM_VERSION: Final = x509.ObjectIdentifier("2.23.133.2.3")

_MAX_CERTIFICATE: Final = 8192
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)

_T = TypeVar("_T", bound=x509.ExtensionType)


@dataclass(frozen=True)
class TpmFacts:
    """Maker, model and firmware of a TPM, as its certificate's SAN has them, for example ``id:49465800``."""

    manufacturer: str
    model: str
    firmware: str


@asn1.sequence
class _PermanentIdentifier:
    """RFC 4043: both members may be left out."""

    value: Optional[str]  # noqa: UP045 - the decoder reads the annotation, and knows only this spelling
    assigner: Optional[x509.ObjectIdentifier]  # noqa: UP045


@dataclass(frozen=True)
class PermanentIdentifier:
    """A PermanentIdentifier of a SAN: the value, and the assigner's OID in dotted form if there is one."""

    value: str
    assigner: str | None

    @property
    def text(self) -> str:
        """The ACME identifier it stands for: ``value`` or ``value/assigner`` (device-attest section 3)."""
        return self.value if self.assigner is None else f"{self.value}/{self.assigner}"


def load_certificate(der: bytes, *, code: str) -> x509.Certificate:
    """Read one certificate whole: extensions and key too, so that nothing later fails to parse.

    Raises:
        Denied: ``code``.
    """
    if len(der) > _MAX_CERTIFICATE:
        raise Denied(code, f"a certificate of {len(der)} bytes, at most {_MAX_CERTIFICATE} wanted")
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.extensions, certificate.subject, certificate.issuer, certificate.public_key()
    except _UNREADABLE as error:
        raise Denied(code, "no certificate that can be read") from error
    return certificate


def check_chain(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    now: datetime,
    *,
    code: str,
) -> None:
    """Find a path from ``leaf`` to one of ``roots`` that holds at ``now``; the leaf's own profile is not judged.

    Raises:
        Denied: ``code``; also when there are no roots, since empty never means any.
    """
    if not roots:
        raise Denied(code, "no roots to chain to")
    builder = verification.PolicyBuilder().store(verification.Store(list(roots))).time(now)
    builder = builder.extension_policies(ca_policy=_ca_policy(), ee_policy=verification.ExtensionPolicy.permit_all())
    try:
        builder.build_client_verifier().verify(leaf, list(intermediates))
    except (verification.VerificationError, *_UNREADABLE) as error:
        raise Denied(code, "no path from the certificate to a trusted root") from error


def extension_of(certificate: x509.Certificate, kind: type[_T]) -> x509.Extension[_T] | None:
    """Return the extension of that class, or None."""
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def directory_names(names: x509.SubjectAlternativeName) -> Iterator[x509.NameAttribute[Any]]:
    """Yield every attribute of every directory name, however they are grouped."""
    for name in names.get_values_for_type(x509.DirectoryName):
        yield from name


def tpm_facts(certificate: x509.Certificate, *, code: str) -> TpmFacts:
    """Return what the SAN says of the TPM, each fact exactly once and not empty.

    Raises:
        Denied: ``code``.
    """
    found: dict[x509.ObjectIdentifier, str] = {}
    san = extension_of(certificate, x509.SubjectAlternativeName)
    for attribute in directory_names(san.value) if san else ():
        if attribute.oid in found:
            raise Denied(code, f"the SAN has {attribute.oid.dotted_string} twice")
        found[attribute.oid] = attribute.value if isinstance(attribute.value, str) else ""
    facts = [found.get(oid, "") for oid in (TPM_MANUFACTURER, TPM_MODEL, TPM_VERSION)]
    if not all(facts):
        raise Denied(code, "the SAN does not name the TPM's manufacturer, model and version")
    return TpmFacts(*facts)


def permanent_identifiers(names: x509.SubjectAlternativeName, *, code: str) -> list[PermanentIdentifier]:
    """Return every PermanentIdentifier of a SAN.

    Raises:
        Denied: ``code``, for one that cannot be read or has no value.
    """
    found = []
    for name in names.get_values_for_type(x509.OtherName):
        if name.type_id != PERMANENT_IDENTIFIER:
            continue
        try:
            read = asn1.decode_der(_PermanentIdentifier, name.value)
        except _UNREADABLE as error:
            raise Denied(code, "a PermanentIdentifier that cannot be read") from error
        if not read.value:
            raise Denied(code, "a PermanentIdentifier without a value")
        found.append(PermanentIdentifier(read.value, read.assigner.dotted_string if read.assigner else None))
    return found


def _ca_policy() -> verification.ExtensionPolicy:
    policy = verification.ExtensionPolicy.permit_all()
    policy = policy.require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, _is_ca)
    return policy.may_be_present(x509.KeyUsage, verification.Criticality.AGNOSTIC, _signs_certificates)


def _is_ca(_policy: verification.Policy, _certificate: x509.Certificate, value: x509.BasicConstraints) -> None:
    if not value.ca:
        msg = "not a CA"
        raise ValueError(msg)


def _signs_certificates(_policy: verification.Policy, _cert: x509.Certificate, value: x509.KeyUsage | None) -> None:
    if value is not None and not value.key_cert_sign:
        msg = "a CA that may not sign certificates"
        raise ValueError(msg)
