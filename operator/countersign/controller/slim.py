"""What the operator keeps of an object: nothing that no look asks for, because there are ten thousand pods. Pure.

What is decided for good is looked at again with the live object (``reconcile.py``), which has all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from countersign.controller.indexes import is_injected
from countersign.kube import PODS
from countersign.kube.slim import without_bookkeeping

if TYPE_CHECKING:
    from collections.abc import Iterable

    from countersign.kube import Resource

__all__ = ["slim"]

_CONTAINER: Final = ("name", "image")
_RAN: Final = ("name", "imageID")
_LISTS: Final = {"initContainers": _CONTAINER, "containers": _CONTAINER, "ephemeralContainers": ("name",)}
_SPEC: Final = ("serviceAccountName", "nodeName")
_STATUSES: Final = ("initContainerStatuses", "containerStatuses")


def slim(resource: Resource, found: dict[str, Any]) -> dict[str, Any]:
    """Return the object without what nobody here reads; one that is slim already as it is."""
    found = without_bookkeeping(found)
    if resource is not PODS or "spec" not in found:
        return found
    status = found.get("status") or {}
    kept: dict[str, Any] = {"phase": status.get("phase")}
    kept["conditions"] = [
        {"type": "Ready", "status": one.get("status")}
        for one in status.get("conditions") or []
        if one["type"] == "Ready"
    ]
    for name in _STATUSES:
        if ran := status.get(name):
            kept[name] = _each(ran, _RAN)
    # Why a pod has no signer is said from all of its spec (`hindrances`); there are few of these.
    spec = _shape(found["spec"]) if is_injected(found) else found["spec"]
    return {**found, "spec": spec, "status": kept}


def _shape(spec: dict[str, Any]) -> dict[str, Any]:
    """Return account and containers, of which an instance's pod may change nothing."""
    kept: dict[str, Any] = {name: spec[name] for name in _SPEC if name in spec}
    for name, fields in _LISTS.items():
        if listed := spec.get(name):
            kept[name] = _each(listed, fields)
    return kept


def _each(listed: Iterable[dict[str, Any]], fields: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{name: one[name] for name in fields if name in one} for one in listed]
