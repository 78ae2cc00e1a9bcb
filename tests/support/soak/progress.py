"""What a long run says while it runs: how far it is, how fast, and how much memory it has."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import psutil

__all__ = ["Progress"]

_EVERY = 10.0


@dataclass
class Progress:
    """Prints a line every ten seconds. ``rss`` samples the resident memory, in MiB, at even steps of the work."""

    what: str
    total: int
    samples: int = 100
    quiet: bool = False
    done: int = 0
    rss: list[float] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _said: float = field(default_factory=time.monotonic)
    _process: psutil.Process = field(default_factory=psutil.Process)

    def step(self, place: str = "") -> None:
        """One more is done; ``place`` says how to go on from here."""
        self.done += 1
        if self.done % max(1, self.total // self.samples) == 0:
            self.rss.append(self._process.memory_info().rss / 2**20)
        now = time.monotonic()
        if now - self._said >= _EVERY:
            self._said = now
            self.say(place)

    def say(self, place: str = "") -> None:
        """Print how far it is."""
        if self.quiet:
            return
        seconds = time.monotonic() - self._began
        rate = self.done / seconds if seconds else 0.0
        memory = self._process.memory_info().rss / 2**20
        print(  # noqa: T201 - what people watch
            f"{self.what}: {self.done:,} of {self.total:,} in {seconds:.0f} s, {rate:,.0f}/s, {memory:.0f} MiB {place}",
            flush=True,
        )

    @property
    def growth(self) -> float:
        """How many MiB the highest sample of the last third is above the highest of the third before it."""
        third = len(self.rss) // 3
        if not third:
            return 0.0
        return max(self.rss[-third:]) - max(self.rss[-2 * third : -third])
