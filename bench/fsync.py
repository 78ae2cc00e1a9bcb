"""The audit log under several callers: one fsync for all records that wait, as the front door does it, beside its alternatives."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from inside import record
from report import Claim, Section, Table
from timing import percentile

from countersign.audit import AuditLog
from countersign.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["section"]

_CALLERS = (1, 16, 64)
_MEMORY = Path("/dev/shm")
_GROUPED = "grouped (the product)"
_EACH = "one fsync a record"
_NONE = "grouped, in memory (no disk)"
_TEXT = (
    "The webhook's audit log in this process, on {filesystem}, with callers that write their next record when the last one "
    "is on disk. Records that wait together share one fsync; nobody waits longer so that more may share. Beside it, the same "
    "log with one record at a time, and the same log on a file system in memory, which is what chaining and encoding cost "
    "without a disk. There is no mode that answers before the record is on disk: a yes without a record must not exist."
)


@dataclass
class _Mode:
    """A log, one at a time or not, and what was counted, by number of callers."""

    name: str
    log: AuditLog
    turns: asyncio.Lock | None
    synced: int = 0
    micros: dict[int, list[float]] = field(default_factory=lambda: {each: [] for each in _CALLERS})
    rates: dict[int, list[float]] = field(default_factory=lambda: {each: [] for each in _CALLERS})
    shared: dict[int, list[float]] = field(default_factory=lambda: {each: [] for each in _CALLERS})
    cpu: dict[int, list[float]] = field(default_factory=lambda: {each: [] for each in _CALLERS})

    def __post_init__(self) -> None:
        self.log.subscribe(self._count)

    def _count(self) -> None:
        self.synced += 1

    async def run(self, callers: int, seconds: float, *, keep: bool) -> None:
        """Let that many callers write for a while."""
        before, began, now, spent = self.synced, time.perf_counter(), datetime.now(UTC), time.process_time()
        found = await asyncio.gather(*(self._write(began + seconds, now) for _ in range(callers)))
        wall, micros = time.perf_counter() - began, [each for one in found for each in one]
        if keep:
            self.micros[callers] += micros
            self.rates[callers].append(len(micros) / wall)
            self.shared[callers].append(len(micros) / max(1, self.synced - before))
            self.cpu[callers].append((time.process_time() - spent) / len(micros) * 1e6)

    async def _write(self, end: float, now: datetime) -> list[float]:
        micros = []
        while (began := time.perf_counter()) < end:
            async with self.turns or contextlib.nullcontext():
                await self.log.append(record(now))
            micros.append((time.perf_counter() - began) * 1e6)
        return micros


async def section(rounds: int, seconds: float, told: Callable[[str], None]) -> Section:
    """Let every mode write in turn for ``seconds``, and return the table."""
    async with _modes() as modes:
        for turn in range(rounds + 1):
            for callers in _CALLERS:
                for mode in modes:
                    told(f"audit log, {mode.name}, {callers} callers ({turn}/{rounds})")
                    await mode.run(callers, seconds, keep=turn > 0)
    head = ["callers", "fsync", "records a second", "records a fsync", "CPU µs a record", "p50 ms", "p99 ms"]
    rows = [_row(callers, mode) for callers in _CALLERS for mode in modes]
    grouped, each = (next(one for one in modes if one.name == name) for name in (_GROUPED, _EACH))
    most = _CALLERS[-1]
    gain = statistics.median(a / b for a, b in zip(grouped.rates[most], each.rates[most], strict=True))
    text = (
        f"The audit log writes {statistics.median(grouped.rates[most]):,.0f} records a second for {most} callers, each on disk "
        f"before its caller goes on: {gain:.1f} times what one fsync a record allows. Alone, a record takes "
        f"{percentile(grouped.micros[1], 50) / 1e3:.2f} ms."
    )
    where = _TEXT.format(filesystem=_filesystem(Path(tempfile.gettempdir())))
    return Section("Audit log", where, tables=[Table(head, rows, words=(1,))], claims=[Claim(text)])


@contextlib.asynccontextmanager
async def _modes() -> AsyncIterator[list[_Mode]]:
    async with contextlib.AsyncExitStack() as stack:
        modes = []
        wanted = [(_GROUPED, None, None), (_EACH, None, asyncio.Lock())]
        if os.access(_MEMORY, os.W_OK):
            wanted.append((_NONE, _MEMORY, None))
        for name, parent, turns in wanted:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="cs-bench-", dir=parent))
            log = await AuditLog.open(Path(place), process="bench", clock=SystemClock())
            stack.push_async_callback(log.aclose)
            modes.append(_Mode(name, log, turns))
        yield modes


def _row(callers: int, mode: _Mode) -> list[str]:
    return [
        f"{callers}",
        mode.name,
        f"{statistics.median(mode.rates[callers]):,.0f}",
        f"{statistics.median(mode.shared[callers]):,.1f}",
        f"{statistics.median(mode.cpu[callers]):,.0f}",
        f"{percentile(mode.micros[callers], 50) / 1e3:.2f}",
        f"{percentile(mode.micros[callers], 99) / 1e3:.2f}",
    ]


def _filesystem(place: Path) -> str:
    """Return the type of the file system that ``place`` is on."""
    found = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    mounts = {Path(fields[1]): fields[2] for fields in found}
    return next((mounts[each] for each in (place, *place.parents) if each in mounts), "an unknown file system")
