"""From a bare TPM to a certificate: E1 to the attestation CA, E2 to the ACME CA (enrolment.md). Each step logs once."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx
import structlog
from cryptography import x509

from countersign.acme import AcmeClient, AcmeProblem
from countersign.attest import build_statement, key_qualifier
from countersign.errors import CODES, Denied, Unavailable
from countersign.signer.csr import build_csr
from countersign.signer.trust import client_context

if TYPE_CHECKING:
    from pathlib import Path

    from countersign.attest import Ak, AttestationDevice, AttestingKey
    from countersign.attest.device import AkKind
    from countersign.signer.trust import Trust

__all__ = ["Admission", "Enroller", "ak_expiry"]

_MAX_ANSWER: Final = 256 * 1024
_SECRET_BYTES: Final = 32
_BEARER: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
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
        endorsements = [one for one in await self._device.endorsements() if one.certificates]
        if not endorsements:
            raise Denied("attest.ek_certificate", "the TPM has no endorsement key with a certificate")
        ak = await self._device.create_ak(ak_type)
        async with httpx.AsyncClient(
            verify=client_context(trust.ca), timeout=15.0, follow_redirects=False, trust_env=False
        ) as client:
            challenge = await self._post(client, f"{trust.authority_url}/attest", _attest_body(endorsements[0], ak))
            secret = await self._device.activate(_bytes(challenge, "credential"), _bytes(challenge, "secret"))
            if len(secret) != _SECRET_BYTES:
                raise Unavailable("attest.unavailable", "the activated secret has an unexpected length")
            proof = await self._device.certify(key_qualifier(secret))
            key = {"public": _b64(proof.public), "attest": _b64(proof.attest), "signature": _b64(proof.signature)}
            return _admission(
                await self._post(client, f"{trust.authority_url}/secret", {"secret": _b64(secret), "key": key})
            )

    async def _post(self, client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send one of the two posts of E1; the token goes into a header, read from its file now."""
        try:
            token = self._token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable("attest.unavailable", "the pod's token is not readable") from error
        if not _BEARER.fullmatch(token):
            raise Unavailable("attest.unavailable", "the pod's token file holds no token")
        try:
            async with client.stream("POST", url, json=body, headers={"authorization": f"Bearer {token}"}) as answer:
                content = await _bounded(answer)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable("attest.unavailable", f"the authority did not answer ({type(error).__name__})") from error
        return _answer(answer.status_code, content)


def _attest_body(endorsement: Any, ak: Ak) -> dict[str, Any]:
    return {
        "tpmInfo": {},
        "ek": _b64(endorsement.spki),
        "ekCerts": [_b64(one) for one in endorsement.certificates],
        "params": {
            "public": _b64(ak.public),
            "createData": _b64(ak.creation_data),
            "createAttestation": _b64(ak.attest),
            "createSignature": _b64(ak.signature),
        },
    }


async def _bounded(answer: httpx.Response) -> bytes:
    """Read an answer, but not much more than any of the authority's."""
    content = b""
    async for part in answer.aiter_bytes():
        content += part
        if len(content) > _MAX_ANSWER:
            raise Unavailable("attest.unavailable", "the authority's answer is too long")
    return content


def _answer(status: int, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if status == httpx.codes.OK and isinstance(value, dict):
        return value
    code = value.get("code") if isinstance(value, dict) else None
    known = code if isinstance(code, str) and code in CODES else None
    if _refuses(status):
        raise Denied(known or "attest.failed", _text(value, "detail") or f"the authority answered {status}")
    raise Unavailable(known or "attest.unavailable", f"the authority answered {status}")


def _refuses(status: int) -> bool:
    """Tell a no from a not now: after a 4xx the signer waits a minute, after anything else it backs off."""
    return httpx.codes.BAD_REQUEST <= status < httpx.codes.INTERNAL_SERVER_ERROR


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
    if _refuses(problem.status):
        return Denied(code or "attest.failed", problem.detail)
    return Unavailable(code or "attest.unavailable", f"the CA refused: {problem.name}: {problem.detail}")


def _bytes(answer: dict[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(answer[name], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise Unavailable("attest.unavailable", "the authority's answer to /attest cannot be read") from error


def _text(value: Any, name: str) -> str:
    text = value.get(name, "") if isinstance(value, dict) else ""
    return text if isinstance(text, str) else ""


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
