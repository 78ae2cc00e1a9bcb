"""What the process is made of, put together once and taken apart at the end. kopf gets the same object as memo."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

import structlog

from countersign.clock import SystemClock, skew_fault
from countersign.controller.keys import WATCHED
from countersign.controller.material import MANAGER, Material
from countersign.controller.metrics import OperatorMetrics
from countersign.controller.pools import device_news
from countersign.controller.reconcile import Reconciler
from countersign.controller.servers import Audiences
from countersign.controller.slim import slim
from countersign.controller.view import View
from countersign.kube import DEVICES, SERVICE_ACCOUNTS, EventRecorder, Kube, KubeError, Leader, Resource

if TYPE_CHECKING:
    from countersign.controller.plan import Notice
    from countersign.controller.settings import OperatorSettings

__all__ = ["LEASE", "ProcessContext"]

LEASE: Final = "countersign-operator"
ACCOUNT: Final = "countersign-operator"
_RESYNC: Final = 300.0
_RETRY: Final = 2.0
_WAITING: Final = 256
_LOG: Final = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ProcessContext:
    """The parts of a running operator."""

    settings: OperatorSettings
    kube: Kube
    view: View
    material: Material
    reconciler: Reconciler
    events: EventRecorder
    leader: Leader
    metrics: OperatorMetrics
    complete: asyncio.Event = field(default_factory=asyncio.Event)
    _faults: dict[str, str] = field(default_factory=dict, repr=False)
    _notices: asyncio.Queue[Notice] = field(default_factory=lambda: asyncio.Queue(_WAITING), repr=False)

    def __copy__(self) -> Self:
        """Return itself: kopf copies its memo for each object, and there is one process."""
        return self

    @classmethod
    async def from_settings(cls, settings: OperatorSettings) -> ProcessContext:
        """Connect; nothing is asked yet. Raises KubeError if the kubeconfig cannot be used."""
        clock, metrics, view = SystemClock(), OperatorMetrics(), View()
        kube = await Kube.connect(settings.kubeconfig)
        events = EventRecorder(kube, MANAGER)
        material = Material(kube, settings, clock, metrics)
        audiences = Audiences(settings.webhook_url, settings.grants)
        reconciler = Reconciler(kube, view, material, events, audiences, clock, metrics, settings.signer)
        times = settings.lease
        leader = Leader(kube, settings.namespace, LEASE, times.seconds, times.deadline_seconds, times.retry_seconds)
        kube.fence = leader.require
        return cls(settings, kube, view, material, reconciler, events, leader, metrics)

    async def aclose(self) -> None:
        """Close the connection."""
        await self.kube.aclose()

    def seen(self, resource: Resource, type: str | None, found: dict[str, Any]) -> None:  # noqa: A002 - kopf's name
        """Take one event of a watch: remember the object, and let wait what it touches."""
        found = slim(resource, found)
        meta = found["metadata"]
        before = self.view.get(resource, meta["name"], meta.get("namespace"))
        if type == "DELETED":
            if self.view.drop(resource, found):
                self._touch(resource, None, found)
            return
        if self.view.put(resource, found):
            self._touch(resource, before, found)
            if resource is DEVICES and before is not None and self.leader.leading:
                self._tell(device_news(before, found))

    async def resync(self) -> None:
        """List everything now and then, until cancelled: what a broken watch missed is found here."""
        while True:
            for resource in WATCHED:
                await self._list(resource)
            if not self._faults:
                self.complete.set()
            await asyncio.sleep(_RETRY if self._faults else _RESYNC)

    async def lead(self) -> None:
        """Wait until the view is complete, then do the leader's work whenever the Lease is ours, until cancelled."""
        await self.complete.wait()
        self.leader.owner = self._account()
        await self.leader.run(self._work)

    def _account(self) -> dict[str, Any] | None:
        """Refer to our own ServiceAccount: the Lease goes with it when the release is uninstalled."""
        found = self.view.get(SERVICE_ACCOUNTS, ACCOUNT, self.settings.namespace)
        if found is None:
            return None
        kind = {"apiVersion": SERVICE_ACCOUNTS.api_version, "kind": SERVICE_ACCOUNTS.kind}
        return {**kind, "name": ACCOUNT, "uid": found["metadata"]["uid"]}

    def faults(self) -> list[str]:
        """Return why this process is not ready; nothing if it is. A replica that waits for its turn is ready."""
        faults = [f"list of {plural}: {why}" for plural, why in self._faults.items()]
        if not self.complete.is_set() and not faults:
            faults.append("first lists")
        if self.leader.leading and not self.material.ready:
            why = f": {self.material.fault}" if self.material.fault else ""
            faults.append(f"serving certificates and token keys{why}")
        if (fault := skew_fault(self.kube.clock_skew, "the API server")) is not None:
            faults.append(fault)
        self.metrics.skew.labels("api_server").set(self.kube.clock_skew or 0.0)
        self.metrics.ready.set(not faults)
        self.metrics.leading.set(self.leader.leading)
        if not self.leader.leading:
            self.metrics.forget()
        return faults

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.reconciler.run(), name="reconciler")
            group.create_task(self._emit(), name="notices")

    async def _emit(self) -> None:
        while True:
            notice = await self._notices.get()
            await self.events.emit(notice.regarding, notice.type, notice.reason, notice.note, once=notice.once)

    async def _list(self, resource: Resource) -> None:
        try:
            objects, version = await self.kube.list_version(resource, keep=partial(slim, resource))
        except KubeError as error:
            if self._faults.get(resource.plural) != str(error):
                _LOG.warning("list failed", kind=resource.kind, error=str(error))
            self._faults[resource.plural] = str(error)
            return
        self._faults.pop(resource.plural, None)
        for found in self.view.replace(resource, objects, version):
            self._touch(resource, None, found)

    def _touch(self, resource: Resource, before: dict[str, Any] | None, after: dict[str, Any]) -> None:
        """Let wait what a change touches. A replica that does not lead looks at everything when it does."""
        if self.leader.leading:
            self.reconciler.touch(resource, before, after)

    def _tell(self, notices: list[Notice]) -> None:
        for notice in notices:
            if not self._notices.full():
                self._notices.put_nowait(notice)
