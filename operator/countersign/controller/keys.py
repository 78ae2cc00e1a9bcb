"""Which objects to look at again after a change of one, and the queue in which they wait: once each. Pure but for waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from countersign.controller.indexes import ANY, account_of
from countersign.controller.plan import condition, is_true, ref
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
    from countersign.controller.view import View

__all__ = ["COUNTING", "PLANNED", "TIMED", "WATCHED", "Key", "KeyQueue", "key_of", "touched"]

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

COUNTING: Final = (AGENT_IDENTITIES, DEVICE_POOLS)
"""What says of others how many they are."""

TIMED: Final = (AGENT_INSTANCES, DEVICE_POOLS, NAMESPACES)
"""What becomes untrue without an event: certificates and roots end, and nobody watches trust ConfigMaps."""

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
    for found in (after,) if before is None else (before, after):
        for kind, one in _DEPENDENTS.get(resource, _nobody)(found, view):
            yield key_of(kind, one)


_Dependents = Iterator[tuple[Resource, dict[str, Any]]]


def _found(view: View, value: str, *wanted: tuple[Resource, str]) -> _Dependents:
    """Yield what each index of ``wanted`` finds under ``value``."""
    for resource, index in wanted:
        for one in view.by(resource, index, value):
            yield resource, one


def _of_every(view: View, *wanted: Resource, namespace: str | None = None) -> _Dependents:
    for resource in wanted:
        for one in view.list(resource, namespace):
            yield resource, one


def _nobody(found: dict[str, Any], view: View) -> _Dependents:
    del found, view
    yield from ()


def _on_pod(pod: dict[str, Any], view: View) -> _Dependents:
    yield from _found(view, account_of(pod), (AGENT_IDENTITIES, "account"))
    yield from _found(view, f"pod {ref(pod)}", (AGENT_INSTANCES, "name"))


def _on_account(account: dict[str, Any], view: View) -> _Dependents:
    yield from _found(view, ref(account), (AGENT_IDENTITIES, "account"))


def _on_namespace(namespace: dict[str, Any], view: View) -> _Dependents:
    yield from _of_every(view, AGENT_IDENTITIES, TOOL_POLICIES, namespace=namespace["metadata"]["name"])
    yield from _of_every(view, CLUSTER_TOOL_POLICIES)


def _on_issuer(issuer: dict[str, Any], view: View) -> _Dependents:
    del issuer
    yield from _of_every(view, AGENT_IDENTITIES)


def _on_identity(identity: dict[str, Any], view: View) -> _Dependents:
    yield from _found(view, account_of(identity), (AGENT_IDENTITIES, "account"))
    yield from _found(view, f"agent {ref(identity)}", (AGENT_INSTANCES, "name"))
    for value in (ref(identity), f"{identity['metadata']['namespace']}/{ANY}", ANY):
        yield from _found(view, value, (TOOL_POLICIES, "agent"), (CLUSTER_TOOL_POLICIES, "agent"))


def _on_instance(instance: dict[str, Any], view: View) -> _Dependents:
    found = view.get(AGENT_IDENTITIES, instance["spec"]["agentRef"]["name"], instance["metadata"]["namespace"])
    if found is not None:
        yield AGENT_IDENTITIES, found


def _on_device(device: dict[str, Any], view: View) -> _Dependents:
    if (pool := view.get(DEVICE_POOLS, device["spec"]["poolRef"]["name"])) is not None:
        yield DEVICE_POOLS, pool
    yield from _found(view, f"device {device['metadata']['name']}", (AGENT_INSTANCES, "name"))


def _on_server(server: dict[str, Any], view: View) -> _Dependents:
    yield from _found(view, server["spec"]["audience"], (TOOL_SERVERS, "audience"))
    yield from _found(view, ref(server), (TOOL_POLICIES, "server"), (CLUSTER_TOOL_POLICIES, "server"))


_DEPENDENTS: Final = {
    PODS: _on_pod,
    SERVICE_ACCOUNTS: _on_account,
    NAMESPACES: _on_namespace,
    IDENTITY_ISSUERS: _on_issuer,
    AGENT_IDENTITIES: _on_identity,
    AGENT_INSTANCES: _on_instance,
    DEVICES: _on_device,
    TOOL_SERVERS: _on_server,
}


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


def _of_instance(instance: dict[str, Any]) -> Any:
    return instance["metadata"]["uid"], instance["metadata"].get("deletionTimestamp"), is_true(instance, "Ready")


def _of_device(device: dict[str, Any]) -> Any:
    return _of_ours(device), is_true(device, "Attested")


_MEANING: Final = {
    PODS: _of_pod,
    AGENT_IDENTITIES: _of_ours,
    AGENT_INSTANCES: _of_instance,
    DEVICES: _of_device,
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
