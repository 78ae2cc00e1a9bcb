"""Did this TPM make this attestation key, and did that key certify the instance key? enrolment.md section 2.

``verify_ak`` is check 7 of ``/attest``; ``verify_key_proof`` is the proof that ``/secret`` carries.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import ec

from countersign.attest.algorithms import CURVES, HASHES, Alg, Attribute, Curve, Structure, digest
from countersign.attest.evidence import MAGIC, TpmsAttest, TpmsCreationData, TpmtSignature, check_signature
from countersign.attest.public import PublicKey, TpmtPublic
from countersign.attest.steps import Step, run
from countersign.errors import Denied

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AK_STEPS", "KEY_STEPS", "VerifiedAk", "key_qualifier", "verify_ak", "verify_key_proof"]

MIN_RSA_BITS: Final = 2048

_SIGNING: Final = frozenset({Alg.RSASSA, Alg.RSAPSS, Alg.ECDSA})
_AK_SET: Final = (
    Attribute.FIXED_TPM
    | Attribute.FIXED_PARENT
    | Attribute.SENSITIVE_DATA_ORIGIN
    | Attribute.RESTRICTED
    | Attribute.SIGN
)
_AK_CLEAR: Final = Attribute.DECRYPT | Attribute.ENCRYPTED_DUPLICATION
KEY_SET: Final = Attribute.FIXED_TPM | Attribute.FIXED_PARENT | Attribute.SENSITIVE_DATA_ORIGIN | Attribute.SIGN
KEY_CLEAR: Final = Attribute.RESTRICTED | Attribute.DECRYPT | Attribute.ENCRYPTED_DUPLICATION


@dataclass(frozen=True)
class VerifiedAk:
    """An attestation key that proved itself made in a TPM. Made by :func:`verify_ak` only.

    Which TPM is proved by credential activation against ``name``, not here.
    """

    name: bytes
    public_key: PublicKey
    public: TpmtPublic


@dataclass
class _AkExam:
    public_bytes: bytes
    creation_bytes: bytes
    attest_bytes: bytes
    signature_bytes: bytes

    @cached_property
    def public(self) -> TpmtPublic:
        return TpmtPublic.parse(self.public_bytes, code="attest.ak_format")

    @cached_property
    def attest(self) -> TpmsAttest:
        return TpmsAttest.parse(self.attest_bytes, code="attest.ak_format")

    @cached_property
    def creation(self) -> TpmsCreationData:
        return TpmsCreationData.parse(self.creation_bytes, code="attest.ak_format")

    @cached_property
    def signature(self) -> TpmtSignature:
        return TpmtSignature.parse(self.signature_bytes, code="attest.ak_format")

    @cached_property
    def key(self) -> PublicKey:
        return self.public.public_key(code="attest.ak_format")


def verify_ak(
    public: bytes,
    creation_data: bytes,
    attest: bytes,
    signature: bytes,
    *,
    steps: Sequence[Step[_AkExam]] | None = None,
) -> VerifiedAk:
    """Verify an attestation key and its own TPM2_CertifyCreation (enrolment.md section 2, check 7).

    Raises:
        Denied: ``attest.ak_format``, ``attest.ak_strength``, ``attest.ak_attributes``, ``attest.ak_proof``.
    """
    exam = _AkExam(public, creation_data, attest, signature)
    run(AK_STEPS if steps is None else steps, exam)
    return VerifiedAk(exam.public.name, exam.key, exam.public)


def _ak_format(exam: _AkExam) -> None:
    _ = exam.public, exam.creation, exam.attest, exam.signature


def _ak_strength(exam: _AkExam) -> None:
    check_strength(exam.public, code="attest.ak_strength")
    scheme = exam.public.scheme
    if scheme.alg not in _SIGNING or scheme.hash_alg not in HASHES:
        raise Denied("attest.ak_strength", "no explicit signing scheme with SHA-256 or better")


def _ak_attributes(exam: _AkExam) -> None:
    check_attributes(exam.public, _AK_SET, _AK_CLEAR, code="attest.ak_attributes")


def _ak_magic(exam: _AkExam) -> None:
    if exam.attest.magic != MAGIC or exam.attest.kind != Structure.CREATION:
        raise Denied("attest.ak_proof", "not an attestation of a creation by a TPM")


def _ak_creation(exam: _AkExam) -> None:
    public = exam.public
    expected = digest(public.name_alg, exam.creation.raw) if public.name_alg in HASHES else b""
    if not expected or not hmac.compare_digest(expected, exam.attest.detail):
        raise Denied("attest.ak_proof", "the creation hash is of other creation data")


def _ak_name(exam: _AkExam) -> None:
    check_name(exam.attest, exam.public, code="attest.ak_proof")


def _ak_signature(exam: _AkExam) -> None:
    scheme = exam.public.scheme
    if (exam.signature.alg, exam.signature.hash_alg) != (scheme.alg, scheme.hash_alg):
        raise Denied("attest.ak_proof", "the signature's scheme is not the key's")
    check_signature(exam.key, exam.signature, exam.attest.raw, code="attest.ak_proof")


AK_STEPS: Final[tuple[Step[_AkExam], ...]] = (
    Step(1, "attest.ak_format", _ak_format),
    Step(2, "attest.ak_strength", _ak_strength),
    Step(3, "attest.ak_attributes", _ak_attributes),
    Step(4, "attest.ak_proof", _ak_magic),
    Step(5, "attest.ak_proof", _ak_creation),
    Step(6, "attest.ak_proof", _ak_name),
    Step(7, "attest.ak_proof", _ak_signature),
)
"""Check 7 of enrolment.md section 2, in its order."""


@dataclass
class _KeyExam:
    ak: PublicKey
    public_bytes: bytes
    attest_bytes: bytes
    signature_bytes: bytes
    qualifier: bytes

    @cached_property
    def public(self) -> TpmtPublic:
        return TpmtPublic.parse(self.public_bytes, code="attest.key_proof")

    @cached_property
    def attest(self) -> TpmsAttest:
        return TpmsAttest.parse(self.attest_bytes, code="attest.key_proof")

    @cached_property
    def signature(self) -> TpmtSignature:
        return TpmtSignature.parse(self.signature_bytes, code="attest.key_proof")


def key_qualifier(secret: bytes) -> bytes:
    """Return what the instance key is certified over: SHA-256(``countersign key v1`` || 0x00 || the 32 secret bytes)."""
    return hashlib.sha256(b"countersign key v1\x00" + secret).digest()


def verify_key_proof(
    ak: VerifiedAk | PublicKey,
    public: bytes,
    attest: bytes,
    signature: bytes,
    secret: bytes,
    *,
    steps: Sequence[Step[_KeyExam]] | None = None,
) -> ec.EllipticCurvePublicKey:
    """Verify the member ``key`` of ``/secret`` and return the instance key, P-256 (enrolment.md section 2).

    Raises:
        Denied: ``attest.key_proof``, ``attest.key_attributes``.
    """
    ak_key = ak.public_key if isinstance(ak, VerifiedAk) else ak
    exam = _KeyExam(ak_key, public, attest, signature, key_qualifier(secret))
    run(KEY_STEPS if steps is None else steps, exam)
    key = exam.public.public_key(code="attest.key_proof")
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Denied("attest.key_attributes", "an instance key is P-256")
    return key


def _key_format(exam: _KeyExam) -> None:
    _ = exam.public, exam.attest, exam.signature


def _key_kind(exam: _KeyExam) -> None:
    if exam.public.type != Alg.ECC or exam.public.curve != Curve.P256 or exam.public.name_alg not in HASHES:
        raise Denied("attest.key_attributes", "an instance key is P-256, named with SHA-256 or better")


def _key_attributes(exam: _KeyExam) -> None:
    check_attributes(exam.public, KEY_SET, KEY_CLEAR, code="attest.key_attributes")


def _key_magic(exam: _KeyExam) -> None:
    if exam.attest.magic != MAGIC or exam.attest.kind != Structure.CERTIFY:
        raise Denied("attest.key_proof", "not a certification by a TPM")


def _key_name(exam: _KeyExam) -> None:
    check_name(exam.attest, exam.public, code="attest.key_proof")


def _key_signature(exam: _KeyExam) -> None:
    check_signature(exam.ak, exam.signature, exam.attest.raw, code="attest.key_proof")


def _key_qualifier(exam: _KeyExam) -> None:
    if not hmac.compare_digest(exam.attest.extra_data, exam.qualifier):
        raise Denied("attest.key_proof", "certified over another secret")


KEY_STEPS: Final[tuple[Step[_KeyExam], ...]] = (
    Step(1, "attest.key_proof", _key_format),
    Step(2, "attest.key_attributes", _key_kind),
    Step(3, "attest.key_attributes", _key_attributes),
    Step(4, "attest.key_proof", _key_magic),
    Step(5, "attest.key_proof", _key_name),
    Step(6, "attest.key_proof", _key_signature),
    Step(7, "attest.key_proof", _key_qualifier),
)
"""The proof that ``/secret`` carries, check by check."""


def check_strength(public: TpmtPublic, *, code: str) -> None:
    """Refuse a key that is not RSA of 2048 bits or more, P-256 or P-384, named with SHA-256 or better."""
    if public.name_alg not in HASHES:
        raise Denied(code, f"name algorithm {public.name_alg:#06x}, SHA-256 or better wanted")
    if public.type == Alg.RSA and public.bits < MIN_RSA_BITS:
        raise Denied(code, f"RSA of {public.bits} bits, {MIN_RSA_BITS} or more wanted")
    if public.type == Alg.ECC and public.curve not in CURVES:
        raise Denied(code, f"curve {public.curve:#06x}, P-256 or P-384 wanted")


def check_attributes(public: TpmtPublic, wanted: Attribute, unwanted: Attribute, *, code: str) -> None:
    """Refuse a key that could leave its TPM, was not made there, or is for another use."""
    if not public.has(wanted) or not public.lacks(unwanted):
        raise Denied(code, f"attributes {public.attributes:#010x}")


def check_name(attest: TpmsAttest, public: TpmtPublic, *, code: str) -> None:
    """Refuse an attestation of another object than ``public``."""
    if not public.name or not hmac.compare_digest(attest.name, public.name):
        raise Denied(code, "the attested Name is another object's")
