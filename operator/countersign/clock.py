"""Time as a port: one reading per decision, and tests that never wait."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final, Protocol

__all__ = ["COMPARE_CLOCKS", "Clock", "FakeClock", "SystemClock", "ahead_of", "skew_fault"]

COMPARE_CLOCKS: Final = "clock skew? Set the clocks of both ends by NTP"
"""What a refusal says that depends on two clocks."""
_TOLERATED: Final = 30.0
"""More than a ``Date`` of whole seconds in a slow answer is off, less than any certificate of ours lives."""


class Clock(Protocol):
    """Two readings: calendar time for what travels, monotonic time for what is measured here."""

    def now(self) -> datetime:
        """Return the calendar time, aware and in UTC."""

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start that never runs backwards."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the calendar time, aware and in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start that never runs backwards."""
        return time.monotonic()


class FakeClock:
    """A clock that a test moves by hand; both readings move together."""

    def __init__(self, now: datetime) -> None:
        """Start at ``now``, which must be aware."""
        if now.tzinfo is None:
            msg = "a clock reading is aware"
            raise ValueError(msg)
        self._now = now.astimezone(UTC)
        self._monotonic = 0.0

    def now(self) -> datetime:
        """Return the time that was set."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds that were advanced so far."""
        return self._monotonic

    def advance(self, by: timedelta | float) -> None:
        """Move both readings on; calendar time may also be moved back, monotonic time may not."""
        step = by if isinstance(by, timedelta) else timedelta(seconds=by)
        self._now += step
        self._monotonic += max(step.total_seconds(), 0.0)


def ahead_of(date: str | None, now: datetime) -> float | None:
    """Return by how many seconds ``now`` is ahead of an HTTP answer's ``Date`` (negative: behind); None without one."""
    try:
        said = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    return (now - (said if said.tzinfo is not None else said.replace(tzinfo=UTC))).total_seconds()


def skew_fault(seconds: float | None, other: str, *, tolerated: float = _TOLERATED) -> str | None:
    """Return what is wrong with a clock that is ``seconds`` ahead of that of ``other``, and what to do; None if it is right."""
    if seconds is None or abs(seconds) <= tolerated:
        return None
    where = "ahead of" if seconds > 0 else "behind"
    return f"clock skew: this machine is {abs(seconds):.0f} s {where} {other}; set both clocks by NTP"
