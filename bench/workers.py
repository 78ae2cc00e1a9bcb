"""Two front doors that share a replay store, against one: what the second brings, and what the sharing costs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import subjects
from load import Line, Load, connect, cpu_seconds, load
from report import Claim, Section, Table
from timing import percentile

from countersign.demo.processes import until
from countersign.devcluster import start, write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deciding import Member
    from subjects import Place, Subject

    from countersign.devcluster import Child

__all__ = ["section"]

_POLICIES = 100
_KEY_BYTES = 32
_FIRST, _SPARE, _MOST = 50, 1.4, 2_000
_PATIENCE = 60
_TEXT = (
    "Front doors of {policies} policies as above, now free to run on all {cores} cores of this machine, which the generator "
    "and the store need too: so what is answered in a second says what this machine does, and CPU what each decision takes. Two "
    "doors are what `countersign webhook --workers 2` or two replicas are: each has half of the {connections} connections, its "
    "own audit log, and the one Redis that says what was used already (a Unix socket, nothing kept on disk)."
)


@dataclass
class _Setting:
    """So many doors, and what their loads were."""

    name: str
    doors: list[Subject]
    store: Child | None
    loads: list[Load] = field(default_factory=list)
    refused: int = 0
    stores: list[float] = field(default_factory=list)

    async def load(self, where: Place, seconds: float) -> None:
        """Give each door its share of the connections, and ask on all of them."""
        lines = []
        for number, member in enumerate(where.members[: subjects.CONNECTIONS]):
            door = self.doors[number % len(self.doors)]
            lines.append((await connect(door.port, where.context, self._answered), member))
        rate = self.loads[-1].answered / self.loads[-1].wall if self.loads else _FIRST / seconds
        count = min(_MOST, int(rate * seconds * _SPARE / len(lines)) + 1)
        requests = [await subjects.tokens(line, member, count) for line, member in lines]
        pids = [door.child.process.pid for door in self.doors]
        before = self._stored
        self.loads.append(
            await load([line for line, _ in lines], requests, seconds, lambda: sum(cpu_seconds(pid) for pid in pids))
        )
        self.stores.append(self._stored - before)
        for line, _ in lines:
            await line.hang_up()

    def _answered(self, answer: bytes) -> bool:
        """Take a yes, and count a no for want of the store's answer: it has half a second, and this machine may have less."""
        late = b'"replay.unavailable"' in answer
        self.refused += late
        return late or subjects.granted(answer)

    @property
    def _stored(self) -> float:
        return 0.0 if self.store is None else cpu_seconds(self.store.process.pid)

    def micros(self, spent: Callable[[Load], float]) -> float:
        """Return the median of what was spent for a decision, in microseconds."""
        return statistics.median(spent(one) / one.answered * 1e6 for one in self.loads[1:])

    @property
    def row(self) -> list[str]:
        """Its row of the table."""
        loads = self.loads[1:]
        waits = [each for one in loads for each in one.micros]
        stored = statistics.median(
            spent / one.answered * 1e6 for spent, one in zip(self.stores[1:], loads, strict=True)
        )
        return [
            self.name,
            f"{statistics.median(one.answered / one.wall for one in loads):,.0f}",
            f"{self.micros(lambda one: one.cpu):,.0f}",
            f"{stored:,.0f}" if self.store is not None else "",
            f"{self.micros(lambda one: one.generator):,.0f}",
            *(f"{percentile(waits, percent) / 1e3:.2f}" for percent in (50, 99)),
            f"{self.refused}",
        ]


async def section(rounds: int, seconds: float, told: Callable[[str], None]) -> Section:
    """Load one door, one that shares, and two that share, in turn."""
    cores = sorted(os.sched_getaffinity(0))
    with subjects.place(cores[0]) as where, contextlib.ExitStack() as stack:
        told("starting front doors and a Redis")
        folder, store = stack.enter_context(_redis())
        (own,) = stack.enter_context(subjects.doors(where, [_POLICIES], cores=cores))
        both = stack.enter_context(subjects.doors(where, [_POLICIES] * 2, cores=cores, store=folder))
        one = _Setting("1, its own memory", [own], None)
        shared = _Setting("1, a Redis", both[:1], store)
        two = _Setting("2, a Redis", both, store)
        for door in both:
            await _believed(where, door)
        for turn in range(rounds + 1):
            for setting in (one, shared, two):
                told(f"front doors: {setting.name} ({turn}/{rounds})")
                await setting.load(where, seconds)
    text = _TEXT.format(policies=_POLICIES, cores=len(cores), connections=subjects.CONNECTIONS)
    head = [
        "front doors",
        "answered a second",
        "CPU µs",
        "of the Redis, µs",
        "of the generator, µs",
        "p50 ms",
        "p99 ms",
        "refused, the Redis being late",
    ]
    table = Table(head, [setting.row for setting in (one, shared, two)])
    return Section("Two workers against one", text, tables=[table], claims=[_claim(shared, two, len(cores))])


def _claim(shared: _Setting, two: _Setting, cores: int) -> Claim:
    pairs = list(zip(two.loads[1:], shared.loads[1:], strict=True))
    seen = statistics.median(a.answered / a.wall / (b.answered / b.wall) for a, b in pairs)
    each = statistics.median((b.cpu / b.answered) / (a.cpu / a.answered) for a, b in pairs)
    return Claim(
        f"Two workers that share a Redis answer {seen:.2f} times what one does on {cores} cores that the generator and the Redis "
        f"use too; by the CPU that a decision takes, {2 * each:.2f} times on cores of their own."
    )


async def _believed(where: Place, door: Subject) -> None:
    """Ask until the store is believed: what was made in its first second is refused."""
    end = time.monotonic() + _PATIENCE
    member: Member = where.members[0]
    line: Line = await connect(door.port, where.context, lambda _answer: True)
    while not subjects.granted(await line.ask(await subjects.tokens(line, member, 1), 5)):
        if time.monotonic() > end:
            raise RuntimeError("the replay store is not believed")
        await asyncio.sleep(0.2)
    await line.hang_up()


@contextlib.contextmanager
def _redis() -> Iterator[tuple[Path, Child]]:
    """Start a Redis in a folder: its socket is ``s``, and the nonces' key is there."""
    found = shutil.which("redis-server") or shutil.which("redis-check-rdb")  # one binary: its name says what it is
    if found is None:
        raise RuntimeError("redis-tools is missing: make packages")
    with tempfile.TemporaryDirectory(prefix="cs-bench-") as place:
        folder = Path(place)
        (folder / "redis-server").symlink_to(found)
        write_private(folder / "nonce.key", os.urandom(_KEY_BYTES))
        words = ["--port", "0", "--unixsocket", folder / "s", "--save", "", "--appendonly", "no", "--dir", folder]
        words += ["--maxmemory", "256mb", "--maxmemory-policy", "noeviction"]
        child = start("redis", [folder / "redis-server", *words], log=folder / "log")
        try:
            if until(lambda: _answers(folder / "s"), _PATIENCE) is None:
                raise RuntimeError(f"redis does not start\n{child.tail()}")
            yield folder, child
        finally:
            child.stop()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as one, contextlib.suppress(OSError):
        one.connect(str(path))
        one.sendall(b"PING\r\n")
        return one.recv(16).startswith(b"+PONG")
    return False
