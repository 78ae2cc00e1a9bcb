"""From a bare TPM to a certificate: E1 to the attestation CA, E2 to the ACME CA (enrolment.md). Each step logs once."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog
from cryptography import x509

from countersign.acme import AcmeClient, AcmeProblem
from countersign.attest import build_statement, key_qualifier
from countersign.attest.client import AttestationClient, b64, prove, refuses
from countersign.errors import CODES, Denied, Unavailable
from countersign.signer.csr import build_csr
from countersign.signer.trust import client_context

if TYPE_CHECKING:
    from pathlib import Path

    from countersign.attest import AttestationDevice, AttestingKey
    from countersign.attest.device import AkKind
    from countersign.signer.trust import Trust

__all__ = ["Admission", "Enroller", "ak_expiry"]

_ALG: Final[dict[str, int]] = {"P256": -7, "RSA2048": -257}
_log = structlog.get_logger("signer")


@dataclass(frozen=True)
class Admission:
    """What E1 gave: the AK's certificates (DER, leaf first) and who this instance is. ``life`` is in seconds."""

    chain: tuple[bytes, ...]
    instance: str
    identifier: str
    directory: str
    ca_bundle: str | None
    ak_type: AkKind
    life: int


class Enroller:
    """Knows the way in; holds the device, and no state that a restart would miss."""

    def __init__(self, device: AttestationDevice, *, token_file: Path) -> None:
        """Keep the device and where kubelet keeps the pod's token fresh."""
        self._device = device
        self._token_file = token_file

    async def admit(self, trust: Trust, key: AttestingKey, ak_type: AkKind = "P256") -> Admission:
        """Run E1: prove the EK holds the AK, the AK certifies ``key``, and the pod's token says who asks.

        An issuer that takes another kind of AK says so in its answer; then E1 is run again with the right one.

        Raises:
            Denied: the authority's code.
            Unavailable: it does not answer, or says to come back.
        """
        admission = await self._admit_once(trust, ak_type)
        if admission.ak_type != ak_type:
            _log.info("enrol.ak_kind", wanted=admission.ak_type)
            admission = await self._admit_once(trust, admission.ak_type)
        _log.info("enrol.admitted", instance=admission.instance, jkt=key.jkt)
        return admission

    async def certify(self, trust: Trust, key: AttestingKey, admission: Admission) -> list[x509.Certificate]:
        """Run E2 with the AK certificate of ``admission``; return the identity's chain, leaf first.

        Raises:
            Denied: the CA's ``code``.
            Unavailable: anything else that went wrong there.
        """

        async def attest(key_authorization: str) -> bytes:
            certified = await self._device.certify(hashlib.sha256(key_authorization.encode()).digest())
            return build_statement(
                admission.chain,
                certified.attest,
                certified.public,
                certified.signature,
                _ALG[admission.ak_type],
            )

        context = client_context(admission.ca_bundle or trust.ca)
        try:
            async with AcmeClient(admission.directory, ssl_context=context) as client:
                chain = await client.obtain(admission.identifier, attest=attest, csr=lambda: build_csr(key))
        except AcmeProblem as problem:
            raise _translated(problem) from problem
        if chain[0].public_key() != key.public_key:
            raise Unavailable("attest.unavailable", "the CA certified another key")
        _log.info("enrol.certified", instance=admission.instance, not_after=chain[0].not_valid_after_utc.isoformat())
        return chain

    async def _admit_once(self, trust: Trust, ak_type: AkKind) -> Admission:
        async with AttestationClient.to(trust, self._token_file) as client:
            secret = await prove(self._device, ak_type, client)
            proof = await self._device.certify(key_qualifier(secret))
            key = {"public": b64(proof.public), "attest": b64(proof.attest), "signature": b64(proof.signature)}
            return _admission(await client.post("/secret", {"secret": b64(secret), "key": key}))


def _admission(answer: dict[str, Any]) -> Admission:
    try:
        acme = dict(answer["acme"])
        chain = tuple(base64.b64decode(one, validate=True) for one in answer["chain"])
        admission = Admission(
            chain=chain,
            instance=str(answer["instance"]),
            identifier=str(answer["identifier"]),
            directory=str(acme["directory"]),
            ca_bundle=acme.get("caBundle") or None,
            ak_type=_ak_type(acme["akType"]),
            life=int(answer["life"]),
        )
        ak_expiry(admission)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise Unavailable("attest.unavailable", "the authority's answer to /secret cannot be read") from error
    return admission


def _ak_type(value: Any) -> AkKind:
    if value not in _ALG:
        msg = "a kind of AK that is not known here"
        raise ValueError(msg)
    kind: AkKind = value
    return kind


def ak_expiry(admission: Admission) -> float:
    """Return when the AK certificate ends, in seconds since 1970."""
    return x509.load_der_x509_certificate(admission.chain[0]).not_valid_after_utc.timestamp()


def _translated(problem: AcmeProblem) -> Denied | Unavailable:
    code = problem.code if problem.code in CODES else None
    if refuses(problem.status):
        return Denied(code or "attest.failed", problem.detail)
    return Unavailable(code or "attest.unavailable", f"the CA refused: {problem.name}: {problem.detail}")
