"""Where the front door reads the cluster: the port, and its twin in memory. The real one is ``kube.WatchCache``."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from countersign.kube import Resource

__all__ = ["MemorySource", "PolicySource"]

# The method ``list`` hides the type of that name inside the classes.
_Objects = list[dict[str, Any]]
_Names = list[str]


class PolicySource(Protocol):
    """The cluster as last seen. Objects are plain dicts as the API server stores them; nobody changes them."""

    @property
    def synced(self) -> bool:
        """Whether everything was listed once."""

    def stale(self, max_age_seconds: float) -> _Names:
        """Return the kinds without contact for longer than ``max_age_seconds``."""

    def age(self, r: Resource) -> float:
        """Return the seconds since the last contact about a kind."""

    def get(self, r: Resource, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """Return one object, or None."""

    def list(self, r: Resource, namespace: str | None = None) -> _Objects:
        """Return all objects of a kind."""

    def add_index(self, r: Resource, name: str, fn: Callable[[dict[str, Any]], Iterable[str]]) -> None:
        """Keep an index of a kind by what ``fn`` says of each object."""

    def by_index(self, r: Resource, name: str, value: str) -> _Objects:
        """Return the objects for which ``fn`` gave ``value``."""

    def subscribe(self, callback: Callable[[Resource, str, dict[str, Any]], None]) -> None:
        """Call ``callback(resource, type, object)`` after each change."""


class MemorySource:
    """The twin: what a test puts in is what is seen, at once."""

    def __init__(self) -> None:
        """Start empty, synced and fresh."""
        self.synced = True
        self.stale_kinds: _Names = []
        self._objects: dict[str, dict[tuple[str | None, str], dict[str, Any]]] = defaultdict(dict)
        self._indexes: dict[tuple[str, str], Callable[[dict[str, Any]], Iterable[str]]] = {}
        self._callbacks: list[Callable[[Resource, str, dict[str, Any]], None]] = []

    def put(self, r: Resource, obj: Mapping[str, Any]) -> None:
        """Create or replace one object."""
        meta = obj["metadata"]
        kept = dict(obj)
        self._objects[r.plural][meta.get("namespace"), meta["name"]] = kept
        self._tell(r, "MODIFIED", kept)

    def drop(self, r: Resource, name: str, namespace: str | None = None) -> None:
        """Delete one object."""
        gone = self._objects[r.plural].pop((namespace, name))
        self._tell(r, "DELETED", gone)

    def stale(self, max_age_seconds: float) -> _Names:
        """Return what the test said is stale."""
        del max_age_seconds
        return [*self.stale_kinds]

    def age(self, r: Resource) -> float:
        """Return no time, or for ever for what the test said is stale."""
        return float("inf") if r.plural in self.stale_kinds else 0.0

    def get(self, r: Resource, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """Return one object, or None."""
        return self._objects[r.plural].get((namespace, name))

    def list(self, r: Resource, namespace: str | None = None) -> _Objects:
        """Return all objects of a kind, or of a kind in a namespace."""
        return [o for (ns, _), o in self._objects[r.plural].items() if namespace is None or ns == namespace]

    def add_index(self, r: Resource, name: str, fn: Callable[[dict[str, Any]], Iterable[str]]) -> None:
        """Keep the function; the twin looks through everything."""
        self._indexes[r.plural, name] = fn

    def by_index(self, r: Resource, name: str, value: str) -> _Objects:
        """Return the objects for which the index's function gave ``value``."""
        fn = self._indexes[r.plural, name]
        return [o for o in self._objects[r.plural].values() if value in fn(o)]

    def subscribe(self, callback: Callable[[Resource, str, dict[str, Any]], None]) -> None:
        """Call ``callback`` on each ``put`` and ``drop``."""
        self._callbacks.append(callback)

    def _tell(self, r: Resource, kind: str, obj: dict[str, Any]) -> None:
        for callback in self._callbacks:
            callback(r, kind, obj)
