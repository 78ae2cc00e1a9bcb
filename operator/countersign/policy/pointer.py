"""RFC 6901 pointers with at most one ``*`` segment, walked so that a way that could be read twice is *blocked*."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Any, Final

from countersign.policy.logic import Unreadable

__all__ = ["BLOCKED", "MISSING", "Pointer", "Way"]

_ESCAPE: Final = re.compile(r"~(?![01])")
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")


class Way(enum.Enum):
    """How the way to a value can end, other than in the value."""

    MISSING = "missing"
    BLOCKED = "blocked"


MISSING: Final = Way.MISSING
BLOCKED: Final = Way.BLOCKED


@dataclass(frozen=True)
class Pointer:
    """A compiled pointer. ``tail`` holds the segments after ``*``; it is None where there is no ``*``."""

    head: tuple[str, ...]
    tail: tuple[str, ...] | None

    @classmethod
    def parse(cls, value: Any) -> Pointer:
        """Read a pointer; raise ``Unreadable`` for the whole document, a bad escape or a second ``*``."""
        if not isinstance(value, str) or not value.startswith("/") or _ESCAPE.search(value):
            raise Unreadable
        raw = value[1:].split("/")
        segments = tuple(segment.replace("~1", "/").replace("~0", "~") for segment in raw)
        stars = [place for place, segment in enumerate(raw) if segment == "*"]
        if not stars:
            return cls(segments, None)
        if len(stars) > 1:
            raise Unreadable
        return cls(segments[: stars[0]], segments[stars[0] + 1 :])

    def one(self, document: Any) -> Any:
        """Return the value that a pointer without ``*`` leads to, ``MISSING`` or ``BLOCKED``."""
        return _walk(document, self.head)

    def every(self, document: Any) -> list[Any] | Way:
        """Return what each element of the array at ``*`` leads to; ``MISSING`` or ``BLOCKED`` if no such array is there.

        An empty array is ``BLOCKED``: "all of nothing" allows nothing.
        """
        array: Any = _walk(document, self.head)
        if array is MISSING:
            return Way.MISSING
        if not isinstance(array, list) or not array:
            return Way.BLOCKED
        return [_walk(element, self.tail or ()) for element in array]


def _walk(value: Any, segments: tuple[str, ...]) -> Any:
    for segment in segments:
        if isinstance(value, dict):
            if segment not in value:
                folded = segment.casefold()
                other_case = any(isinstance(key, str) and key.casefold() == folded for key in value)
                return BLOCKED if other_case else MISSING
            value = value[segment]
        elif isinstance(value, list):
            if not _INDEX.fullmatch(segment):
                return BLOCKED
            if int(segment) >= len(value):
                return MISSING
            value = value[int(segment)]
        else:
            return BLOCKED
    return value
