"""What one look at one object leads to, as data; the small questions that every plan asks of an object. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from countersign.kube import set_condition

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

__all__ = ["Fact", "Notice", "Plan", "condition", "conditions", "is_going", "is_true", "listed", "news", "ref", "same"]

Fact = tuple[str, str, str]
"""Status (``True``, ``False``, ``Unknown``), reason and message of a condition."""

_MESSAGE_MAX: Final = 1024
_SHOWN: Final = 4


@dataclass(frozen=True)
class Notice:
    """An Event to write: on which object, ``Normal`` or ``Warning``, a reason of crds.md 7, and a note for people.

    ``once`` names what happened, where another leader would say it again.
    """

    regarding: dict[str, Any]
    type: str
    reason: str
    note: str
    once: str | None = None


@dataclass(frozen=True)
class Plan:
    """What to do. ``status`` is all that the operator owns of it (None: nothing is said about this object).

    ``revoke`` is the ``stateReason`` with which an AgentInstance becomes Revoked, for good; ``delete`` removes a leftover.
    Both are looked at again with live objects before they are done.
    """

    status: dict[str, Any] | None = None
    notices: tuple[Notice, ...] = ()
    revoke: str | None = None
    delete: bool = False


def is_going(found: dict[str, Any]) -> bool:
    """Tell whether an object is being deleted, which is as good as gone (crds.md 2.9)."""
    return found["metadata"].get("deletionTimestamp") is not None


def condition(found: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return a condition of an object; a missing one means Unknown and is empty here."""
    listed_ones = (found.get("status") or {}).get("conditions") or []
    return next((one for one in listed_ones if one.get("type") == kind), {})


def is_true(found: dict[str, Any], kind: str) -> bool:
    """Tell whether an object says that ``kind`` is True."""
    return bool(condition(found, kind).get("status") == "True")


def same(found: dict[str, Any] | None, wanted: dict[str, Any]) -> bool:
    """Tell whether ``found`` is the living object that a reference by name and UID means."""
    return found is not None and not is_going(found) and bool(found["metadata"]["uid"] == wanted["uid"])


def conditions(found: dict[str, Any], facts: dict[str, Fact], now: datetime) -> list[dict[str, Any]]:
    """Return the conditions named by ``facts`` and no others: times stay where the status stays."""
    before = [one for one in (found.get("status") or {}).get("conditions") or [] if one.get("type") in facts]
    generation = found["metadata"].get("generation", 0)
    for kind, (status, reason, message) in facts.items():
        before = set_condition(before, kind, status, reason, message[:_MESSAGE_MAX], generation, now)
    return before


def news(found: dict[str, Any], facts: dict[str, Fact], normal: Iterable[str], warning: Iterable[str]) -> list[Notice]:
    """Return an Event for each condition whose reason is new and has one."""
    types = dict.fromkeys(normal, "Normal") | dict.fromkeys(warning, "Warning")
    return [
        Notice(found, types[reason], reason, message)
        for kind, (_status, reason, message) in facts.items()
        if reason in types and condition(found, kind).get("reason") != reason
    ]


def listed(names: Iterable[str]) -> str:
    """Return a few names for a message, in order, and how many more there are."""
    every = sorted(set(names))
    more = len(every) - _SHOWN
    return ", ".join(every[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def ref(found: dict[str, Any]) -> str:
    """Return ``namespace/name``, or the name of what has no namespace."""
    meta = found["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])
