"""The cluster as the operator last saw it: what the watches bring, put right by a list now and then.

kopf tells of what happens while it is connected; what was deleted in between is found by :meth:`View.replace`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from countersign.controller.indexes import INDEXES
from countersign.controller.plan import is_going
from countersign.controller.slim import slim
from countersign.kube.store import Index

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from countersign.kube import Resource

__all__ = ["View"]

_Objects = dict[str, dict[str, dict[str, Any]]]
_Name = tuple[str, str]
_Found = list[dict[str, Any]]


class View:
    """Objects by resource, namespace and name, as plain dicts that nobody changes. An older version never wins."""

    def __init__(self) -> None:
        """Know nothing."""
        self._objects: dict[str, _Objects] = {}
        self._gone: dict[str, dict[_Name, int]] = {}
        self._indexes = {one.plural: {name: Index(fn) for name, fn in found.items()} for one, found in INDEXES.items()}

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """Return an object, or None; one that is being deleted is still there."""
        return self._objects.get(resource.plural, {}).get(namespace or "", {}).get(name)

    def list(self, resource: Resource, namespace: str | None = None) -> _Found:
        """Return the objects that are not being deleted, of one namespace or of all."""
        spaces = self._objects.get(resource.plural, {})
        chosen = spaces.values() if namespace is None else [spaces.get(namespace, {})]
        return [one for space in chosen for one in space.values() if one["metadata"].get("deletionTimestamp") is None]

    def by(self, resource: Resource, index: str, value: str) -> _Found:
        """Return the objects that are not being deleted and are found under ``value`` (``indexes.py``)."""
        spaces = self._objects.get(resource.plural, {})
        return [spaces[namespace or ""][name] for namespace, name in self._indexes[resource.plural][index].find(value)]

    def count(self, resource: Resource, index: str, value: str) -> int:
        """Return how many :meth:`by` would."""
        return len(self._indexes[resource.plural][index].find(value))

    def values(self, resource: Resource, index: str) -> Collection[str]:
        """Return the values under which something is found."""
        return self._indexes[resource.plural][index].values()

    def put(self, resource: Resource, found: dict[str, Any]) -> bool:
        """Take what is kept of an object; whether it says something new."""
        found = slim(resource, found)
        namespace, name = _name(found)
        space = self._objects.setdefault(resource.plural, {}).setdefault(namespace, {})
        known = space.get(name)
        if known is not None and (_version(found) < _version(known) or found == known):
            return False
        if _version(found) < self._gone.get(resource.plural, {}).get((namespace, name), 0):
            return False
        space[name] = found
        self._index(resource, (namespace, name), found)
        return True

    def drop(self, resource: Resource, found: dict[str, Any]) -> bool:
        """Forget a deleted object, but not a later one of its name; whether it was known."""
        where = namespace, name = _name(found)
        gone = self._gone.setdefault(resource.plural, {})
        gone[where] = max(gone.get(where, 0), _version(found))
        space = self._objects.get(resource.plural, {}).get(namespace, {})
        known = space.get(name)
        if known is None or known["metadata"].get("uid") != found["metadata"].get("uid"):
            return False
        del space[name]
        self._index(resource, where, None)
        return True

    def replace(self, resource: Resource, objects: Iterable[dict[str, Any]], version: str) -> _Found:
        """Make the view equal to a list made at ``version``; return what is new, other or gone.

        What a watch brought after that version stays: the list knows nothing of it.
        """
        listed = {_name(one): one for one in objects}
        at = int(version) if version.isdigit() else 0
        spaces = self._objects.get(resource.plural, {})
        known = [one for space in spaces.values() for one in space.values()]
        lost = [one for one in known if _name(one) not in listed and _version(one) <= at]
        for one in lost:
            namespace, name = where = _name(one)
            del spaces[namespace][name]
            self._index(resource, where, None)
        fresh = [one for one in listed.values() if self.put(resource, one)]
        gone = self._gone.get(resource.plural, {})
        self._gone[resource.plural] = {name: seen for name, seen in gone.items() if seen > at}
        return fresh + lost

    def _index(self, resource: Resource, where: _Name, found: dict[str, Any] | None) -> None:
        for index in self._indexes.get(resource.plural, {}).values():
            if found is None or is_going(found):
                index.drop(where)
            else:
                index.put(where, found)


def _name(found: dict[str, Any]) -> _Name:
    meta = found["metadata"]
    return meta.get("namespace") or "", meta["name"]


def _version(found: dict[str, Any]) -> int:
    """Return the resourceVersion as the number that it is; an object without one (a test's) is newer than any."""
    text = found["metadata"].get("resourceVersion") or ""
    return int(text) if text.isdigit() else 1 << 63
