"""Is this attestation statement good? The numbered checks of device-attest-01, format tpm (enrolment.md section 3).

The sources behind the numbers: draft-ietf-acme-device-attest section 5, WebAuthn section 8.3, TPM 2.0 part 2. Whoever
knows the Evidence knows: a TPM under one of ``ak_roots`` holds the key, now, for this account, under this identifier.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from countersign.attest.ak import KEY_CLEAR, KEY_SET, MIN_RSA_BITS, check_attributes, check_name
from countersign.attest.algorithms import CURVES, HASHES, Alg, Structure
from countersign.attest.certificates import (
    check_chain,
    extension_of,
    load_certificate,
    permanent_identifiers,
    tpm_facts,
)
from countersign.attest.evidence import MAGIC, TpmsAttest, TpmtSignature, check_signature
from countersign.attest.public import PublicKey, TpmtPublic
from countersign.attest.statement import MAX_STATEMENT, Statement, parse_object
from countersign.attest.steps import Step, run
from countersign.errors import Denied

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from countersign.attest.cbor import Cbor
    from countersign.attest.certificates import PermanentIdentifier

__all__ = ["STATEMENT_STEPS", "Evidence", "verify_statement"]

AIK_CERTIFICATE: Final = x509.ObjectIdentifier("2.23.133.8.3")

_MAX_CHAIN: Final = 6
_COSE_HASHES: Final = {
    -7: Alg.SHA256,  # ES256
    -257: Alg.SHA256,  # RS256
    -37: Alg.SHA256,  # PS256
    -35: Alg.SHA384,  # ES384
    -258: Alg.SHA384,  # RS384
    -38: Alg.SHA384,  # PS384
}
"""What ``alg`` is taken for: its hash alone, since the step CLI names the attested key's algorithm there, not the AK's."""


@dataclass(frozen=True)
class Evidence:
    """What a good statement proves. Made by :func:`verify_statement` only."""

    public_key: PublicKey
    spki: bytes
    ak_certificate: x509.Certificate
    ak_public_key: PublicKey


@dataclass
class _Exam:
    att_obj: bytes
    key_authorization: str
    identifier: str
    ak_roots: Sequence[x509.Certificate]
    now: datetime

    @cached_property
    def object(self) -> tuple[str, dict[str, Cbor]]:
        return parse_object(self.att_obj)

    @cached_property
    def statement(self) -> Statement:
        return Statement.parse(self.object[1])

    @cached_property
    def hash_alg(self) -> int:
        alg = self.statement.alg
        if alg not in _COSE_HASHES:
            raise Denied("attest.algorithm", f"COSE algorithm {alg}")
        return _COSE_HASHES[alg]

    @cached_property
    def x5c(self) -> list[x509.Certificate]:
        ders = self.statement.x5c
        if not 1 <= len(ders) <= _MAX_CHAIN:
            raise Denied("attest.chain", f"{len(ders)} certificates in x5c, 1 to {_MAX_CHAIN} wanted")
        return [load_certificate(der, code="attest.chain") for der in ders]

    @cached_property
    def ak_key(self) -> PublicKey:
        key = self.x5c[0].public_key()
        if isinstance(key, rsa.RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
            return key
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, tuple(CURVES.values())):
            return key
        raise Denied("attest.ak_profile", "the AK is neither RSA-2048 or more, nor P-256 or P-384")

    @cached_property
    def identifiers(self) -> list[PermanentIdentifier]:
        san = extension_of(self.x5c[0], x509.SubjectAlternativeName)
        return permanent_identifiers(san.value, code="attest.identifier_missing") if san else []

    @cached_property
    def public(self) -> TpmtPublic:
        return TpmtPublic.parse(self.statement.pub_area, code="attest.public_area")

    @cached_property
    def cert_info(self) -> TpmsAttest:
        return TpmsAttest.parse(self.statement.cert_info, code="attest.cert_info")

    @cached_property
    def signature(self) -> TpmtSignature:
        return TpmtSignature.parse(self.statement.sig, code="attest.signature_format")


def verify_statement(
    att_obj: bytes,
    *,
    key_authorization: str,
    identifier: str,
    ak_roots: Sequence[x509.Certificate],
    now: datetime,
    steps: Sequence[Step[_Exam]] | None = None,
) -> Evidence:
    """Verify an attestation object against a challenge and return what it proves.

    ``key_authorization`` is RFC 8555 8.1's, from the account's own key; ``identifier`` is the value of the order's one
    permanent-identifier, ``value`` or ``value/assigner``.

    Raises:
        Denied: one of the codes of enrolment.md section 3, that of the first check that fails.
    """
    exam = _Exam(att_obj, key_authorization, identifier, ak_roots, now)
    run(STATEMENT_STEPS if steps is None else steps, exam)
    key = exam.public.public_key(code="attest.public_area")
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Evidence(key, spki, exam.x5c[0], exam.ak_key)


def _payload(exam: _Exam) -> None:
    if not 1 <= len(exam.att_obj) <= MAX_STATEMENT:
        raise Denied("attest.payload", f"an attestation object of {len(exam.att_obj)} bytes")


def _cbor(exam: _Exam) -> None:
    if exam.object[0] == "tpm":
        _ = exam.statement  # another format has other members: the next check refuses it


def _fmt(exam: _Exam) -> None:
    if exam.object[0] != "tpm":
        raise Denied("attest.fmt", "only the format tpm is taken here")


def _version(exam: _Exam) -> None:
    if exam.statement.ver != "2.0":
        raise Denied("attest.version", "only TPM 2.0 is taken here")


def _algorithm(exam: _Exam) -> None:
    _ = exam.hash_alg


def _chain(exam: _Exam) -> None:
    check_chain(exam.x5c[0], exam.x5c[1:], exam.ak_roots, exam.now, code="attest.chain")


def _ak_profile(exam: _Exam) -> None:
    """Check WebAuthn 8.3.1, and that basicConstraints is there: without it a CA could be taken for an AK."""
    leaf, code = exam.x5c[0], "attest.ak_profile"
    if leaf.version is not x509.Version.v3 or list(leaf.subject):
        raise Denied(code, "not v3 with an empty subject")
    constraints = extension_of(leaf, x509.BasicConstraints)
    if constraints is None or constraints.value.ca:
        raise Denied(code, "basicConstraints absent or CA")
    usages = extension_of(leaf, x509.ExtendedKeyUsage)
    if usages is None or AIK_CERTIFICATE not in usages.value:
        raise Denied(code, "no extended key usage tcg-kp-AIKCertificate")
    usage = extension_of(leaf, x509.KeyUsage)
    if usage is not None and (not usage.value.digital_signature or usage.value.key_cert_sign):
        raise Denied(code, "a key usage without digitalSignature, or with keyCertSign")
    tpm_facts(leaf, code=code)
    _ = exam.ak_key


def _identifier_missing(exam: _Exam) -> None:
    if not exam.identifiers:
        raise Denied("attest.identifier_missing", "the AK certificate names no PermanentIdentifier")


def _identifier_mismatch(exam: _Exam) -> None:
    if exam.identifier not in {found.text for found in exam.identifiers}:
        raise Denied("attest.identifier_mismatch", "the AK certificate names another identifier than the order")


def _identifier_ambiguous(exam: _Exam) -> None:
    if len(exam.identifiers) > 1:
        raise Denied("attest.identifier_ambiguous", f"the AK certificate names {len(exam.identifiers)} identifiers")


def _public_area(exam: _Exam) -> None:
    if exam.public.name_alg not in HASHES:
        raise Denied("attest.public_area", f"name algorithm {exam.public.name_alg:#06x}, SHA-256 or better wanted")


def _key_strength(exam: _Exam) -> None:
    public, code = exam.public, "attest.key_strength"
    if public.type == Alg.RSA and public.bits < MIN_RSA_BITS:
        raise Denied(code, f"RSA of {public.bits} bits, {MIN_RSA_BITS} or more wanted")
    if public.type == Alg.ECC and public.curve not in CURVES:
        raise Denied(code, f"curve {public.curve:#06x}, P-256 or P-384 wanted")


def _key_attributes(exam: _Exam) -> None:
    check_attributes(exam.public, KEY_SET, KEY_CLEAR, code="attest.key_attributes")


def _cert_info(exam: _Exam) -> None:
    if exam.cert_info.magic != MAGIC or exam.cert_info.kind != Structure.CERTIFY:
        raise Denied("attest.cert_info", "not a certification by a TPM")


def _name(exam: _Exam) -> None:
    check_name(exam.cert_info, exam.public, code="attest.name")


def _signature_format(exam: _Exam) -> None:
    if not exam.signature.fits(exam.ak_key) or exam.signature.hash_alg != exam.hash_alg:
        raise Denied("attest.signature_format", "the signature's algorithm fits neither the AK nor alg")


def _signature(exam: _Exam) -> None:
    check_signature(exam.ak_key, exam.signature, exam.cert_info.raw, code="attest.signature")


def _extra_data(exam: _Exam) -> None:
    expected = hashlib.sha256(exam.key_authorization.encode()).digest()
    if not hmac.compare_digest(exam.cert_info.extra_data, expected):
        raise Denied("attest.extra_data", "certified for another challenge or account")


STATEMENT_STEPS: Final[tuple[Step[_Exam], ...]] = tuple(
    Step(number, f"attest.{check.__name__.removeprefix('_')}", check)
    for number, check in enumerate(
        (
            _payload,
            _cbor,
            _fmt,
            _version,
            _algorithm,
            _chain,
            _ak_profile,
            _identifier_missing,
            _identifier_mismatch,
            _identifier_ambiguous,
            _public_area,
            _key_strength,
            _key_attributes,
            _cert_info,
            _name,
            _signature_format,
            _signature,
            _extra_data,
        ),
        start=1,
    )
)
"""The checks in the order of enrolment.md section 3; each is named after the code it refuses with."""
