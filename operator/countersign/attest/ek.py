"""Whose TPM is this? The endorsement key and its certificate: enrolment.md section 2, check 5."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from countersign.attest.certificates import TpmFacts, check_chain, extension_of, load_certificate, tpm_facts
from countersign.attest.steps import Step, run
from countersign.errors import Denied

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from countersign.attest.public import PublicKey

__all__ = ["EK_STEPS", "VerifiedEk", "verify_ek"]

EK_CERTIFICATE: Final = x509.ObjectIdentifier("2.23.133.8.1")
_MIN_RSA, _MAX_RSA = 2048, 4096
_MAX_SPKI: Final = 1024
_MAX_CERTIFICATES: Final = 8


@dataclass(frozen=True)
class VerifiedEk:
    """An endorsement key whose certificate chains to exactly one pool. Made by :func:`verify_ek` only."""

    public_key: PublicKey
    spki: bytes
    sha256: str
    """``sha256:`` and 64 hex digits, over the SPKI: what a Device names its key by."""
    certificate: x509.Certificate
    pool: str
    manufacturer: str
    model: str
    firmware: str


@dataclass
class _Exam:
    spki: bytes
    ders: Sequence[bytes]
    pools: Mapping[str, Sequence[x509.Certificate]]
    now: datetime

    @cached_property
    def key(self) -> PublicKey:
        return _load_key(self.spki)

    @cached_property
    def certificates(self) -> list[x509.Certificate]:
        if not 1 <= len(self.ders) <= _MAX_CERTIFICATES:
            raise Denied("attest.ek_certificate", f"{len(self.ders)} certificates, 1 to {_MAX_CERTIFICATES} wanted")
        return [load_certificate(der, code="attest.ek_certificate") for der in self.ders]

    @cached_property
    def certificate(self) -> x509.Certificate:
        """The endorsement key's own; the first, where none is, which check 3 refuses."""
        return next((one for one in self.certificates if _spki(one) == self.spki), self.certificates[0])

    @cached_property
    def vouching(self) -> list[str]:
        return [name for name in sorted(self.pools) if self._vouches(name)]

    def _vouches(self, pool: str) -> bool:
        others = [one for one in self.certificates if one is not self.certificate]
        try:
            check_chain(self.certificate, others, self.pools[pool], self.now, code="attest.ek_untrusted")
        except Denied:
            return False
        return True


def verify_ek(
    ek_spki: bytes,
    ek_certs: Sequence[bytes],
    pools: Mapping[str, Sequence[x509.Certificate]],
    now: datetime,
    *,
    steps: Sequence[Step[_Exam]] | None = None,
) -> VerifiedEk:
    """Verify the endorsement key that a signer presents against the roots of each pool (enrolment.md 2, check 5).

    ``pools`` maps a DevicePool's name to its roots. Certificates beside the EK's own serve as intermediates.

    Raises:
        Denied: ``attest.ek_key`` (SPKI of RSA-2048 to 4096, P-256 or P-384), ``attest.ek_certificate``,
            ``attest.ek_mismatch``, ``attest.ek_profile``, ``attest.ek_expired``, ``attest.ek_untrusted``,
            ``attest.pool_ambiguous``.
    """
    exam = _Exam(ek_spki, ek_certs, pools, now)
    run(EK_STEPS if steps is None else steps, exam)
    facts = _facts(exam.certificate)
    pool = next(iter(exam.vouching), "")
    return VerifiedEk(
        public_key=exam.key,
        spki=ek_spki,
        sha256=f"sha256:{hashlib.sha256(ek_spki).hexdigest()}",
        certificate=exam.certificate,
        pool=pool,
        manufacturer=facts.manufacturer,
        model=facts.model,
        firmware=facts.firmware,
    )


def _load_key(spki: bytes) -> PublicKey:
    code = "attest.ek_key"
    if len(spki) > _MAX_SPKI:
        raise Denied(code, f"an SPKI of {len(spki)} bytes")
    try:
        key = load_der_public_key(spki)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Denied(code, "no SPKI that can be read") from error
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise Denied(code, "neither an RSA nor an ECC key")
    if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != spki:
        raise Denied(code, "an SPKI in another than its one DER form: its digest would name another device")
    return key


def _ek_key(exam: _Exam) -> None:
    key = exam.key
    if isinstance(key, rsa.RSAPublicKey):
        if not _MIN_RSA <= key.key_size <= _MAX_RSA:
            raise Denied("attest.ek_key", f"RSA of {key.key_size} bits, 2048 to 4096 wanted")
    elif not isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        raise Denied("attest.ek_key", f"curve {key.curve.name}, P-256 or P-384 wanted")


def _ek_certificate(exam: _Exam) -> None:
    _ = exam.certificates


def _ek_mismatch(exam: _Exam) -> None:
    if _spki(exam.certificate) != exam.spki:
        raise Denied("attest.ek_mismatch", "no certificate holds this endorsement key")


def _ek_profile(exam: _Exam) -> None:
    """Check the TCG EK credential profile: v3, no CA, TPM named, and a key usage that the key can serve."""
    certificate, code = exam.certificate, "attest.ek_profile"
    if certificate.version is not x509.Version.v3:
        raise Denied(code, "not an X.509 v3 certificate")
    constraints = extension_of(certificate, x509.BasicConstraints)
    if constraints is None or constraints.value.ca:
        raise Denied(code, "basicConstraints absent or CA")
    usages = extension_of(certificate, x509.ExtendedKeyUsage)
    if usages is not None and EK_CERTIFICATE not in usages.value:
        raise Denied(code, "an extended key usage without tcg-kp-EKCertificate")
    usage = extension_of(certificate, x509.KeyUsage)
    rsa_key = isinstance(exam.key, rsa.RSAPublicKey)
    if usage is None or not (usage.value.key_encipherment if rsa_key else usage.value.key_agreement):
        raise Denied(code, "a key usage without keyEncipherment (RSA) or keyAgreement (ECC)")
    if usage.value.key_cert_sign:
        raise Denied(code, "a key usage that signs certificates")
    _facts(certificate)


def _facts(certificate: x509.Certificate) -> TpmFacts:
    return tpm_facts(certificate, code="attest.ek_profile")


def _ek_expired(exam: _Exam) -> None:
    if not exam.certificate.not_valid_before_utc <= exam.now <= exam.certificate.not_valid_after_utc:
        raise Denied("attest.ek_expired", f"valid until {exam.certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}")


def _ek_untrusted(exam: _Exam) -> None:
    if not exam.vouching:
        raise Denied("attest.ek_untrusted", "the endorsement certificate chains to no pool's roots")


def _pool_ambiguous(exam: _Exam) -> None:
    if len(exam.vouching) > 1:
        raise Denied("attest.pool_ambiguous", f"pools {', '.join(exam.vouching)} all vouch for this TPM")


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


EK_STEPS: Final[tuple[Step[_Exam], ...]] = (
    Step(1, "attest.ek_key", _ek_key),
    Step(2, "attest.ek_certificate", _ek_certificate),
    Step(3, "attest.ek_mismatch", _ek_mismatch),
    Step(4, "attest.ek_profile", _ek_profile),
    Step(5, "attest.ek_expired", _ek_expired),
    Step(6, "attest.ek_untrusted", _ek_untrusted),
    Step(7, "attest.pool_ambiguous", _pool_ambiguous),
)
"""Check 5 of enrolment.md section 2, in its order."""
