"""Objects as the API server stores them, and an API server in memory that is just enough for the operator's writes."""

from __future__ import annotations

import asyncio
import copy
import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from countersign import kube
from countersign.kube import Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
OPTED_IN = {"countersign.dev/injection": "enabled"}


def obj(
    resource: kube.Resource, name: str, spec: Any = None, namespace: str | None = None, **more: Any
) -> dict[str, Any]:
    """An object; ``more`` goes to metadata, but for ``status``, ``data`` and the like."""
    meta: dict[str, Any] = {
        "name": name,
        "uid": f"uid-{name}",
        "generation": 1,
        "creationTimestamp": "2026-11-24T10:00:00Z",
    }
    if namespace is not None:
        meta["namespace"] = namespace
    found: dict[str, Any] = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta}
    if spec is not None:
        found["spec"] = spec
    for key, value in more.items():
        (found if key in ("status", "data", "webhooks", "type") else meta)[key] = value
    return found


def ready(reason: str = "Ready", *, kind: str = "Ready", status: str = "True", message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": status, "reason": reason, "message": message}]}


def namespace(name: str = "billing", labels: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    every = {"kubernetes.io/metadata.name": name, **(OPTED_IN if labels is None else labels)}
    return obj(kube.NAMESPACES, name, labels=every, **more)


def issuer(name: str = "default", **spec: Any) -> dict[str, Any]:
    more = {key: spec.pop(key) for key in ("status", "creationTimestamp", "deletionTimestamp") if key in spec}
    more.setdefault("status", ready())
    return obj(kube.IDENTITY_ISSUERS, name, {"trustDomain": "agents.example.com", "type": "Embedded", **spec}, **more)


def account(name: str = "refund-agent", where: str = "billing") -> dict[str, Any]:
    return obj(kube.SERVICE_ACCOUNTS, name, None, where)


def identity(name: str = "refund-agent", where: str = "billing", **spec: Any) -> dict[str, Any]:
    return obj(kube.AGENT_IDENTITIES, name, {"serviceAccountName": "refund-agent", **spec}, where)


def pod(name: str = "refund-1", where: str = "billing", *, signer: bool = True, **more: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "serviceAccountName": "refund-agent",
        "nodeName": "worker-1",
        "containers": [{"name": "agent", "image": more.pop("image", "agent:1")}],
    }
    if signer:
        spec["initContainers"] = [{"name": "countersign-signer", "image": "countersign:1"}]
    more.setdefault("labels", {"app": "refund-agent"})
    more.setdefault("status", {"phase": "Running", **ready()})
    return obj(kube.PODS, name, spec, where, **more)


def pool(name: str = "racks", **spec: Any) -> dict[str, Any]:
    return obj(kube.DEVICE_POOLS, name, {"assurance": "Software", **spec})


def device(name: str = "worker-1", **spec: Any) -> dict[str, Any]:
    more = {key: spec.pop(key) for key in ("status", "uid", "deletionTimestamp") if key in spec}
    binding = {"type": "Node", "node": {"name": name}}
    every = {"poolRef": {"name": "racks"}, "binding": binding, "state": "Approved", **spec}
    return obj(kube.DEVICES, name, every, **more)


def instance(name: str = "refund-agent-7f9c4", **spec: Any) -> dict[str, Any]:
    more = {key: spec.pop(key) for key in ("status", "deletionTimestamp") if key in spec}
    attested = ready("Attested", kind="Attested", message="attested under pool racks")
    more.setdefault("status", {"certificate": {"notAfter": "2026-11-24T13:00:00Z"}, **attested})
    every = {
        "agentRef": {"name": "refund-agent", "uid": "uid-refund-agent"},
        "deviceRef": {"name": "worker-1", "uid": "uid-worker-1"},
        "type": "Pod",
        "pod": {"name": "refund-1", "uid": "uid-refund-1", "nodeName": "worker-1"},
        "state": "Active",
        **spec,
    }
    return obj(kube.AGENT_INSTANCES, name, every, "billing", **more)


def server(name: str = "stripe", where: str = "billing", **spec: Any) -> dict[str, Any]:
    more = {key: spec.pop(key) for key in ("creationTimestamp", "deletionTimestamp", "status") if key in spec}
    tools = [{"name": "get_charge", "access": "ReadOnly", "inputSchema": {"type": "object"}}]
    every = {"audience": "https://tools.billing.svc/stripe", "protocol": "MCP", "tools": tools, **spec}
    return obj(kube.TOOL_SERVERS, name, every, where, **more)


def rule(name: str = "read", **more: Any) -> dict[str, Any]:
    return {"name": name, "effect": "Allow", "tools": [{"server": {"name": "stripe"}}], **more}


def policy(*rules: dict[str, Any], name: str = "refunds", where: str | None = "billing", **spec: Any) -> dict[str, Any]:
    resource = kube.CLUSTER_TOOL_POLICIES if where is None else kube.TOOL_POLICIES
    return obj(resource, name, {"rules": list(rules), **spec}, where)


RESOURCES = {one.kind: one for one in vars(kube).values() if isinstance(one, kube.Resource)}


class MemoryKube:
    """What ``kube.Kube`` does, for objects in a dict: versions, conflicts, one manager's server-side apply."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.changed = asyncio.Event()
        self.clock_skew: float | None = None
        self._versions = itertools.count(1)
        for one in objects:
            self.put(one)

    def put(self, found: dict[str, Any]) -> dict[str, Any]:
        """Store an object as if somebody else had written it."""
        self.changed.set()
        kept = copy.deepcopy(found)
        kept["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[_key(RESOURCES[kept["kind"]], kept["metadata"]["name"], kept["metadata"].get("namespace"))] = kept
        return copy.deepcopy(kept)

    def remove(self, found: dict[str, Any]) -> None:
        meta = found["metadata"]
        del self.objects[_key(RESOURCES[found["kind"]], meta["name"], meta.get("namespace"))]

    async def get(self, resource: kube.Resource, name: str, namespace: str | None = None) -> dict[str, Any]:
        try:
            return copy.deepcopy(self.objects[_key(resource, name, namespace)])
        except KeyError:
            raise NotFound(f"get {resource.plural} {name}") from None

    async def list_version(
        self, resource: kube.Resource, *, keep: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], str]:
        found = [keep(copy.deepcopy(one)) for key, one in self.objects.items() if key[0] == resource.plural]
        return found, str(next(self._versions))

    async def create(self, resource: kube.Resource, body: Mapping[str, Any]) -> dict[str, Any]:
        self._call("create", resource, body)
        if _key_of(resource, body) in self.objects:
            raise Conflict("exists")
        return self.put(dict(body))

    async def replace(self, resource: kube.Resource, body: Mapping[str, Any]) -> dict[str, Any]:
        self._call("replace", resource, body)
        self._at_version(resource, body)
        return self.put(dict(body))

    async def apply(self, resource: kube.Resource, body: Mapping[str, Any], manager: str) -> dict[str, Any]:
        self._call("apply", resource, body)
        assert manager == "countersign-operator"
        return self.put({**self.objects.get(_key_of(resource, body), {}), **body})

    async def apply_status(self, resource: kube.Resource, body: Mapping[str, Any], manager: str) -> dict[str, Any]:
        self._call("status", resource, body)
        assert manager == "countersign-operator"
        there = self._at_version(resource, body)
        status, before = body["status"], there.get("status") or {}
        if resource is kube.AGENT_INSTANCES:
            ours = {one["type"] for one in status["conditions"]}
            others = [one for one in before.get("conditions") or [] if one["type"] not in ours]
            status = {**before, "conditions": [*others, *status["conditions"]]}
        return self.put({**there, "status": status})

    async def patch(
        self, resource: kube.Resource, name: str, patch: Any, namespace: str | None = None
    ) -> dict[str, Any]:
        self.calls.append(("patch", resource.kind, name))
        there = await self.get(resource, name, namespace)
        if isinstance(patch, list):
            for one in patch:
                *path, last = [int(step) if step.isdigit() else step for step in one["path"].split("/")[1:]]
                target: Any = there
                for step in path:
                    target = target[step]
                if one["op"] == "test":
                    assert target[last] == one["value"]
                else:
                    target[last] = one["value"]
            return self.put(there)
        if patch["metadata"]["resourceVersion"] != there["metadata"]["resourceVersion"]:
            raise Conflict("other version")
        return self.put({**there, "spec": {**there["spec"], **patch["spec"]}})

    async def delete(
        self, resource: kube.Resource, name: str, namespace: str | None = None, *, uid: str | None = None
    ) -> None:
        self.calls.append(("delete", resource.kind, name))
        there = await self.get(resource, name, namespace)
        if uid is not None and there["metadata"]["uid"] != uid:
            raise Conflict("other uid")
        del self.objects[_key(resource, name, namespace)]

    def _call(self, verb: str, resource: kube.Resource, body: Mapping[str, Any]) -> None:
        self.calls.append((verb, resource.kind, body["metadata"]["name"]))

    def _at_version(self, resource: kube.Resource, body: Mapping[str, Any]) -> dict[str, Any]:
        there = self.objects.get(_key_of(resource, body))
        if there is None:
            raise NotFound("gone")
        if body["metadata"]["resourceVersion"] != there["metadata"]["resourceVersion"]:
            raise Conflict("other version")
        return there


def _key(resource: kube.Resource, name: str, namespace: str | None) -> tuple[str, str, str]:
    return resource.plural, namespace or "", name


def _key_of(resource: kube.Resource, body: Mapping[str, Any]) -> tuple[str, str, str]:
    return _key(resource, body["metadata"]["name"], body["metadata"].get("namespace"))
