"""Which objects to look at again after a change of one, and the queue in which they wait: once each. Pure but for waiting."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from countersign.controller.plan import condition
from countersign.kube import (
    AGENT_IDENTITIES,
    AGENT_INSTANCES,
    CLUSTER_TOOL_POLICIES,
    DEVICE_POOLS,
    DEVICES,
    IDENTITY_ISSUERS,
    NAMESPACES,
    PODS,
    SERVICE_ACCOUNTS,
    TOOL_POLICIES,
    TOOL_SERVERS,
    Resource,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from countersign.controller.view import View

__all__ = ["PLANNED", "WATCHED", "Key", "KeyQueue", "key_of", "touched"]

PLANNED: Final = (
    AGENT_IDENTITIES,
    AGENT_INSTANCES,
    DEVICE_POOLS,
    TOOL_SERVERS,
    TOOL_POLICIES,
    CLUSTER_TOOL_POLICIES,
    NAMESPACES,
    PODS,
)
"""What is looked at by itself; the rest only moves these."""

WATCHED: Final = (*PLANNED, IDENTITY_ISSUERS, DEVICES, SERVICE_ACCOUNTS)


class Key(NamedTuple):
    """One object, by name: whatever it is when its turn comes."""

    resource: Resource
    namespace: str | None
    name: str


def key_of(resource: Resource, found: dict[str, Any]) -> Key:
    """Return the key of an object."""
    return Key(resource, found["metadata"].get("namespace") or None, found["metadata"]["name"])


def touched(resource: Resource, before: dict[str, Any] | None, after: dict[str, Any], view: View) -> Iterator[Key]:
    """Yield what to look at when an object went from ``before`` (None: new, or gone) to ``after``."""
    if resource in PLANNED:
        yield key_of(resource, after)
    if before is not None and resource in _MEANING and _MEANING[resource](before) == _MEANING[resource](after):
        return  # its status, or something else that says nothing to others
    name = after["metadata"]["name"]
    for kind, one in _dependents(resource, after, view):
        if kind is not AGENT_INSTANCES or name in _names(one):
            yield key_of(kind, one)


_DEPENDENTS: Final[dict[Resource, tuple[Resource, ...]]] = {
    PODS: (AGENT_IDENTITIES, AGENT_INSTANCES),
    SERVICE_ACCOUNTS: (AGENT_IDENTITIES,),
    NAMESPACES: (AGENT_IDENTITIES, TOOL_POLICIES, CLUSTER_TOOL_POLICIES),
    IDENTITY_ISSUERS: (AGENT_IDENTITIES,),
    AGENT_IDENTITIES: (AGENT_IDENTITIES, AGENT_INSTANCES, TOOL_POLICIES, CLUSTER_TOOL_POLICIES),
    AGENT_INSTANCES: (AGENT_IDENTITIES,),
    DEVICES: (DEVICE_POOLS, AGENT_INSTANCES),
    TOOL_SERVERS: (TOOL_SERVERS, TOOL_POLICIES, CLUSTER_TOOL_POLICIES),
}
# Where a change is felt in its own namespace only.
_NEAR: Final[dict[Resource, tuple[Resource, ...]]] = {
    PODS: (AGENT_IDENTITIES, AGENT_INSTANCES),
    SERVICE_ACCOUNTS: (AGENT_IDENTITIES,),
    NAMESPACES: (AGENT_IDENTITIES, TOOL_POLICIES),
    AGENT_IDENTITIES: (AGENT_IDENTITIES, AGENT_INSTANCES, TOOL_POLICIES),
    AGENT_INSTANCES: (AGENT_IDENTITIES,),
}


def _dependents(resource: Resource, found: dict[str, Any], view: View) -> Iterator[tuple[Resource, dict[str, Any]]]:
    own = found["metadata"]["name"] if resource is NAMESPACES else found["metadata"].get("namespace")
    for kind in _DEPENDENTS.get(resource, ()):
        for one in view.list(kind, own if kind in _NEAR.get(resource, ()) else None):
            yield kind, one


def _names(instance: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of what an AgentInstance hangs on."""
    spec = instance["spec"]
    return spec["agentRef"]["name"], spec["deviceRef"]["name"], (spec.get("pod") or {}).get("name", "")


def _of_ours(found: dict[str, Any]) -> Any:
    meta = found["metadata"]
    return meta["uid"], meta.get("generation"), meta.get("deletionTimestamp")


def _of_pod(pod: dict[str, Any]) -> Any:
    meta, status = pod["metadata"], pod.get("status") or {}
    ready = condition(pod, "Ready").get("status")
    ran = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    images = {one.get("name"): one.get("imageID") for one in ran}
    marked = meta.get("labels"), meta.get("annotations")
    return meta["uid"], meta.get("deletionTimestamp"), marked, pod["spec"], status.get("phase"), ready, images


def _of_named(found: dict[str, Any]) -> Any:
    meta = found["metadata"]
    return meta["uid"], meta.get("deletionTimestamp"), meta.get("labels")


_MEANING: Final = {
    PODS: _of_pod,
    AGENT_IDENTITIES: _of_ours,
    TOOL_SERVERS: _of_ours,
    NAMESPACES: _of_named,
    SERVICE_ACCOUNTS: _of_named,
}


class KeyQueue:
    """Keys in the order in which they came, each at most once."""

    def __init__(self) -> None:
        """Start empty."""
        self._keys: dict[Key, None] = {}
        self._some = asyncio.Event()

    def __len__(self) -> int:
        """Return how many keys wait."""
        return len(self._keys)

    def add(self, key: Key) -> None:
        """Let ``key`` wait, unless it does already."""
        self._keys.setdefault(key)
        self._some.set()

    async def take(self) -> Key:
        """Return the key that has waited longest."""
        while not self._keys:
            self._some.clear()
            await self._some.wait()
        key = next(iter(self._keys))
        del self._keys[key]
        return key
