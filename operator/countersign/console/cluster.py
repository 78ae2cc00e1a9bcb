"""Reading what a person may see: a kind that may not be listed is None, and said to be so; it is never taken for empty."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from countersign.kube import KubeError, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from countersign.kube import Kube, Resource

__all__ = ["condition", "find", "is_true", "look", "moment", "part"]

_FORBIDDEN: Final = 403


async def look(
    kube: Kube, resource: Resource, namespace: str | None = None, *, labels: str = "", fields: str = ""
) -> list[dict[str, Any]] | None:
    """Return the objects of a kind; None if this person may not list them, or the kind is not there. Raises KubeError."""
    try:
        found = await kube.list(resource, namespace, labels=labels, fields=fields)
    except KubeError as error:
        if isinstance(error, NotFound) or error.status == _FORBIDDEN:
            return None
        raise
    return [one for one in found if one["metadata"].get("deletionTimestamp") is None]


async def find(kube: Kube, resource: Resource, name: str, namespace: str | None = None) -> dict[str, Any] | None:
    """Return one object, or None if there is none or this person may not see it. Raises KubeError."""
    try:
        return await kube.get(resource, name, namespace)
    except KubeError as error:
        if isinstance(error, NotFound) or error.status == _FORBIDDEN:
            return None
        raise


async def every(*work: Any) -> Iterable[Any]:
    """Wait for several looks at once."""
    return await asyncio.gather(*work)


def condition(found: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return a condition of an object; a missing one means Unknown and is empty here."""
    listed = (found.get("status") or {}).get("conditions") or []
    return next((one for one in listed if one.get("type") == kind), {})


def is_true(found: dict[str, Any], kind: str) -> bool:
    """Tell whether an object says that ``kind`` is True."""
    return bool(condition(found, kind).get("status") == "True")


def part(found: Any, *path: str) -> Any:
    """Return what an object says at ``path``, or None."""
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def moment(text: Any) -> datetime | None:
    """Return a time of an object; None for none."""
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None
