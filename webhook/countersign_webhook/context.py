"""What the process is made of, put together once and taken apart at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from countersign.audit import AuditLog, HeadKeeper
from countersign.clock import SystemClock
from countersign.errors import Unavailable
from countersign.kube import (
    AGENT_IDENTITIES,
    AGENT_INSTANCES,
    CLUSTER_TOOL_POLICIES,
    DEVICE_POOLS,
    DEVICES,
    IDENTITY_ISSUERS,
    NAMESPACES,
    PODS,
    TOOL_POLICIES,
    TOOL_SERVERS,
    EventRecorder,
    Kube,
    WatchCache,
)
from countersign.kube.injection import InjectionSettings
from countersign.kube.slim import head_only
from countersign.replaystore import RedisCommands
from countersign.wire import ChainCache, MemoryReplayCache, Nonces, SharedReplayCache
from countersign.wire.limit import RateLimit
from countersign_webhook.decide.facts import Registry
from countersign_webhook.decide.notices import Notices
from countersign_webhook.decide.peps import Peps
from countersign_webhook.decide.recorder import Recorder
from countersign_webhook.decide.rules import RuleBook
from countersign_webhook.heads import HeadMap
from countersign_webhook.keys import TokenKeys
from countersign_webhook.metrics import WebhookMetrics
from countersign_webhook.reading.readers import Readers
from countersign_webhook.replay import read_nonce_key
from countersign_webhook.skew import SkewAlarm

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric import ec

    from countersign.clock import Clock
    from countersign.wire import ReplayCache
    from countersign_webhook.decide.peps import TokenReviewer
    from countersign_webhook.settings import WebhookSettings
    from countersign_webhook.source import PolicySource

__all__ = ["WATCHED", "WebhookContext"]

WATCHED: Final = (
    IDENTITY_ISSUERS,
    DEVICE_POOLS,
    DEVICES,
    AGENT_IDENTITIES,
    AGENT_INSTANCES,
    TOOL_SERVERS,
    TOOL_POLICIES,
    CLUSTER_TOOL_POLICIES,
    NAMESPACES,
    PODS,
)
_NONCE_KEY_BYTES: Final = 32
_LAST_HEAD_SECONDS: Final = 3


@dataclass(frozen=True)
class WebhookContext:
    """The parts. ``of`` joins them around a source and a log; ``from_settings`` makes the real ones."""

    settings: WebhookSettings
    clock: Clock
    source: PolicySource
    audit: AuditLog
    keys: TokenKeys
    notices: Notices
    registry: Registry
    book: RuleBook
    recorder: Recorder
    metrics: WebhookMetrics
    injection: InjectionSettings
    nonces: Nonces
    replay: ReplayCache
    chains: ChainCache
    instance_rate: RateLimit
    address_rate: RateLimit
    pep_rate: RateLimit
    peps: Peps
    skew: SkewAlarm
    readers: Readers
    heads: HeadKeeper | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _closing: tuple[WatchCache | Kube | RedisCommands, ...] = field(default=(), repr=False)

    @classmethod
    def of(
        cls,
        settings: WebhookSettings,
        *,
        clock: Clock,
        source: PolicySource,
        audit: AuditLog,
        notices: Notices,
        reviewer: TokenReviewer | None = None,
        closing: tuple[WatchCache | Kube | RedisCommands, ...] = (),
        measured: Callable[[], float | None] = lambda: None,
    ) -> WebhookContext:
        """Join the parts. With a replay store of its own the key of the nonces is made here: a restart voids them (A7)."""
        metrics, limits = WebhookMetrics(), settings.limits
        metrics.follow({one.plural: partial(source.age, one) for one in WATCHED}, audit, settings.calls.tls_cert)
        return cls(
            settings=settings,
            clock=clock,
            source=source,
            audit=audit,
            keys=TokenKeys(settings.token_keys),
            notices=notices,
            registry=Registry(source),
            book=RuleBook(source, metrics, clock=clock, grants=settings.grants, issuer=settings.issuer),
            recorder=Recorder(audit, seconds=settings.decide.timeout_seconds),
            metrics=metrics,
            # No former_images: what is made now gets this release's signer, also where somebody wrote an older one down.
            injection=InjectionSettings(
                image=settings.injection.image,
                version=settings.injection.version,
                token_audience=settings.token_audience,
            ),
            nonces=Nonces(os.urandom(_NONCE_KEY_BYTES)),
            replay=MemoryReplayCache(epoch=int(clock.now().timestamp())),
            chains=ChainCache(),
            instance_rate=RateLimit(clock, rate=limits.instance_rate, burst=limits.instance_burst),
            address_rate=RateLimit(clock, rate=limits.address_rate, burst=limits.address_burst),
            pep_rate=RateLimit(clock, rate=limits.pep_rate, burst=limits.pep_burst),
            peps=Peps(settings.peps, reviewer, issuer=settings.issuer, clock=clock),
            skew=SkewAlarm(clock, metrics, measured),
            readers=Readers(None, issuer=settings.issuer),
            _closing=closing,
        )

    @classmethod
    async def from_settings(cls, settings: WebhookSettings) -> WebhookContext:
        """Connect, start to watch and open the audit log; the first lists may still be under way afterwards."""
        clock = SystemClock()
        shared = settings.replay
        nonces = None if shared is None else Nonces(read_nonce_key(shared.nonce_key))
        store = None if shared is None else RedisCommands(shared)
        audit = await AuditLog.open(
            settings.audit.directory, process="webhook", clock=clock, segment_bytes=settings.audit.segment_bytes
        )
        kube = await Kube.connect(settings.kubeconfig)
        cache = WatchCache(kube, WATCHED, clock=clock, keep={PODS: head_only})  # asked only: is it there and alive
        notices = Notices(EventRecorder(kube, "countersign-webhook"))
        closing = (cache, kube) if store is None else (cache, kube, store)
        context = cls.of(
            settings,
            clock=clock,
            source=cache,
            audit=audit,
            notices=notices,
            reviewer=kube,
            closing=closing,
            measured=lambda: kube.clock_skew,
        )
        context = replace(context, readers=Readers(kube, issuer=settings.issuer))
        if nonces is not None and store is not None:
            context = replace(context, nonces=nonces, replay=SharedReplayCache(store, clock))
        await cache.start()
        heads = HeadKeeper(
            audit,
            issuer=settings.issuer,
            key=context.head_key,
            publish=HeadMap(kube, settings.namespace, context.public_key).keep,
            clock=clock,
        )
        return replace(context, heads=heads)

    def head_key(self) -> tuple[str, ec.EllipticCurvePrivateKey]:
        """Return the issuer's key of now, for the heads of the log. Raises Unavailable if there is none."""
        key = self.keys.signing(int(self.clock.now().timestamp()))
        return key.kid, key.private_key

    def public_key(self, kid: str) -> dict[str, Any]:
        """Return the JWK of a key that signs now."""
        shown = self.keys.jwks(int(self.clock.now().timestamp()))["keys"]
        return next(dict(one) for one in shown if one["kid"] == kid)

    async def aclose(self) -> None:
        """Have the end of the log signed, stop watching, then close the log: what was decided is on disk."""
        if self.heads is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_HEAD_SECONDS):
                    await self.heads.sign()
        for part in self._closing:
            await part.aclose()
        await self.audit.aclose()

    def unseen(self) -> list[str]:
        """Return what of the cluster is not known well enough to judge objects; nothing if all is."""
        if not self.source.synced:
            return ["caches that are not synced yet"]
        return self.source.stale(self.settings.decide.max_staleness_seconds)

    def stale(self) -> list[str]:
        """Return what is not known well enough to decide calls: the cluster, or rules that were compiled from it."""
        if unseen := self.unseen():
            return unseen
        return (
            ["rules that are not compiled yet"] if self.book.behind(self.settings.decide.max_staleness_seconds) else []
        )

    def faults(self) -> list[str]:
        """Return why this process is not ready; nothing if it is."""
        if self.stopping.is_set():
            return ["a process that goes on: this one stops"]
        faults = [f"current view of {kind}" for kind in self.stale()]
        if not faults:
            _ = self.book.servers  # thousands of schemas are the probe's to wait for, never the first call's
        if not self.audit.ready:
            faults.append("audit log")
        try:
            self.keys.signing(int(self.clock.now().timestamp()))
        except Unavailable as error:
            faults.append(f"token key: {error.detail}")
        return faults
