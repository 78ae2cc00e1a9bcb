"""From a signed certificate to one that may be fetched: kept first, then in the instance's status, then published.

A process that dies in between loses nothing: whoever asks for the order next continues where it stopped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization

from countersign.acme import jwk_of, thumbprint
from countersign.authority.cluster import is_live
from countersign.authority.describe import instance_status
from countersign.authority.instances import write_status
from countersign.authority.refusals import translated
from countersign.authority.tables import CertificateRecord
from countersign.authority.trust import stamp_seconds
from countersign.errors import Denied
from countersign.kube import AGENT_INSTANCES

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    from countersign.authority.cluster import Cluster
    from countersign.authority.store import OrderStore
    from countersign.authority.tables import OrderRecord
    from countersign.clock import Clock
    from countersign.kube import EventRecorder

__all__ = ["Issuance", "record_of"]


@dataclass(frozen=True)
class Issuance:
    """Publishes certificates, and takes them back."""

    cluster: Cluster
    store: OrderStore
    events: EventRecorder
    clock: Clock

    async def publish(self, order: OrderRecord, certificate: CertificateRecord) -> CertificateRecord:
        """Write the certificate into the instance's status, and only then let the client fetch it.

        One that is published already is handed to a living instance alone, too.

        :raises AcmeProblem: the instance is gone or revoked, or a later enrolment has taken this one's place.
        """
        with translated("finalize"):
            if certificate.published is not None:
                await self._require_live(certificate)
                return certificate
            ak = await self.store.ak_certificate(order.ak_serial or "")
            if ak is None or ak.revoked is not None:
                raise Denied("attest.chain", "a later enrolment has taken this one's place")
            before = await self.cluster.instance(certificate.namespace, certificate.instance)
            instance = await self._describe(certificate, _described(certificate))
        now = int(self.clock.now().timestamp())
        await self.store.mark_certificate(certificate.id, "published", now)
        note = f"serial {colons(certificate.serial)}, until {stamp_seconds(certificate.not_after)}"
        reason = "CertificateRenewed" if _has_one_of(before, certificate) else "CertificateIssued"
        await self.events.emit(instance, "Normal", reason, note)
        return replace(certificate, published=now)

    async def not_renewed(self, instance: dict[str, Any] | None, refusal: Denied) -> None:
        """Say on an instance that has a certificate why it gets no further one; only for who has proven to be it."""
        if instance is not None and _certificate(instance):
            await self.events.emit(instance, "Warning", "RenewalFailed", f"{refusal.code}: {refusal.detail}")

    async def forget(self, certificate: CertificateRecord) -> None:
        """Take a certificate out of the instance's status, if it is the one there: the decision point forgets the key."""
        with translated("revokeCert"):
            instance = await self.cluster.instance(certificate.namespace, certificate.instance)
            if _certificate(instance or {}).get("serialNumber") == colons(certificate.serial):
                await self._describe(certificate, None)

    async def _require_live(self, certificate: CertificateRecord) -> None:
        instance = await self.cluster.instance(certificate.namespace, certificate.instance)
        if instance is None or instance["metadata"]["uid"] != certificate.instance_uid:
            raise Denied("attest.instance_unknown", "the AgentInstance is gone")
        if not is_live(instance):
            raise Denied("attest.instance_inactive", "the AgentInstance is revoked")

    async def _describe(self, certificate: CertificateRecord, described: dict[str, Any] | None) -> dict[str, Any]:
        instance = await self.cluster.instance(certificate.namespace, certificate.instance)
        device = None if instance is None else await self.cluster.device(instance["spec"]["deviceRef"]["name"])

        def compute(found: dict[str, Any]) -> dict[str, Any]:
            if described is not None and not is_live(found):
                raise Denied("attest.instance_inactive", "the AgentInstance is revoked")
            pool = self.cluster.pool(device["spec"]["poolRef"]["name"]) if device is not None else None
            fields = {"certificate": described}
            return instance_status(found, device=device, pool=pool, now=self.clock.now(), found=fields)

        return await write_status(
            self.cluster.kube,
            AGENT_INSTANCES,
            certificate.instance,
            certificate.namespace,
            certificate.instance_uid,
            compute,
        )


def record_of(
    name: str, order: OrderRecord, certificate: x509.Certificate, public_key: ec.EllipticCurvePublicKey
) -> CertificateRecord:
    """Return what the store keeps of a new certificate; ``name`` is its id in URLs."""
    return CertificateRecord(
        id=name,
        order_id=order.id,
        account=order.account,
        issuer=order.issuer,
        serial=f"{certificate.serial_number:x}",
        jkt=thumbprint(jwk_of(public_key)),
        chain=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        namespace=order.namespace,
        instance=order.instance,
        instance_uid=order.instance_uid,
        not_before=int(certificate.not_valid_before_utc.timestamp()),
        not_after=int(certificate.not_valid_after_utc.timestamp()),
    )


def _certificate(instance: dict[str, Any]) -> dict[str, Any]:
    return (instance.get("status") or {}).get("certificate") or {}


def _has_one_of(instance: dict[str, Any] | None, fresh: CertificateRecord) -> bool:
    """Tell whether an instance has a former certificate of the same key: a signer that began anew has another key."""
    present = _certificate(instance or {})
    return present.get("keyThumbprint") == fresh.jkt and present.get("serialNumber") != colons(fresh.serial)


def colons(serial: str) -> str:
    """Return a serial number as people read it: ``5f:0a:…``."""
    return bytes.fromhex(serial.zfill(len(serial) + len(serial) % 2)).hex(":")


def _described(certificate: CertificateRecord) -> dict[str, Any]:
    """Return ``status.certificate`` (crds.md 3.5)."""
    return {
        "serialNumber": colons(certificate.serial),
        "keyThumbprint": certificate.jkt,
        "notBefore": stamp_seconds(certificate.not_before),
        "notAfter": stamp_seconds(certificate.not_after),
    }
