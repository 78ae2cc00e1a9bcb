"""List and watch: the cluster as last seen, and for each kind how long ago that was.

One task a kind. A watch is asked to end after ten to fifteen seconds and goes on from where it was, so that a kind's last
contact is never older than that while the API server lives; while it is away the tries grow apart to five seconds.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final

import structlog

from countersign.kube.errors import Gone, KubeError
from countersign.kube.slim import without_bookkeeping
from countersign.kube.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from countersign.clock import Clock
    from countersign.kube.client import Kube
    from countersign.kube.resources import Resource

__all__ = ["WatchCache"]

_LOG: Final = structlog.get_logger(__name__)
_SHORTEST: Final = 10
_LONGEST: Final = 15
# A watch that is ended at once, by a proxy say, is as bad as a broken one: it must not become a loop without a pause.
_TOO_SHORT: Final = 1.0
_FIRST_WAIT: Final = 0.1
_LAST_WAIT: Final = 5.0

# The method ``list`` hides the type of that name inside the class.
_Objects = list[dict[str, Any]]
_Names = list[str]
_Keep = Callable[[dict[str, Any]], dict[str, Any]]


class WatchCache:
    """The front door's port ``PolicySource``, and what every process reads the cluster through.

    Objects are plain dicts with ``apiVersion`` and ``kind``; nobody changes them. All methods but :meth:`start`,
    :meth:`wait_synced` and :meth:`aclose` answer at once, from memory, on the event loop's own thread.
    """

    def __init__(
        self, kube: Kube, resources: Iterable[Resource], *, clock: Clock, keep: Mapping[Resource, _Keep] | None = None
    ) -> None:
        """Follow ``resources`` once started; asking for another kind is a ``KeyError``.

        ``keep`` says for a kind what of each object is kept; of the others, all but the API server's own bookkeeping.
        """
        self._kube = kube
        self._keep = keep or {}
        self._clock = clock
        self._stores = {resource: Store() for resource in resources}
        self._contact: dict[Resource, float] = {}
        self._callbacks: list[Callable[[Resource, str, dict[str, Any]], None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._synced = asyncio.Event()

    async def start(self) -> None:
        """Begin to follow; the first lists are under way when this returns. Raises ``RuntimeError`` the second time."""
        if self._tasks:
            raise RuntimeError("this cache was started before")
        self._tasks = [asyncio.create_task(self._follow(one), name=f"watch {one.plural}") for one in self._stores]

    async def wait_synced(self) -> None:
        """Return when every kind was listed once; put a timeout around it."""
        await self._synced.wait()

    async def aclose(self) -> None:
        """Stop to follow; what was seen stays readable, and grows stale."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task

    @property
    def synced(self) -> bool:
        """Whether every kind was listed once."""
        return self._synced.is_set()

    def stale(self, max_age_seconds: float) -> _Names:
        """Return the plural names of the kinds without contact for longer than ``max_age_seconds``, or never listed."""
        return [one.plural for one in self._stores if self.age(one) > max_age_seconds]

    def age(self, r: Resource) -> float:
        """Return the seconds since the last contact about a kind; infinite before the first."""
        return self._clock.monotonic() - self._contact.get(r, float("-inf"))

    def get(self, r: Resource, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """Return one object, or None."""
        return self._stores[r].get(name, namespace)

    def list(self, r: Resource, namespace: str | None = None) -> _Objects:
        """Return all objects of a kind, or those of one namespace."""
        return self._stores[r].list(namespace)

    def add_index(self, r: Resource, name: str, fn: Callable[[dict[str, Any]], Iterable[str]]) -> None:
        """Keep an index of a kind by what ``fn`` says of each object; one that makes it fail is in no index."""
        self._stores[r].add_index(name, fn)

    def by_index(self, r: Resource, name: str, value: str) -> _Objects:
        """Return the objects for which ``fn`` gave ``value``."""
        return self._stores[r].by_index(name, value)

    def subscribe(self, callback: Callable[[Resource, str, dict[str, Any]], None]) -> None:
        """Call ``callback(resource, type, object)`` after each change: ADDED, MODIFIED or DELETED.

        It must not wait. After a fresh list only the differences are told.
        """
        self._callbacks.append(callback)

    async def _follow(self, resource: Resource) -> None:
        """Keep one kind true until cancelled."""
        version, wait, loop = "", _FIRST_WAIT, asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                if not version:
                    version = await self._list(resource)
                seconds = random.randint(_SHORTEST, _LONGEST)  # noqa: S311 - only spread
                async with aclosing(self._kube.watch(resource, version, seconds)) as events:
                    async for event in events:
                        version, wait = self._take(resource, event) or version, _FIRST_WAIT
                self._touch(resource)
                if loop.time() - began >= _TOO_SHORT:
                    wait = _FIRST_WAIT
                    continue
            except Gone:
                version = ""
            except KubeError as error:
                _LOG.warning("watch.broken", kind=resource.plural, error=str(error), again_in=round(wait, 1))
            except Exception as error:  # noqa: BLE001 - a cache that has stopped to follow would be a cache that lies
                _LOG.exception("watch.failed", kind=resource.plural, error=type(error).__name__)
                version = ""
            await asyncio.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 - only spread
            wait = min(wait * 2, _LAST_WAIT)

    async def _list(self, resource: Resource) -> str:
        items, version = await self._kube.list_version(resource, keep=self._kept(resource))
        changes = self._stores[resource].replace(items)
        self._touch(resource)
        for kind, obj in changes:
            self._tell(resource, kind, obj)
        if len(self._contact) == len(self._stores):
            self._synced.set()
        return version

    def _take(self, resource: Resource, event: dict[str, Any]) -> str | None:
        """Take one event in; return the version that it brings."""
        kind, obj = event["type"], event["object"]
        self._touch(resource)
        store = self._stores[resource]
        change = None
        version: str | None = obj["metadata"].get("resourceVersion")
        if kind in {"ADDED", "MODIFIED"}:
            obj = self._kept(resource)(obj)
            change = store.put(obj)
        elif kind == "DELETED":
            change = store.drop(obj)
        if change is not None:
            self._tell(resource, change[0], obj)
        return version

    def _kept(self, resource: Resource) -> _Keep:
        return self._keep.get(resource, without_bookkeeping)

    def _touch(self, resource: Resource) -> None:
        self._contact[resource] = self._clock.monotonic()

    def _tell(self, resource: Resource, kind: str, obj: dict[str, Any]) -> None:
        for callback in self._callbacks:
            try:
                callback(resource, kind, obj)
            except Exception as error:  # noqa: BLE001 - one listener's bug must not stop the watch
                _LOG.exception("watch.listener", kind=resource.plural, error=type(error).__name__)
