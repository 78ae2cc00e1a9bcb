"""When a person means: an RFC 3339 time, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["moment"]

_AGE: Final = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment(text: str) -> datetime:
    """Return the time, with its offset, that ``text`` (such as ``30m``) names. Raises ValueError with what it should be."""
    age = _AGE.fullmatch(text)
    try:
        if age is not None:
            return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        time = None  # an age that begins before year 1 is no time either
    if time is None or time.tzinfo is None:
        raise ValueError("an RFC 3339 time with an offset, or an age such as 30m")
    return time
