"""Three-valued logic, the two orders of the papers, and the strict reading of fields that an old schema may have let through.

A part of a rule is ``True``, ``False`` or ``None`` (undecided); crds.md 5.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

__all__ = [
    "ASSURANCE",
    "KEY_TIER",
    "Unreadable",
    "all_of",
    "any_of",
    "block",
    "conjunction",
    "integer",
    "items",
    "negate",
    "rank",
    "text",
    "texts",
]

_Asked = TypeVar("_Asked")

ASSURANCE: Final[Mapping[str, int]] = {"Software": 0, "Virtual": 1, "Hardware": 2}
KEY_TIER: Final[Mapping[str, int]] = {"Software": 0, "DPoP": 1, "TPMSession": 2, "TPM": 3}


class Unreadable(Exception):
    """A field is not what this replica knows: the part that holds it is undecided."""


def all_of(values: Iterable[bool | None]) -> bool | None:
    """Return False if any is false, else None if any is undecided, else True."""
    answer: bool | None = True
    for value in values:
        if value is False:
            return False
        if value is None:
            answer = None
    return answer


def conjunction(parts: Sequence[Callable[[_Asked], bool | None]]) -> Callable[[_Asked], bool | None]:
    """Return one part that says what :func:`all_of` says of all ``parts``, each asked only while none is false."""
    if len(parts) == 1:
        return parts[0]

    def every(asked: _Asked) -> bool | None:
        answer: bool | None = True
        for part in parts:
            value = part(asked)
            if value is False:
                return False
            if value is None:
                answer = None
        return answer

    return every


def any_of(values: Iterable[bool | None]) -> bool | None:
    """Return True if any is true, else None if any is undecided, else False."""
    answer: bool | None = False
    for value in values:
        if value is True:
            return True
        if value is None:
            answer = None
    return answer


def negate(value: bool | None) -> bool | None:  # noqa: FBT001 - a truth value is what this is about
    """Return the opposite; undecided stays undecided."""
    return None if value is None else not value


def rank(order: Mapping[str, int], value: Any) -> int | None:
    """Return the place of ``value`` in ``order``, or None for a value that the order does not know."""
    return order.get(value) if isinstance(value, str) else None


def block(value: Any, known: frozenset[str]) -> Mapping[str, Any]:
    """Return ``value`` if it is a non-empty object whose fields are all ``known``.

    The API server stores no explicit null, so one is not taken for a field left out: it is a value of no type.
    """
    if not isinstance(value, Mapping) or not value or not known.issuperset(value):
        raise Unreadable
    return value


def items(value: Any) -> list[Any]:
    """Return ``value`` if it is a non-empty list: empty never means any."""
    if not isinstance(value, list) or not value:
        raise Unreadable
    return value


def text(value: Any) -> str:
    """Return ``value`` if it is a non-empty string."""
    if not isinstance(value, str) or not value:
        raise Unreadable
    return value


def texts(value: Any) -> frozenset[str]:
    """Return the strings of a non-empty list of strings."""
    return frozenset(text(entry) for entry in items(value))


def integer(value: Any, *, least: int | None = None) -> int:
    """Return ``value`` if it is an integer (a bool is none) of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
        raise Unreadable
    return value
