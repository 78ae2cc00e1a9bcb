"""Is this CSR the attested key's, and does it name nothing? Finalize, enrolment.md section 3."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from countersign.attest.certificates import permanent_identifiers
from countersign.attest.steps import Step, run
from countersign.errors import Denied

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CSR_STEPS", "verify_csr"]

EXTENSION_REQUEST: Final = x509.ObjectIdentifier("1.2.840.113549.1.9.14")

_MAX_CSR: Final = 8192
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
_CSR_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


@dataclass
class _Exam:
    der: bytes
    attested_spki: bytes
    identifier: str

    @cached_property
    def csr(self) -> x509.CertificateSigningRequest:
        if not 1 <= len(self.der) <= _MAX_CSR:
            raise Denied("attest.csr_format", f"a CSR of {len(self.der)} bytes")
        try:
            csr = x509.load_der_x509_csr(self.der)
            _ = csr.subject, csr.extensions, csr.public_key(), csr.signature_hash_algorithm, list(csr.attributes)
        except _UNREADABLE as error:
            raise Denied("attest.csr_format", "no CSR that can be read") from error
        return csr


def verify_csr(
    csr_der: bytes, *, attested_spki: bytes, identifier: str, steps: Sequence[Step[_Exam]] | None = None
) -> x509.CertificateSigningRequest:
    """Verify a CSR and return it. Nothing it names may be copied into a certificate.

    Raises:
        Denied: ``attest.csr_format``, ``attest.csr_signature``, ``attest.csr_key`` (another key than the attested one),
            ``attest.csr_names`` (any name but a CN or a PermanentIdentifier equal to ``identifier``).
    """
    exam = _Exam(csr_der, attested_spki, identifier)
    run(CSR_STEPS if steps is None else steps, exam)
    return exam.csr


def _csr_format(exam: _Exam) -> None:
    if any(attribute.oid != EXTENSION_REQUEST for attribute in exam.csr.attributes):
        raise Denied("attest.csr_format", "an attribute other than the extension request")


def _csr_signature(exam: _Exam) -> None:
    if not isinstance(exam.csr.signature_hash_algorithm, _CSR_HASHES):
        raise Denied("attest.csr_signature", "signed without SHA-256 or better")
    try:
        valid = exam.csr.is_signature_valid
    except (InvalidSignature, *_UNREADABLE) as error:
        raise Denied("attest.csr_signature", "the signature cannot be checked") from error
    if not valid:
        raise Denied("attest.csr_signature", "the signature is not by the CSR's own key")


def _csr_key(exam: _Exam) -> None:
    spki = exam.csr.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if not hmac.compare_digest(spki, exam.attested_spki):
        raise Denied("attest.csr_key", "the CSR is for another key than the attested one")


def _csr_names(exam: _Exam) -> None:
    names = [(attribute.oid, attribute.value) for attribute in exam.csr.subject]
    if names not in ([], [(NameOID.COMMON_NAME, exam.identifier)]):
        raise Denied("attest.csr_names", "a subject other than one CN equal to the order's identifier")
    for extension in exam.csr.extensions:
        if not isinstance(extension.value, x509.SubjectAlternativeName):
            raise Denied("attest.csr_names", f"extension {extension.oid.dotted_string} asked for")
        found = permanent_identifiers(extension.value, code="attest.csr_names")
        if len(list(extension.value)) != 1 or [one.text for one in found] != [exam.identifier]:
            raise Denied("attest.csr_names", "a SAN other than the order's one PermanentIdentifier")


CSR_STEPS: Final[tuple[Step[_Exam], ...]] = (
    Step(1, "attest.csr_format", _csr_format),
    Step(2, "attest.csr_signature", _csr_signature),
    Step(3, "attest.csr_key", _csr_key),
    Step(4, "attest.csr_names", _csr_names),
)
"""The checks of finalize, in the order of enrolment.md section 3."""
