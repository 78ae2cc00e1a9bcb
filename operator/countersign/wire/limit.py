"""Token buckets: how often one instance, one pod or one address may ask (wire.md 11, enrolment.md 2)."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from countersign.errors import Unavailable

if TYPE_CHECKING:
    from countersign.clock import Clock

__all__ = ["RateLimit"]

_MAX_KEYS: Final = 100_000


class RateLimit:
    """One bucket a key, filled with ``rate`` a second up to ``burst``; the least recent keys are forgotten first."""

    def __init__(self, clock: Clock, *, rate: float, burst: int) -> None:
        """Start with every bucket full."""
        self._clock, self._rate, self._burst = clock, rate, burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> None:
        """Take one from the bucket of ``key``.

        Raises
        ------
        Unavailable
            ``rate.limited`` with the whole seconds until there is one again.

        """
        now = self._clock.monotonic()
        level, at = self._buckets.pop(key, (float(self._burst), now))
        level = min(self._burst, level + (now - at) * self._rate)
        enough = level >= 1
        self._buckets[key] = (level - 1 if enough else level, now)
        if len(self._buckets) > _MAX_KEYS:
            self._buckets.popitem(last=False)
        if not enough:
            raise Unavailable("rate.limited", retry_after=max(1, round((1 - level) / self._rate)))
