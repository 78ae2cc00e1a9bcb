"""The objects of one kind as last seen, with the indexes that somebody asked for. Pure: no network, no time."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

__all__ = ["Index", "Store"]

# The method ``list`` hides the type of that name inside the class.
_Objects = list[dict[str, Any]]
_Change = tuple[str, dict[str, Any]]
_Changes = list[tuple[str, dict[str, Any]]]
_Key = tuple[str | None, str]


class Index:
    """Keys by what ``fn`` says of each object; an object of which it cannot say anything is in no index."""

    def __init__(self, fn: Callable[[dict[str, Any]], Iterable[str]]) -> None:
        """Start empty."""
        self._fn = fn
        self._keys: defaultdict[str, dict[_Key, None]] = defaultdict(dict)
        self._values: dict[_Key, list[str]] = {}

    def put(self, key: _Key, obj: dict[str, Any]) -> None:
        """Take in what ``key`` is now."""
        self.drop(key)
        try:
            values = list(self._fn(obj))
        except (KeyError, TypeError, AttributeError, IndexError):
            values = []
        self._values[key] = values
        for value in values:
            self._keys[value][key] = None

    def drop(self, key: _Key) -> None:
        """Forget ``key``."""
        for value in self._values.pop(key, []):
            keys = self._keys[value]
            keys.pop(key, None)
            if not keys:
                del self._keys[value]

    def find(self, value: str) -> Collection[_Key]:
        """Return the keys of a value, the one that came first in front."""
        return self._keys.get(value, {})

    def values(self) -> Collection[str]:
        """Return the values that have keys."""
        return self._keys


class Store:
    """Objects by namespace and name. What goes in is what comes out: nobody changes it."""

    def __init__(self) -> None:
        """Start empty."""
        self._objects: dict[str | None, dict[str, dict[str, Any]]] = {}
        self._indexes: dict[str, Index] = {}

    def get(self, name: str, namespace: str | None) -> dict[str, Any] | None:
        """Return one object, or None."""
        return self._objects.get(namespace, {}).get(name)

    def list(self, namespace: str | None) -> _Objects:
        """Return the objects of a namespace, or all."""
        if namespace is None:
            return [obj for objects in self._objects.values() for obj in objects.values()]
        return list(self._objects.get(namespace, {}).values())

    def add_index(self, name: str, fn: Callable[[dict[str, Any]], Iterable[str]]) -> None:
        """Keep an index from now on, of what is here already too."""
        index = Index(fn)
        for key, obj in self._all():
            index.put(key, obj)
        self._indexes[name] = index

    def by_index(self, name: str, value: str) -> _Objects:
        """Return the objects for which the index's function gave ``value``. Raises ``KeyError`` for no such index."""
        found = (self.get(key[1], key[0]) for key in self._indexes[name].find(value))
        return [obj for obj in found if obj is not None]

    def put(self, obj: dict[str, Any]) -> _Change | None:
        """Take an object in; return the change, or None if this very version is here."""
        key = _key_of(obj)
        old = self.get(key[1], key[0])
        if old is not None and _version(old) == _version(obj):
            return None
        self._objects.setdefault(key[0], {})[key[1]] = obj
        for index in self._indexes.values():
            index.put(key, obj)
        return ("ADDED" if old is None else "MODIFIED"), obj

    def drop(self, obj: dict[str, Any]) -> _Change | None:
        """Take an object out; return the change, or None if it was not here."""
        return self._drop(_key_of(obj))

    def replace(self, items: Iterable[dict[str, Any]]) -> _Changes:
        """Make the store equal to a fresh list; return the changes, deletions first."""
        fresh = {_key_of(obj): obj for obj in items}
        gone = [key for key, _ in self._all() if key not in fresh]
        changes = [self._drop(key) for key in gone] + [self.put(obj) for obj in fresh.values()]
        return [change for change in changes if change is not None]

    def _drop(self, key: _Key) -> _Change | None:
        namespace, name = key
        objects = self._objects.get(namespace, {})
        old = objects.pop(name, None)
        if old is None:
            return None
        if not objects:
            del self._objects[namespace]
        for index in self._indexes.values():
            index.drop(key)
        return "DELETED", old

    def _all(self) -> Iterator[tuple[_Key, dict[str, Any]]]:
        for namespace, objects in self._objects.items():
            for name, obj in objects.items():
                yield (namespace, name), obj


def _key_of(obj: dict[str, Any]) -> _Key:
    meta = obj["metadata"]
    return meta.get("namespace"), meta["name"]


def _version(obj: dict[str, Any]) -> tuple[Any, Any]:
    meta = obj["metadata"]
    return meta.get("uid"), meta.get("resourceVersion")
