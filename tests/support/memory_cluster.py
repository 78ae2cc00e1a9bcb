"""A cluster in memory, for the authority: objects, tokens, and the two ways in which production code reads and writes them.

What is written is seen at once by both. The API server's rules that the authority leans on are here: a name is taken once,
an apply with an old resourceVersion is a conflict, an apply takes away what its manager no longer says, and the ServiceAccount
may do what crds.md section 8 says and nothing more.
"""

from __future__ import annotations

import copy
import itertools
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from countersign.kube import Conflict, KubeError, NotFound, Resource, TokenReview

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

OWN_NAMESPACE = "countersign-system"
READ = {"get", "list", "watch"}
RIGHTS: dict[str, set[str]] = {
    "identityissuers": READ,
    "devicepools": READ,
    "devices": READ | {"create"},
    "agentidentities": READ,
    "agentinstances": READ | {"create"},
    "pods": READ,
    "namespaces": READ,
    "tokenreviews": {"create"},
    "identityissuers/status": {"patch"},
    "devices/status": {"patch"},
    "agentinstances/status": {"patch"},
}
"""The authority's row of crds.md section 8, in the words of RBAC."""
OWN_RIGHTS: dict[str, set[str]] = {
    "secrets": READ | {"create", "update"},
    "configmaps": READ | {"create", "update", "patch"},
}

Objects = list[dict[str, Any]]


class MemoryCluster:
    """The API server's state. ``kube`` and ``cache`` are the authority's two views, ``events`` what people would see."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str | None, str], dict[str, Any]] = {}
        self.tokens: dict[str, TokenReview] = {}
        self.down = False
        self.calls: list[tuple[str, str]] = []
        self.before: dict[tuple[str, str], Callable[[], None]] = {}
        """By verb and resource: what happens just before such a call, once."""
        self._versions = itertools.count(1)
        self._applied: dict[tuple[str, str | None, str, str], dict[str, Any]] = {}
        self.kube = MemoryKube(self)
        self.cache = MemoryCache(self)
        self.events = MemoryEvents()

    def put(self, resource: Resource, obj: dict[str, Any]) -> dict[str, Any]:
        """Make or replace an object as a person would; the status is kept unless it is given."""
        key = self.key(resource, obj["metadata"]["name"], obj["metadata"].get("namespace"))
        old = self.objects.get(key)
        new = {"apiVersion": resource.api_version, "kind": resource.kind, **copy.deepcopy(obj)}
        meta = new["metadata"]
        meta.setdefault("uid", old["metadata"]["uid"] if old else f"uid-{resource.kind.lower()}-{meta['name']}")
        meta["generation"] = old["metadata"]["generation"] + 1 if old else 1
        meta.setdefault("creationTimestamp", "2026-11-24T11:00:00Z")
        if old is not None and "status" in old:
            new.setdefault("status", old["status"])
        return self._store(resource, key, new, "MODIFIED" if old else "ADDED")

    def edit(self, resource: Resource, name: str, namespace: str | None = None, **spec: Any) -> dict[str, Any]:
        """Change members of an object's spec."""
        found = copy.deepcopy(self.objects[self.key(resource, name, namespace)])
        found["spec"] = {k: v for k, v in (found["spec"] | spec).items() if v is not None}
        return self.put(resource, found)

    def drop(self, resource: Resource, name: str, namespace: str | None = None) -> None:
        """Delete an object."""
        gone = self.objects.pop(self.key(resource, name, namespace))
        self.cache.tell(resource, "DELETED", gone)

    def going(self, resource: Resource, name: str, namespace: str | None = None) -> None:
        """Begin the deletion of an object that something still holds."""
        found = copy.deepcopy(self.objects[self.key(resource, name, namespace)])
        found["metadata"]["deletionTimestamp"] = "2026-11-24T12:00:00Z"
        self.put(resource, found)

    def find(self, resource: Resource, name: str, namespace: str | None = None) -> dict[str, Any]:
        """Return an object."""
        return self.objects[self.key(resource, name, namespace)]

    def all(self, resource: Resource) -> Objects:
        """Return the objects of a kind."""
        return [obj for (plural, _, _), obj in self.objects.items() if plural == resource.plural]

    @staticmethod
    def key(resource: Resource, name: str, namespace: str | None) -> tuple[str, str | None, str]:
        return resource.plural, namespace if resource.namespaced else None, name

    def apply_status(self, resource: Resource, body: dict[str, Any], manager: str) -> dict[str, Any]:
        """Apply a status: what this manager said before and no longer says goes away; conditions merge by type."""
        meta = body["metadata"]
        key = self.key(resource, meta["name"], meta.get("namespace"))
        found = self.objects.get(key)
        if found is None:
            raise NotFound(f"{meta['name']} not found")
        for name in ("uid", "resourceVersion"):
            if name in meta and meta[name] != found["metadata"][name]:
                raise Conflict(f"{meta['name']}: {name} is another")
        before = self._applied.get((*key, manager), {})
        status = {k: v for k, v in (found.get("status") or {}).items() if k not in before or k == "conditions"}
        mine = {one["type"] for one in before.get("conditions", ())}
        wanted = copy.deepcopy(body["status"])
        named = {one["type"] for one in wanted.get("conditions", ())}
        others = [one for one in status.get("conditions", ()) if one["type"] not in mine | named]
        status |= wanted
        status["conditions"] = others + wanted.get("conditions", [])
        self._applied[(*key, manager)] = wanted
        return copy.deepcopy(self._store(resource, key, found | {"status": status}, "MODIFIED"))

    def _store(
        self, resource: Resource, key: tuple[str, str | None, str], obj: dict[str, Any], kind: str
    ) -> dict[str, Any]:
        kept = copy.deepcopy(obj)
        kept["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[key] = kept
        self.cache.tell(resource, kind, kept)
        return kept


class MemoryKube:
    """``kube.Kube``, as far as the authority calls it, with the rights of its ServiceAccount."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster
        self.clock_skew: float | None = None

    async def aclose(self) -> None:
        """Nothing is open."""

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> dict[str, Any]:
        self._ask("get", resource.plural, namespace)
        resource.path(name, namespace)
        found = self._cluster.objects.get(self._cluster.key(resource, name, namespace))
        if found is None:
            raise NotFound(f"{name} not found")
        return copy.deepcopy(found)

    async def list(self, resource: Resource) -> Objects:
        self._ask("list", resource.plural, None)
        return copy.deepcopy(self._cluster.all(resource))

    async def create(self, resource: Resource, body: dict[str, Any]) -> dict[str, Any]:
        meta = body["metadata"]
        self._ask("create", resource.plural, meta.get("namespace"))
        key = self._cluster.key(resource, meta["name"], meta.get("namespace"))
        if key in self._cluster.objects:
            raise Conflict(f"{meta['name']} already exists")
        return copy.deepcopy(self._cluster.put(resource, body))

    async def replace(self, resource: Resource, body: dict[str, Any]) -> dict[str, Any]:
        meta = body["metadata"]
        self._ask("update", resource.plural, meta.get("namespace"))
        key = self._cluster.key(resource, meta["name"], meta.get("namespace"))
        if meta["resourceVersion"] != self._cluster.objects[key]["metadata"]["resourceVersion"]:
            raise Conflict(f"{meta['name']} was changed meanwhile")
        return copy.deepcopy(self._cluster.put(resource, body))

    async def apply_status(self, resource: Resource, body: dict[str, Any], manager: str) -> dict[str, Any]:
        self._ask("patch", f"{resource.plural}/status", body["metadata"].get("namespace"))
        return self._cluster.apply_status(resource, body, manager)

    async def review_token(self, token: str, audiences: Sequence[str]) -> TokenReview:
        self._ask("create", "tokenreviews", None)
        assert list(audiences) == ["countersign.dev"]
        return self._cluster.tokens.get(token, TokenReview(authenticated=False))

    def _ask(self, verb: str, what: str, namespace: str | None) -> None:
        self._cluster.calls.append((verb, what))
        if happens := self._cluster.before.pop((verb, what), None):
            happens()
        if self._cluster.down:
            raise KubeError("the API server does not answer")
        own = OWN_RIGHTS if namespace == OWN_NAMESPACE else {}
        if verb not in RIGHTS.get(what, set()) | own.get(what, set()):
            raise KubeError(f"the authority may not {verb} {what}", status=403, reason="Forbidden")


class MemoryCache:
    """``kube.WatchCache``: everything that is in the cluster, at once, or not at all when a test says so."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster
        self.synced = True
        self.stale_kinds: list[str] = []
        self.hidden: set[str] = set()
        """Plural names of kinds whose news have not come yet."""
        self._indexes: dict[tuple[str, str], Callable[[dict[str, Any]], Iterable[str]]] = {}
        self._callbacks: list[Callable[[Resource, str, dict[str, Any]], None]] = []

    async def start(self) -> None:
        """Nothing is listed: everything is there."""

    async def wait_synced(self) -> None:
        """Everything is there."""

    async def aclose(self) -> None:
        """Nothing is open."""

    def stale(self, max_age_seconds: float) -> list[str]:
        del max_age_seconds
        return [*self.stale_kinds]

    def age(self, resource: Resource) -> float:
        return float("inf") if resource.plural in self.stale_kinds else 0.0

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        if resource.plural in self.hidden:
            return None
        return self._cluster.objects.get(self._cluster.key(resource, name, namespace))

    def list(self, resource: Resource, namespace: str | None = None) -> Objects:
        if resource.plural in self.hidden:
            return []
        return [one for one in self._cluster.all(resource) if namespace in (None, one["metadata"].get("namespace"))]

    def add_index(self, resource: Resource, name: str, fn: Callable[[dict[str, Any]], Iterable[str]]) -> None:
        self._indexes[resource.plural, name] = fn

    def by_index(self, resource: Resource, name: str, value: str) -> Objects:
        fn = self._indexes[resource.plural, name]
        return [one for one in self.list(resource) if value in _values(fn, one)]

    def subscribe(self, callback: Callable[[Resource, str, dict[str, Any]], None]) -> None:
        self._callbacks.append(callback)

    def tell(self, resource: Resource, kind: str, obj: dict[str, Any]) -> None:
        for callback in self._callbacks:
            callback(resource, kind, obj)


def _values(fn: Callable[[dict[str, Any]], Iterable[str]], obj: dict[str, Any]) -> list[str]:
    """What an index says of an object; as in the real cache, one that cannot be read is not found by it."""
    try:
        return [*fn(obj)]
    except (KeyError, TypeError, AttributeError, IndexError):
        return []


class MemoryEvents:
    """``kube.EventRecorder``: what would be told, by kind and name of the object."""

    def __init__(self) -> None:
        self.told: dict[str, list[tuple[str, str, str]]] = defaultdict(list)

    async def emit(self, about: dict[str, Any], type: str, reason: str, note: str) -> None:  # noqa: A002 - the recorder's name for it
        self.told[f"{about['kind']}/{about['metadata']['name']}"].append((type, reason, note))

    def reasons(self, about: str) -> list[str]:
        """Return the reasons told of one object, in order."""
        return [reason for _, reason, _ in self.told[about]]
