"""From a key to what is written: look, plan, write what differs. One coroutine, so that nobody undoes another's write.

Level-triggered: a key says only *which* object; what to do follows from how everything is when its turn comes. A key that
fails comes again, later each time; and what ends without an event, like certificates and roots, is looked at anew every few
seconds, everything now and then.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import structlog

from countersign.controller.identities import NO_SIGNER, plan_identity, plan_pod
from countersign.controller.instances import plan_instance
from countersign.controller.keys import COUNTING, PLANNED, TIMED, Key, KeyQueue, key_of, touched
from countersign.controller.material import MANAGER, Material
from countersign.controller.policies import plan_policy
from countersign.controller.pools import plan_pool
from countersign.controller.servers import Audiences, plan_server
from countersign.controller.serving import Unusable
from countersign.controller.view import View
from countersign.kube import (
    AGENT_IDENTITIES,
    AGENT_INSTANCES,
    CLUSTER_TOOL_POLICIES,
    DEVICE_POOLS,
    DEVICES,
    NAMESPACES,
    PODS,
    TOOL_POLICIES,
    TOOL_SERVERS,
    Conflict,
    EventRecorder,
    Kube,
    KubeError,
    NotFound,
    Resource,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from countersign.clock import Clock
    from countersign.controller.metrics import OperatorMetrics
    from countersign.controller.plan import Plan
    from countersign.kube.injection import InjectionSettings

__all__ = ["Reconciler", "differs"]

_EVERY: Final = 15.0
_EVERYTHING_EVERY: Final = 300.0
_SOON: Final = 2.0
_MOMENT: Final = 0.5
_FIRST_DELAY: Final = 0.25
_LAST_DELAY: Final = 30.0
_LOG: Final = structlog.get_logger(__name__)


class Reconciler:
    """The leader's work: :meth:`run` until cancelled."""

    def __init__(
        self,
        kube: Kube,
        view: View,
        material: Material,
        events: EventRecorder,
        audiences: Audiences,
        clock: Clock,
        metrics: OperatorMetrics,
        signer: InjectionSettings = NO_SIGNER,
    ) -> None:
        """Keep the parts; nothing runs yet. ``signer`` is what the webhook injects."""
        self._kube = kube
        self._view = view
        self._material = material
        self._events = events
        self._clock = clock
        self._metrics = metrics
        self._signer = signer
        self._failures: dict[Key, int] = {}
        self._later: set[asyncio.TimerHandle] = set()
        self._soon: set[Key] = set()
        self.queue = KeyQueue()
        self._planners: dict[Resource, Callable[[dict[str, Any], View, datetime], Plan]] = {
            AGENT_IDENTITIES: lambda found, seen, now: plan_identity(found, seen, now, signer),
            AGENT_INSTANCES: lambda found, seen, now: plan_instance(found, seen, now, signer),
            DEVICE_POOLS: plan_pool,
            TOOL_SERVERS: lambda found, seen, now: plan_server(found, seen, now, audiences),
            TOOL_POLICIES: plan_policy,
            CLUSTER_TOOL_POLICIES: plan_policy,
            PODS: lambda found, seen, now: plan_pod(found, seen, now, signer),
        }

    async def run(self) -> None:
        """Look at everything, then at what changes, until cancelled. The view must be complete by now."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._consume(), name="reconcile")
                group.create_task(self._tick(), name="material")
        finally:
            for handle in self._later:
                handle.cancel()
            self._later.clear()
            self._soon.clear()

    async def look(self, key: Key) -> None:
        """Look at one object. Raises KubeError."""
        found = self._view.get(key.resource, key.name, key.namespace)
        if found is None or found["metadata"].get("deletionTimestamp") is not None:
            return
        if key.resource is NAMESPACES:
            await self._material.trust(found)
            return
        plan = self._planners[key.resource](found, self._view, self._clock.now())
        if plan.delete or plan.revoke is not None:
            found, plan = await self._certain(found)
            if plan.delete:
                await self._delete(found)
                return
            if plan.revoke is not None:
                found = await self._revoke(found, plan.revoke)
        written = plan.status is not None and differs(found, plan.status, shared=key.resource is AGENT_INSTANCES)
        if plan.status is not None and written:
            await self._write(key.resource, found, plan.status)
        self._metrics.looks.labels(key.resource.kind, "written" if written else "same").inc()
        for notice in plan.notices:
            await self._events.emit(notice.regarding, notice.type, notice.reason, notice.note, once=notice.once)

    async def _consume(self) -> None:
        while True:
            key = await self.queue.take()
            self._metrics.waiting.set(len(self.queue))
            # A look that writes nothing never waits: the Lease must be renewed and watches read between two of them.
            await asyncio.sleep(0)
            try:
                await self.look(key)
            except NotFound:
                self._failures.pop(key, None)  # gone meanwhile, which the watch will say too
            except Conflict:
                self._again(key)
            except KubeError as error:
                _LOG.warning("not written", kind=key.resource.kind, name=key.name, error=str(error))
                self._again(key)
            except Exception:  # noqa: BLE001 - an object that nobody thought of must not keep the others waiting
                _LOG.exception("a look failed", kind=key.resource.kind, namespace=key.namespace, name=key.name)
                self._again(key)
            else:
                self._failures.pop(key, None)

    async def _tick(self) -> None:
        """Rotate what is due and look again at what ends without an event, every few seconds; now and then at everything."""
        last = float("-inf")
        while True:
            try:
                await self._material.refresh()
            except (KubeError, Unusable) as error:
                _LOG.warning("certificates and keys are not as they should be", error=str(error))
                wait = _SOON
            except Exception:  # noqa: BLE001 - the next pass must come
                _LOG.exception("a pass over certificates and keys failed")
                wait = _SOON
            else:
                wait = min(_EVERY, self._material.pace)
            due = self._clock.monotonic() - last >= _EVERYTHING_EVERY
            last = self._clock.monotonic() if due else last
            self.all_of(PLANNED if due else TIMED)
            await asyncio.sleep(wait)

    def touch(
        self, resource: Resource, before: dict[str, Any] | None, after: dict[str, Any], *, itself: bool = True
    ) -> None:
        """Let wait what hangs on an object that went from ``before`` to ``after``, and the object ``itself``."""
        own = key_of(resource, after)
        for key in touched(resource, before, after, self._view):
            if key == own:
                if itself:
                    self.queue.add(key)
            elif key.resource in COUNTING:
                self._look_later(key)  # what only counts others is counted once for all that changes in a moment
            else:
                self.queue.add(key)

    def _look_later(self, key: Key) -> None:
        """Let ``key`` wait for its turn in a moment: whatever touches it until then is looked at together."""
        if key in self._soon:
            return
        self._soon.add(key)

        def come() -> None:
            self._later.discard(handle)
            self._soon.discard(key)
            self.queue.add(key)

        handle = asyncio.get_running_loop().call_later(_MOMENT, come)
        self._later.add(handle)

    def all_of(self, resources: Iterable[Resource]) -> None:
        """Let every object of these kinds wait for its turn."""
        for resource in resources:
            for found in self._view.list(resource):
                self.queue.add(key_of(resource, found))

    async def _certain(self, instance: dict[str, Any]) -> tuple[dict[str, Any], Plan]:
        """Plan again with what the API server says now: Revoked is final, and a watch may lag behind.

        Raises NotFound if the instance itself is gone.
        """
        meta, spec = instance["metadata"], instance["spec"]
        live = await self._kube.get(AGENT_INSTANCES, meta["name"], meta["namespace"])
        seen = View()
        named = [(AGENT_IDENTITIES, spec["agentRef"], meta["namespace"]), (DEVICES, spec["deviceRef"], None)]
        if "pod" in spec:
            named.append((PODS, spec["pod"], meta["namespace"]))
        for resource, ref, namespace in named:
            with suppress(NotFound):
                seen.put(resource, await self._kube.get(resource, ref["name"], namespace))
        return live, plan_instance(live, seen, self._clock.now(), self._signer)

    async def _revoke(self, instance: dict[str, Any], reason: str) -> dict[str, Any]:
        """Set the state for good, of the very version that was looked at."""
        meta = instance["metadata"]
        patch = {
            "metadata": {"resourceVersion": meta["resourceVersion"]},
            "spec": {"state": "Revoked", "stateReason": reason},
        }
        revoked = await self._kube.patch(AGENT_INSTANCES, meta["name"], patch, meta["namespace"])
        self._metrics.revocations.labels(reason.partition(":")[0]).inc()
        _LOG.info("revoked", namespace=meta["namespace"], instance=meta["name"], reason=reason)
        return revoked

    async def _delete(self, instance: dict[str, Any]) -> None:
        meta = instance["metadata"]
        await self._kube.delete(AGENT_INSTANCES, meta["name"], meta["namespace"], uid=meta["uid"])
        _LOG.info("leftover deleted", namespace=meta["namespace"], instance=meta["name"])

    async def _write(self, resource: Resource, found: dict[str, Any], status: dict[str, Any]) -> None:
        """Apply a status to the very version that was looked at."""
        meta = found["metadata"]
        target = {name: meta[name] for name in ("name", "namespace", "uid", "resourceVersion") if name in meta}
        body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": target, "status": status}
        if self._view.put(resource, await self._kube.apply_status(resource, body, MANAGER)):
            # The watch will bring what is known by then, and so touch nobody.
            after = self._view.get(resource, meta["name"], meta.get("namespace"))
            self.touch(resource, found, after or found, itself=False)

    def _again(self, key: Key) -> None:
        """Let a key that failed wait, twice as long each time."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        self._metrics.looks.labels(key.resource.kind, "failed").inc()
        delay = min(_FIRST_DELAY * 2 ** (failures - 1), _LAST_DELAY)

        def come() -> None:
            self._later.discard(handle)
            self.queue.add(key)

        handle = asyncio.get_running_loop().call_later(delay, come)
        self._later.add(handle)


def differs(found: dict[str, Any], status: dict[str, Any], *, shared: bool) -> bool:
    """Tell whether the object does not say yet what ``status`` says.

    A ``shared`` status has another writer too: what is there beside ours is that one's.
    """
    present = found.get("status") or {}
    for name, value in status.items():
        if name == "conditions":
            there = present.get(name) or []
            if not all(one in there for one in value) or (not shared and len(there) != len(value)):
                return True
        elif present.get(name) != value:
            return True
    return not shared and set(present) != set(status)
