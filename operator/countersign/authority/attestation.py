"""The attestation CA: ``/attest`` hands out a credential that one TPM can open, ``/secret`` takes what was inside.

What is refused and why is in ``checks``; this file is what happens when nothing was refused (enrolment.md section 2).
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives import serialization

from countersign.attest import TpmtPublic, make_credential
from countersign.authority.checks import ATTEST_STEPS, COMMIT_STEPS, SECRET_STEPS, EnrolmentStep, secret_digest
from countersign.authority.describe import device_conflict, device_status, instance_status, part
from countersign.authority.exam import Exam
from countersign.authority.instances import DuplicateKeyError, find_or_make, write_status
from countersign.authority.issue import TpmNames, prepare_ak
from countersign.authority.notices import notices
from countersign.authority.proposals import NODE_ATTEST_STEPS, NODE_SECRET_STEPS, find_or_propose, sequence
from countersign.authority.tables import AkRecord, SecretRecord
from countersign.authority.trust import life_of, spiffe_id, stamp
from countersign.errors import Denied, Unavailable
from countersign.kube import AGENT_INSTANCES, DEVICES
from countersign.wire import thumbprint

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from countersign.authority.ca import CertificateAuthority
    from countersign.authority.cluster import Cluster
    from countersign.authority.limits import Askers
    from countersign.authority.recorder import Recorder
    from countersign.authority.store import OrderStore
    from countersign.clock import Clock
    from countersign.kube import EventRecorder
    from countersign.kube.injection import InjectionSettings

__all__ = ["AttestationDesk"]

SECRET_LIFE: Final = timedelta(seconds=60)
_SECRET_BYTES: Final = 32


@dataclass(frozen=True)
class AttestationDesk:
    """Everything that ``/attest`` and ``/secret`` need; ``acme_url`` and ``ca_bundle`` are what the signer needs next."""

    cluster: Cluster
    store: OrderStore
    ca: Callable[[], CertificateAuthority]
    identity_cas: Callable[[str], CertificateAuthority | None]
    recorder: Recorder
    events: EventRecorder
    clock: Clock
    injection: InjectionSettings
    cluster_name: str
    own_namespace: str
    acme_url: Callable[[str], str]
    ca_bundle: Callable[[], str]
    lock: asyncio.Lock
    askers: Askers
    attest_steps: tuple[EnrolmentStep, ...] = ATTEST_STEPS
    secret_steps: tuple[EnrolmentStep, ...] = SECRET_STEPS
    commit_steps: tuple[EnrolmentStep, ...] = COMMIT_STEPS
    node_attest_steps: tuple[EnrolmentStep, ...] = NODE_ATTEST_STEPS
    node_secret_steps: tuple[EnrolmentStep, ...] = NODE_SECRET_STEPS

    async def attest(self, body: bytes, bearer: str | None, peer: str | None) -> dict[str, Any]:
        """Answer ``POST /attest``.

        :raises CountersignError: whatever check refuses; the answer is on record either way.
        """
        exam = self._exam(body, bearer)
        async with self.recorder.answer("/attest", exam, peer):
            await self._run(sequence(self.attest_steps, self.node_attest_steps, exam), exam)
            return await self._challenge(exam)

    async def secret(self, body: bytes, bearer: str | None, peer: str | None) -> dict[str, Any]:
        """Answer ``POST /secret``.

        :raises CountersignError: whatever check refuses; the answer is on record either way.
        """
        exam = self._exam(body, bearer)
        async with self.recorder.answer("/secret", exam, peer) as facts:
            await self._run(sequence(self.secret_steps, self.node_secret_steps, exam), exam)
            async with self.lock:
                if exam.of_node:
                    return await self._propose(exam)
                await self._run(self.commit_steps, exam)
                instance = await self._instance(exam)
                answer = await self._admit(exam, instance)
            facts["instance"] = answer["instance"]
        return answer

    def _exam(self, body: bytes, bearer: str | None) -> Exam:
        return Exam(
            self.cluster, self.store, self.injection, self.own_namespace, self.clock.now(), body, bearer, self.askers
        )

    async def _run(self, steps: Iterable[EnrolmentStep], exam: Exam) -> None:
        """Run the checks; a refusal is an Event on whatever it is news for."""
        try:
            for step in steps:
                await step(exam)
        except Denied as refusal:
            for concerned, reason in notices(exam, refusal):
                await self.events.emit(concerned, "Warning", reason, f"{refusal.code}: {refusal.detail}")
            raise

    async def _challenge(self, exam: Exam) -> dict[str, Any]:
        """Make the credential; the secret inside is known to this answer and that TPM only."""
        if exam.verified_ek is None:
            raise Unavailable("attest.failed", "the endorsement key was not verified")
        secret = secrets.token_bytes(_SECRET_BYTES)
        credential, encrypted = make_credential(exam.verified_ek.public_key, exam.ak.name, secret)
        record = SecretRecord(
            digest=secret_digest(secret),
            pod_uid=exam.pod_uid,
            expires=int((exam.now + SECRET_LIFE).timestamp()),
            used=False,
            ek_sha256=exam.ek.sha256,
            pool=exam.ek.pool,
            manufacturer=exam.ek.manufacturer,
            model=exam.ek.model,
            firmware=exam.ek.firmware,
            ak_name=exam.ak.name,
            ak_public=exam.ak.public.raw,
        )
        await self.store.add_secret(record)
        return {"credential": _base64(credential), "secret": _base64(encrypted)}

    async def _propose(self, exam: Exam) -> dict[str, Any]:
        """Make or find the node's Device, say on it which TPM was seen, and answer what people have decided so far.

        The attestation time stays: the attestations that calls lean on are those of agents.
        """
        device, made = await find_or_propose(self.cluster.kube, exam)
        exam.devices = [device]
        if made:
            await self.events.emit(
                device, "Normal", "Enrolled", f"by node {exam.review.node_name}, pool {exam.ek.pool}"
            )
        device = await self._seen(exam, {})
        return {"device": device["metadata"]["name"], "state": device["spec"].get("state", "Pending")}

    async def _instance(self, exam: Exam) -> dict[str, Any]:
        """Make or find the pod's AgentInstance; a second device is an Event, and the first stays."""
        try:
            known = self.cluster.instances_of_pod(exam.pod_uid)
            instance, made = await find_or_make(self.cluster.kube, exam.pod, exam.identity, exam.device, known=known)
        except DuplicateKeyError as refusal:
            await self.events.emit(refusal.instance, "Warning", "DuplicateKey", refusal.detail)
            raise
        if made:
            note = f"device {exam.device['metadata']['name']}, pool {exam.ek.pool}"
            await self.events.emit(instance, "Normal", "Attested", note)
            await self.events.emit(exam.device, "Normal", "Attested", f"for {instance['metadata']['name']}")
        return instance

    async def _admit(self, exam: Exam, instance: dict[str, Any]) -> dict[str, Any]:
        """Record the attestation and issue the AK certificate; the answer is complete only when both are kept."""
        name, namespace = instance["metadata"]["name"], instance["metadata"]["namespace"]
        identifier = f"{self.cluster_name}.{namespace}.{name}"
        identity_ca = self.identity_cas(exam.issuer["metadata"]["name"])
        if identity_ca is None:
            raise Unavailable("attest.issuer_not_ready", "the issuer's CA is not loaded", retry_after=5)
        device = await self._attested(exam)
        await write_status(
            self.cluster.kube,
            AGENT_INSTANCES,
            name,
            namespace,
            instance["metadata"]["uid"],
            lambda found: instance_status(
                found,
                device=device,
                pool=exam.pool,
                now=exam.now,
                found={"spiffeID": spiffe_id(exam.issuer, exam.identity)},
            ),
        )
        ca = self.ca()
        certificate = await self._ak_certificate(ca, exam, instance, identifier)
        issuer = exam.issuer["metadata"]["name"]
        return {
            "chain": [_base64(certificate), _base64(ca.der)],
            "instance": f"{namespace}/{name}",
            "identifier": identifier,
            "acme": {"directory": self.acme_url(issuer), "caBundle": self.ca_bundle(), "akType": "P256"},
            "life": int(
                life_of(
                    exam.identity, exam.issuer, identity_ca.certificate.not_valid_after_utc, exam.now
                ).total_seconds()
            ),
        }

    async def _attested(self, exam: Exam) -> dict[str, Any]:
        """Write on the Device what this attestation showed, and return the Device as it is then.

        :raises Denied: ``attest.device_unknown`` if it is not the Device that was examined, or of another TPM by now.
        """
        pool = exam.pool
        if pool is None:
            raise Unavailable("attest.failed", "the Device's pool was not looked at")
        return await self._seen(exam, {"assurance": pool["spec"]["assurance"], "attestationTime": stamp(exam.now)})

    async def _seen(self, exam: Exam, more: dict[str, Any]) -> dict[str, Any]:
        """Write on the Device which TPM was seen, and ``more``; return the Device as it is then."""
        ek, pool = exam.ek, exam.pool
        found = {"manufacturer": ek.manufacturer, "model": ek.model, "firmware": ek.firmware, **more}
        devices = self.cluster.devices()

        def compute(device: dict[str, Any]) -> dict[str, Any]:
            if part(device, "spec", "ek", "publicKeySHA256") != ek.sha256:
                raise Denied("attest.device_unknown", "the Device has another endorsement key now")
            conflict = device_conflict(device, devices, pool)
            count = (device.get("status") or {}).get("instances", 0)
            return device_status(device, pool=pool, instances=count, conflict=conflict, now=exam.now, found=found)

        meta = exam.device["metadata"]
        return await write_status(self.cluster.kube, DEVICES, meta["name"], None, meta["uid"], compute)

    async def _ak_certificate(
        self, ca: CertificateAuthority, exam: Exam, instance: dict[str, Any], identifier: str
    ) -> bytes:
        """Build, lint, sign and record the AK certificate; return its DER."""
        names = TpmNames(exam.ek.manufacturer, exam.ek.model, exam.ek.firmware)
        key = TpmtPublic.parse(exam.pending.ak_public).public_key()
        certificate = prepare_ak(ca, public_key=key, identifier=identifier, tpm=names, now=exam.now).sign()
        der = certificate.public_bytes(serialization.Encoding.DER)
        record = AkRecord(
            serial=f"{certificate.serial_number:x}",
            certificate=der,
            issued=int(exam.now.timestamp()),
            expires=int(certificate.not_valid_after_utc.timestamp()),
            namespace=instance["metadata"]["namespace"],
            instance=instance["metadata"]["name"],
            instance_uid=instance["metadata"]["uid"],
            pod_uid=exam.pod_uid,
            device_uid=exam.device["metadata"]["uid"],
            ak_name=exam.ak_name,
            key_jkt=thumbprint(exam.key),
            key_spki=exam.key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        )
        await self.store.add_ak_certificate(record)
        return der


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
