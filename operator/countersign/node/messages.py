"""kubelet's device plugin API v1beta1: the messages that travel between kubelet and us, each as its bytes. Pure.

What we send is written, what we receive is read; nothing is here that neither needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from countersign.node.protobuf import flag, message, string, string_map, strings, submessages

__all__ = [
    "API_VERSION",
    "DEVICE_PLUGIN",
    "REGISTER",
    "Allocation",
    "DeviceSpec",
    "Mount",
    "allocate_response",
    "device_list",
    "plugin_options",
    "read_allocate_request",
    "register_request",
]

API_VERSION: Final = "v1beta1"
REGISTER: Final = "/v1beta1.Registration/Register"
DEVICE_PLUGIN: Final = "v1beta1.DevicePlugin"
_HEALTHY, _UNHEALTHY = "Healthy", "Unhealthy"


@dataclass(frozen=True)
class Mount:
    """A path of the node that a container sees, for reading and writing."""

    container_path: str
    host_path: str


@dataclass(frozen=True)
class DeviceSpec:
    """A device file that a container may use; ``permissions`` are of the letters r, w, m."""

    path: str
    permissions: str


@dataclass(frozen=True)
class Allocation:
    """What one container gets."""

    envs: dict[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    devices: tuple[DeviceSpec, ...] = ()


def register_request(endpoint: str, resource: str) -> bytes:
    """Return a RegisterRequest: ``endpoint`` is the socket's name in kubelet's directory."""
    return string(1, API_VERSION) + string(2, endpoint) + string(3, resource) + message(4, plugin_options())


def plugin_options() -> bytes:
    """Return DevicePluginOptions: we want neither to be asked before a start nor which device we would prefer."""
    return flag(1, value=False) + flag(2, value=False)


def device_list(slots: dict[str, bool]) -> bytes:
    """Return a ListAndWatchResponse of slots by id, and whether each is healthy."""
    return b"".join(
        message(1, string(1, name) + string(2, _HEALTHY if healthy else _UNHEALTHY)) for name, healthy in slots.items()
    )


def read_allocate_request(data: bytes) -> list[list[str]]:
    """Return the device ids of each container of an AllocateRequest.

    :raises MalformedError: it is none.
    """
    return [strings(container, 1) for container in submessages(data, 1)]


def allocate_response(allocations: list[Allocation]) -> bytes:
    """Return an AllocateResponse, one part for each container in the order of the request."""
    return b"".join(message(1, _container(one)) for one in allocations)


def _container(one: Allocation) -> bytes:
    mounts = (string(1, each.container_path) + string(2, each.host_path) for each in one.mounts)
    devices = (string(1, each.path) + string(2, each.path) + string(3, each.permissions) for each in one.devices)
    return (
        string_map(1, one.envs)
        + b"".join(message(2, each) for each in mounts)
        + b"".join(message(3, each) for each in devices)
    )
