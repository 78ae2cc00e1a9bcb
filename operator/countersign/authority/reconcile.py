"""What becomes true as time passes: status of IdentityIssuers, Devices and AgentInstances; and the CAs' rotation.

Level-triggered: one pass looks at everything, computes what each status should say, and applies what differs. A pass runs
after a change that matters and at least every few seconds, because evidence expires without an event.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog

from countersign.authority.ca import CaError, CertificateAuthority
from countersign.authority.describe import device_conflict, device_status, instance_status, part
from countersign.authority.instances import apply_status
from countersign.authority.trust import stamp
from countersign.clock import skew_fault
from countersign.kube import (
    AGENT_IDENTITIES,
    AGENT_INSTANCES,
    DEVICES,
    IDENTITY_ISSUERS,
    NAMESPACES,
    Conflict,
    EventRecorder,
    KubeError,
    NotFound,
    Resource,
    set_condition,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from datetime import datetime

    from countersign.authority.cluster import Cluster
    from countersign.authority.custody import Custody
    from countersign.authority.store import OrderStore
    from countersign.clock import Clock

__all__ = ["Reconciler", "issuer_status"]

_WARNED: Final = ("CAExpiring", "DirectoryUnreachable")
_EVERY: Final = 10.0
_SETTLE: Final = 0.1
_REST: Final = 4.0
_REST_MOST: Final = 2.0
_SOON: Final = timedelta(days=30)
_PRUNE_EVERY: Final = 60.0
_LOG: Final = structlog.get_logger(__name__)


class Reconciler:
    """Keeps statuses true and the identity CAs at hand; :meth:`run` until cancelled."""

    def __init__(
        self, cluster: Cluster, store: OrderStore, events: EventRecorder, clock: Clock, *, custody: Custody
    ) -> None:
        """Follow the cache; nothing runs yet."""
        self._cluster = cluster
        self._store = store
        self._events = events
        self._clock = clock
        self._custody = custody
        self._wake = asyncio.Event()
        self._pruned = float("-inf")
        cluster.cache.subscribe(self._changed)

    def identity_ca(self, issuer: str) -> CertificateAuthority | None:
        """Return the CA of an Embedded issuer, once it was loaded."""
        found = self._cluster.issuer(issuer)
        return None if found is None else self._custody.identity(issuer, found["metadata"]["uid"])

    async def run(self) -> None:
        """Run passes until cancelled, once everything was seen; a failed one is logged and comes again."""
        await self._cluster.cache.wait_synced()
        while True:
            self._wake.clear()
            began = self._clock.monotonic()
            try:
                await self.pass_once()
            except Exception:  # noqa: BLE001 - whatever it was, the next pass must come
                _LOG.exception("a pass over the statuses failed")
            took = self._clock.monotonic() - began
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), min(_EVERY, self._custody.pace))
            # Thousands of changes one by one are not thousands of passes over everything.
            await asyncio.sleep(min(max(_SETTLE, _REST * took), _REST_MOST))

    async def pass_once(self) -> None:
        """Bring every status up to date, once; before everything was seen, what is missing says nothing.

        An object that no code of ours can read costs its own status alone. By a clock that is wrong nothing is said.
        """
        if not self._cluster.cache.synced:
            return
        if (fault := skew_fault(self._cluster.kube.clock_skew, "the API server")) is not None:
            _LOG.warning("no status is written by a wrong clock", fault=fault)
            return
        now = self._clock.now()
        try:
            await self._custody.follow(now)
        except KubeError as error:
            _LOG.warning("the API server does not answer for the attestation CA", error=str(error))
        for issuer in self._cluster.issuers():
            await self._alone(IDENTITY_ISSUERS, issuer, self._issuer(issuer, now))
        devices, instances = self._cluster.devices(), self._cluster.instances()
        counts = Counter(str(part(one, "spec", "deviceRef", "uid")) for one in instances)
        for device in devices:
            count = counts[device["metadata"]["uid"]]
            await self._alone(DEVICES, device, self._device(device, count, now))
        by_name = {device["metadata"]["name"]: device for device in devices}
        for instance in instances:
            await self._alone(AGENT_INSTANCES, instance, self._instance(instance, by_name, now))
        if self._clock.monotonic() - self._pruned >= _PRUNE_EVERY:
            await self._store.prune(int(now.timestamp()))
            self._pruned = self._clock.monotonic()

    async def _alone(self, resource: Resource, found: dict[str, Any], work: Awaitable[None]) -> None:
        """Do one object's part of a pass: what is odd about it is logged, and the others have their turn."""
        try:
            await work
        except Exception:  # noqa: BLE001 - whatever it was, it is this object's alone
            _LOG.exception("a status was left as it is", kind=resource.kind, name=found["metadata"]["name"])

    async def _issuer(self, issuer: dict[str, Any], now: datetime) -> None:
        name = issuer["metadata"]["name"]
        ca: CertificateAuthority | CaError
        try:
            ca = await self._custody.load(issuer, now)
        except CaError as error:
            ca = error
        except KubeError as error:
            _LOG.warning("the API server does not answer for a CA", issuer=name, error=str(error))
            return
        if isinstance(ca, CertificateAuthority) and ca.took_over:
            note = f"a new CA signs, valid until {stamp(ca.certificate.not_valid_after_utc)}; the former is believed on"
            await self._events.emit(issuer, "Normal", "Rotated", note)
        status = issuer_status(issuer, ca, now)
        if await self._apply(IDENTITY_ISSUERS, issuer, status):
            ready = next(item for item in status["conditions"] if item["type"] == "Ready")
            if ready["reason"] in _WARNED:
                await self._events.emit(issuer, "Warning", ready["reason"], ready["message"])

    async def _device(self, device: dict[str, Any], count: int, now: datetime) -> None:
        pool = self._cluster.pool(device["spec"]["poolRef"]["name"])
        conflict = device_conflict(device, self._cluster.neighbours(device), pool)
        status = device_status(device, pool=pool, instances=count, conflict=conflict, now=now)
        await self._apply(DEVICES, device, status)

    async def _instance(self, instance: dict[str, Any], devices: dict[str, dict[str, Any]], now: datetime) -> None:
        device = devices.get(instance["spec"]["deviceRef"]["name"])
        pool = None if device is None else self._cluster.pool(device["spec"]["poolRef"]["name"])
        await self._apply(AGENT_INSTANCES, instance, instance_status(instance, device=device, pool=pool, now=now))

    async def _apply(self, resource: Resource, found: dict[str, Any], status: dict[str, Any]) -> bool:
        """Apply a status if it says something new; whether it did. A stale copy is left to the next pass."""
        present = found.get("status") or {}
        if all(_covers(present.get(name), value) for name, value in status.items()):
            return False
        try:
            await apply_status(self._cluster.kube, resource, found, status)
        except (Conflict, NotFound):
            self._wake.set()
            return False
        except KubeError as error:
            _LOG.warning("a status was not taken", kind=resource.kind, name=found["metadata"]["name"], error=str(error))
            return False
        return True

    def _changed(self, resource: Resource, _kind: str, _found: dict[str, Any]) -> None:
        if resource not in (NAMESPACES, AGENT_IDENTITIES):
            self._wake.set()


def issuer_status(issuer: dict[str, Any], ca: CertificateAuthority | CaError, now: datetime) -> dict[str, Any]:
    """Return the whole status of an IdentityIssuer (crds.md 3.1)."""
    generation = issuer["metadata"].get("generation", 0)
    conditions = [item for item in (issuer.get("status") or {}).get("conditions") or [] if item["type"] == "Ready"]
    if isinstance(ca, CaError):
        conditions = set_condition(conditions, "Ready", "False", ca.reason, ca.message, generation, now)
        return {"observedGeneration": generation, "conditions": conditions}
    until = ca.certificate.not_valid_after_utc
    reason = "CAExpiring" if until - now < _SOON else "Ready"
    message = f"the CA is valid until {stamp(until)}"
    return {
        "observedGeneration": generation,
        "trustBundle": ca.bundle,
        "trustBundleSHA256": f"sha256:{hashlib.sha256(ca.bundle.encode()).hexdigest()}",
        "expirationTime": stamp(until),
        "conditions": set_condition(conditions, "Ready", "True", reason, message, generation, now),
    }


def _covers(present: Any, wanted: Any) -> bool:
    """Tell whether the object says already what is wanted; conditions of other writers beside ours do not count."""
    if isinstance(wanted, list) and isinstance(present, list):
        return all(item in present for item in wanted)
    return bool(present == wanted)
