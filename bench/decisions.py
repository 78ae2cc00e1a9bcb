"""Decisions per second per core: a whole front door on one core, loaded over TLS from another, at several numbers of policies.

What is counted is the CPU time of that process, all its threads and the kernel's part in them, for each decision: proof,
chain, policy, audit record on disk, token, HTTP and TLS. So a generator that is slower than the door costs no accuracy.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deciding
import floor
from exchange import encoded, read_answer
from report import Section
from timing import Timed, measure

from countersign.demo.processes import until
from countersign.devcluster import LocalCA, start, write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from countersign.devcluster import Child

__all__ = ["SIZES", "section"]

SIZES = (1, 100, 1_000, 10_000)
_CONNECTIONS = 16
_LOAD_SECONDS = 0.6
_MOST = 5_000
_START_SECONDS = 60
_TEXT = (
    "The front door in a process of its own, pinned to one core: the webhook's server, application, audit log and keys, over "
    "objects in memory instead of a watch, with default settings but the rate of one caller. {connections} keep-alive "
    "connections over TLS 1.3 load it from {where}; its requests have software keys. Times are CPU time of that process "
    "for one decision, one load a round: proof, chain, policy, record on disk, token, HTTP and TLS. The chain is verified "
    "at each request, so two verifies and one sign are the floor."
)


@dataclass
class _Line:
    """A connection of one instance; ``nonce`` is what the last answer brought."""

    member: deciding.Member
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    nonce: str


@dataclass
class _Door:
    """A running front door, and what was counted there, by round."""

    policies: int
    child: Child
    ready: dict[str, Any]
    lines: list[_Line] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    answered: int = 0
    wall: float = 0.0

    @property
    def name(self) -> str:
        """What its row is called."""
        return f"decision, CPU; policies: {self.policies:,}"

    async def connect(self, members: list[deciding.Member], context: ssl.SSLContext) -> None:
        """Open a connection for each member and ask for its first nonce."""
        for member in members:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.ready["port"], ssl=context)
            writer.write(f"GET /nonce?jkt={member.key.jkt} HTTP/1.1\r\nhost: bench\r\n\r\n".encode())
            nonce = json.loads((await read_answer(reader)).body)["nonces"][0]
            self.lines.append(_Line(member, reader, writer, nonce))

    async def load(self, seconds: float) -> None:
        """Ask on every connection at once, each time anew when the answer is there; count what it cost."""
        before, began = _cpu_seconds(self.child.process.pid), time.perf_counter()
        asked = await asyncio.gather(*(_ask(line, began + seconds) for line in self.lines))
        self.wall += time.perf_counter() - began
        self.answered += sum(asked)
        self.cpu.append((_cpu_seconds(self.child.process.pid) - before) / sum(asked) * 1e6)


async def section(rounds: int, told: Callable[[str], None], sizes: Sequence[int] = SIZES) -> Section:
    """Load a door of each size in turn, beside the floor, and return the table."""
    cores = sorted(os.sched_getaffinity(0))
    bare = floor.cases()
    found: dict[str, Timed] = {case.name: Timed(case.name) for case in bare}
    with _doors(sizes, cores[0], told) as (doors, members, context):
        for door in doors:
            await door.connect(members, context)
        with _pinned(set(cores[1:]) or set(cores)):
            for turn in range(rounds + 1):
                for name, timed in (await measure(bare, rounds=1, told=told)).items():
                    found[name].micros += timed.micros
                    found[name].rounds.append(statistics.median(timed.micros))
                for door in doors:
                    told(f"{door.name} ({turn}/{rounds})")
                    await door.load(_LOAD_SECONDS)
        for line in (line for door in doors for line in door.lines):
            line.writer.close()
    rows = [Timed(door.name, floor.DECISION, door.cpu[1:], door.cpu[1:]) for door in doors]
    where = "another" if len(cores) > 1 else "the same, the only one"
    text = _TEXT.format(connections=_CONNECTIONS, where=where)
    return Section("Decisions per second per core", text, rows, facts=_facts(doors, rows), others=found)


def _facts(doors: list[_Door], rows: list[Timed]) -> list[tuple[str, str]]:
    facts = []
    for door, row in zip(doors, rows, strict=True):
        load = f"{door.answered / door.wall:,.0f} answered a second"
        facts.append((f"decisions per second per core; policies: {door.policies:,}", f"{1e6 / row.p50:,.0f} ({load})"))
    for door in doors:
        ready = door.ready
        times = f"{ready['compiled'] * 1e3:,.1f} ms; {ready['compiled_again'] * 1e3:,.1f} ms"
        facts.append((f"to compile all; again when one changed; policies: {door.policies:,}", times))
    return facts


async def _ask(line: _Line, end: float) -> int:
    """Ask until ``end``; return how often. Raises RuntimeError for any answer but a token."""
    asked = 0
    while time.perf_counter() < end and asked < _MOST:
        message = await deciding.request(line.member, line.nonce)
        line.writer.write(encoded(message))
        answer = await read_answer(line.reader)
        if answer.status != 200:
            raise RuntimeError(f"the benchmark's own call was refused: {answer.body!r}")
        line.nonce = answer.headers["countersign-nonce"]
        asked += 1
    return asked


@contextlib.contextmanager
def _doors(
    sizes: Sequence[int], core: int, told: Callable[[str], None]
) -> Iterator[tuple[list[_Door], list[deciding.Member], ssl.SSLContext]]:
    """Start a front door for each size, all on ``core``; only one at a time has anything to do."""
    ca = LocalCA("Bench Serving CA")
    context = ssl.create_default_context(cadata=ca.pem.decode())
    members, known = deciding.crew(_CONNECTIONS)
    children: list[tuple[int, Path, Child]] = []
    with tempfile.TemporaryDirectory(prefix="cs-bench-") as place:
        try:
            for size in sizes:
                directory = Path(place) / str(size)
                ca.issue("bench", names=["127.0.0.1"]).write(directory, "tls")
                write_private(directory / "crew.json", json.dumps(known).encode())
                command: list[str | Path] = [sys.executable, Path(__file__).with_name("decider.py"), directory]
                child = start(f"door {size}", [*command, str(size), str(core)], log=directory / "log")
                children.append((size, directory, child))
            told("starting front doors")
            yield [_started(*each) for each in children], members, context
        finally:
            for _, _, child in children:
                child.stop()


def _started(size: int, directory: Path, child: Child) -> _Door:
    file = directory / "ready.json"
    if until(lambda: file.exists() or not child.alive, _START_SECONDS) is None or not file.exists():
        raise RuntimeError(f"{child.name} did not start\n{child.tail()}")
    return _Door(size, child, json.loads(file.read_bytes()))


@contextlib.contextmanager
def _pinned(cores: set[int]) -> Iterator[None]:
    """Keep this process off the door's core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of all threads of ``pid`` that live: its event loop, and the one that writes the log."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in threads) / 1e9
