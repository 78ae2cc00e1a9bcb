"""Timing: cases take turns, each operation is timed alone, and a case is compared with the yardstick of its own round."""

from __future__ import annotations

import inspect
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Case", "Timed", "measure", "percentile"]

Operation = Callable[..., object] | Callable[..., Awaitable[object]]

_ROUND_SECONDS = 0.08
_MOST = 2000


@dataclass(frozen=True)
class Case:
    """Something to time. ``of`` is the name of the case that it is compared with in the table (None: with none).

    ``prepare`` makes, untimed, what ``run`` takes: for what works once, like a signed request. A turn has at most ``most``
    operations and ends after ``seconds`` of timed work.
    """

    name: str
    run: Operation
    of: str | None = None
    seconds: float = _ROUND_SECONDS
    most: int = _MOST
    prepare: Callable[[], Awaitable[Any]] | None = None


@dataclass
class Timed:
    """What was measured: microseconds of each operation, and the median of each round."""

    name: str
    of: str | None = None
    micros: list[float] = field(default_factory=list)
    rounds: list[float] = field(default_factory=list)

    @property
    def p50(self) -> float:
        """Median, in microseconds."""
        return percentile(self.micros, 50)

    @property
    def p99(self) -> float:
        """99th percentile, in microseconds."""
        return percentile(self.micros, 99)

    def ratio(self, other: Timed) -> float:
        """Return how many times dearer than ``other`` it was, taken round by round."""
        pairs = list(zip(self.rounds, other.rounds, strict=False))
        return statistics.median(mine / theirs for mine, theirs in pairs) if pairs else self.p50 / other.p50


def percentile(values: list[float], percent: int) -> float:
    """Return the value that ``percent`` of ``values`` do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


async def measure(cases: list[Case], *, rounds: int, told: Callable[[str], None]) -> dict[str, Timed]:
    """Run every case once unmeasured, then in ``rounds`` turns; ``told`` hears the name of each before it runs."""
    found = {case.name: Timed(case.name, case.of) for case in cases}
    for turn in range(rounds + 1):
        for case in cases:
            told(f"{case.name} ({turn}/{rounds})")
            micros = await _turn(case, limit=case.most if turn else 3)
            if turn:
                found[case.name].micros += micros
                found[case.name].rounds.append(statistics.median(micros))
    return found


async def _turn(case: Case, *, limit: int) -> list[float]:
    run, waits = case.run, inspect.iscoroutinefunction(case.run)
    micros: list[float] = []
    spent = 0.0
    while len(micros) < limit and (len(micros) < 3 or spent < case.seconds * 1e6):
        given = () if case.prepare is None else (await case.prepare(),)
        began = time.perf_counter_ns()
        if waits:
            await run(*given)  # type: ignore[misc]
        else:
            run(*given)
        micros.append((time.perf_counter_ns() - began) / 1000)
        spent += micros[-1]
    return micros
