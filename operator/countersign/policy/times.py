"""Times as objects of the API write them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

__all__ = ["read_time"]


def read_time(value: Any) -> datetime | None:
    """Read an RFC 3339 time with an offset; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    return None if time.tzinfo is None else time.astimezone(UTC)
