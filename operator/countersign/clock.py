"""Time as a port: one reading per decision, and tests that never wait."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["Clock", "FakeClock", "SystemClock"]


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
