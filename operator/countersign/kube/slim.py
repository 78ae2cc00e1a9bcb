"""Less of an object, for those who keep thousands: what the API server writes down for itself is read by nobody here. Pure."""

from __future__ import annotations

import sys
from typing import Any, Final

__all__ = ["head_only", "without_bookkeeping"]

_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_HEAD: Final = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "labels")


def without_bookkeeping(found: dict[str, Any]) -> dict[str, Any]:
    """Return the object without ``managedFields`` and kubectl's copy of it, its names shared with those of all others.

    An object that has neither is returned as it is: it was here before.
    """
    meta = found.get("metadata")
    if not isinstance(meta, dict) or ("managedFields" not in meta and _APPLIED not in (meta.get("annotations") or {})):
        return found
    kept = {name: value for name, value in meta.items() if name != "managedFields"}
    if annotations := kept.pop("annotations", None):
        others = {name: value for name, value in annotations.items() if name != _APPLIED}
        if others:
            kept["annotations"] = others
    return dict(_shared({**found, "metadata": kept}))


def head_only(found: dict[str, Any]) -> dict[str, Any]:
    """Return who a pod is, whether it is going, and its phase: for those who only ask if it is alive (``has_ended``)."""
    meta = {name: found["metadata"][name] for name in _HEAD if name in found["metadata"]}
    phase = (found.get("status") or {}).get("phase")
    status = {} if phase is None else {"status": {"phase": phase}}
    return {"apiVersion": found.get("apiVersion"), "kind": found.get("kind"), "metadata": meta, **status}


def _shared(value: Any) -> Any:
    """Return the same value with each member's name as one object, however many documents it was read from."""
    if isinstance(value, dict):
        return {sys.intern(name): _shared(one) for name, one in value.items()}
    return [_shared(one) for one in value] if isinstance(value, list) else value
