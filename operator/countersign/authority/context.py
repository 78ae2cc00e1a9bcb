"""Everything that one authority process holds, opened once and closed once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from countersign.audit import AuditLog
from countersign.authority.acme_desk import AcmeDesk
from countersign.authority.attestation import AttestationDesk
from countersign.authority.ca import CaError, CertificateAuthority
from countersign.authority.cluster import WATCHED, Cluster
from countersign.authority.custody import Custody
from countersign.authority.issuance import Issuance
from countersign.authority.limits import Askers
from countersign.authority.metrics import Metrics
from countersign.authority.reconcile import Reconciler
from countersign.authority.recorder import Recorder
from countersign.authority.store import SqlOrderStore
from countersign.clock import Clock, SystemClock
from countersign.errors import Unavailable
from countersign.kube import EventRecorder, Kube, KubeError, WatchCache
from countersign.kube.injection import InjectionSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from countersign.authority.settings import AuthoritySettings

__all__ = ["ProcessContext"]


@dataclass(frozen=True)
class ProcessContext:
    """The parts of a running authority; :meth:`aclose` ends them in the reverse order of their making."""

    settings: AuthoritySettings
    cluster: Cluster
    store: SqlOrderStore
    custody: Custody
    reconciler: Reconciler
    audit: AuditLog
    metrics: Metrics
    attestation: AttestationDesk
    acme: AcmeDesk
    stopping: asyncio.Event
    _stack: AsyncExitStack

    @classmethod
    async def from_settings(cls, settings: AuthoritySettings) -> Self:
        """Connect, open everything, and keep the statuses true from now on; what fails here ends the process.

        :raises Unavailable: a part that the authority cannot live without is not there.
        """
        clock = SystemClock()
        async with AsyncExitStack() as stack:
            try:
                kube = await Kube.connect(settings.kubeconfig)
            except KubeError as error:
                raise Unavailable("attest.unavailable", str(error)) from error
            stack.push_async_callback(kube.aclose)
            cache = WatchCache(kube, WATCHED, clock=clock)
            context = await cls.of(
                settings,
                kube=kube,
                cache=cache,
                events=EventRecorder(kube, "countersign-authority", clock=clock),
                clock=clock,
                stack=stack,
            )
            context.follow()
            return context
        raise AssertionError("an exit stack does not swallow exceptions")

    @classmethod
    async def of(
        cls,
        settings: AuthoritySettings,
        *,
        kube: Kube,
        cache: WatchCache,
        events: EventRecorder,
        clock: Clock,
        stack: AsyncExitStack,
    ) -> Self:
        """Open the store, the audit log and the attestation CA, and start the cache.

        ``stack`` holds what the caller opened; it is the context's afterwards.
        """
        store = await SqlOrderStore.open(settings.database_url)
        stack.push_async_callback(store.aclose)
        audit = await AuditLog.open(settings.audit.directory, process="authority", clock=clock)
        stack.push_async_callback(audit.aclose)
        custody = await _custody(kube, settings, clock)
        cluster = Cluster(
            kube,
            cache,
            token_audience=settings.token_audience,
            max_staleness_seconds=settings.limits.max_staleness_seconds,
        )
        reconciler = Reconciler(cluster, store, events, clock, custody=custody)
        await cache.start()
        stack.push_async_callback(cache.aclose)
        metrics = Metrics()
        metrics.follow(cluster, audit, settings.listen.tls_cert, clock)
        metrics.follow_cas(custody.expiry)
        metrics.skew.labels("api_server").set_function(lambda: kube.clock_skew or 0.0)
        acme = AcmeDesk(
            cluster=cluster,
            store=store,
            ak_roots=lambda: custody.attestation.believed,
            identity_cas=reconciler.identity_ca,
            issuance=Issuance(cluster, store, events, clock),
            clock=clock,
            cluster_name=settings.cluster,
            url=settings.url,
            lock=asyncio.Lock(),
        )
        attestation = AttestationDesk(
            cluster=cluster,
            store=store,
            ca=lambda: custody.attestation,
            identity_cas=reconciler.identity_ca,
            recorder=Recorder(audit, metrics, clock, url=settings.url),
            events=events,
            clock=clock,
            injection=InjectionSettings(
                image=settings.injection.image,
                version=settings.injection.version,
                token_audience=settings.token_audience,
                former_images=settings.injection.former_images,
            ),
            cluster_name=settings.cluster,
            own_namespace=settings.namespace,
            acme_url=acme.directory_url,
            ca_bundle=lambda: ca_bundle(settings),
            lock=asyncio.Lock(),
            askers=Askers.of(settings.limits, clock),
        )
        return cls(
            settings=settings,
            cluster=cluster,
            store=store,
            custody=custody,
            reconciler=reconciler,
            audit=audit,
            metrics=metrics,
            attestation=attestation,
            acme=acme,
            stopping=asyncio.Event(),
            _stack=stack.pop_all(),
        )

    def follow(self) -> None:
        """Keep the statuses true until the end."""
        task = asyncio.create_task(self.reconciler.run(), name="reconcile")
        self._stack.push_async_callback(_end, task)

    @property
    def ca(self) -> CertificateAuthority:
        """The attestation CA as it is now."""
        return self.custody.attestation

    async def aclose(self) -> None:
        """End everything."""
        await self._stack.aclose()

    def app(self) -> FastAPI:
        """Return the HTTP application on these parts."""
        from countersign.authority.app import create_app  # noqa: PLC0415 - FastAPI only where it is served

        return create_app(self.attestation, self.acme, body_seconds=self.settings.limits.body_seconds)

    def faults(self) -> list[str]:
        """Return what keeps the authority from answering; empty means ready."""
        found = ["this process stops"] if self.stopping.is_set() else []
        try:
            self.cluster.require_fresh()
        except Unavailable as error:
            found.append(error.detail)
        if not self.audit.ready:
            found.append("the audit log does not take records")
        self.metrics.ready.set(not found)
        return found


def ca_bundle(settings: AuthoritySettings) -> str:
    """Return the roots that a signer needs to reach the ACME directory: ``ca.crt`` beside the serving certificate.

    :raises Unavailable: ``attest.unavailable`` if there is none that can be read.
    """
    path = settings.listen.ca_bundle or settings.listen.tls_cert.parent / "ca.crt"
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Unavailable("attest.unavailable", "the serving CA's certificate cannot be read") from error
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in found)


async def _custody(kube: Kube, settings: AuthoritySettings, clock: Clock) -> Custody:
    ahead = timedelta(seconds=settings.overlap.ahead_seconds)
    custody = Custody(kube, clock, namespace=settings.namespace, cluster=settings.cluster, ahead=ahead)
    try:
        await custody.open(clock.now())
    except CaError as error:
        raise Unavailable("attest.unavailable", f"the attestation CA: {error}") from error
    except KubeError as error:
        raise Unavailable("attest.unavailable", "the API server does not answer for the attestation CA") from error
    return custody


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
