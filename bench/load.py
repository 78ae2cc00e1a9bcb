"""One generator for every server that is measured: requests made beforehand, sent on connections that stay open.

Each connection has one request under way, as an agent does, and sends the next when the answer is there. What is timed is
from the first byte out to the last byte in.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

__all__ = ["Line", "Load", "connect", "cpu_seconds", "load", "megabytes"]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_END = b"\r\n\r\n"
_PATIENCE = 30


@dataclass
class Load:
    """What one load did: microseconds of each answer, the wall's seconds, and the CPU seconds that ``spent`` told of."""

    micros: list[float]
    wall: float
    cpu: float
    generator: float

    @property
    def answered(self) -> int:
        """How many requests were answered."""
        return len(self.micros)


@dataclass
class Line(asyncio.Protocol):
    """A connection. ``accepted`` says of each answer whether it is the one that was meant."""

    accepted: Callable[[bytes], bool]
    transport: Any = None
    micros: list[float] = field(default_factory=list)
    _waiting: list[bytes] = field(default_factory=list)
    _buffer: bytearray = field(default_factory=bytearray)
    _sent: int = 0
    _until: float = 0
    _done: asyncio.Future[bytes] | None = None
    _lost: asyncio.Event = field(default_factory=asyncio.Event)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._lost.set()
        self._fail(f"the server closed the connection: {exc}")

    async def hang_up(self) -> None:
        """Close it, and return when it is closed: a server that ends waits for those that are open."""
        self.transport.abort()
        await self._lost.wait()

    async def ask(self, requests: list[bytes], seconds: float) -> bytes:
        """Send ``requests`` one after the other until they are out or the time is; return the last answer."""
        if self.transport.is_closing():
            raise RuntimeError("the server closed the connection")
        self.micros, self._waiting = [], requests[::-1]
        self._until = time.perf_counter() + seconds
        self._done = asyncio.get_running_loop().create_future()
        self._send()
        async with asyncio.timeout(seconds + _PATIENCE):
            return await self._done

    def data_received(self, data: bytes) -> None:
        """Collect an answer; with the whole of it there, send the next request."""
        self._buffer += data
        end = self._buffer.find(_END)
        if end < 0:
            return
        length = _LENGTH.search(self._buffer, 0, end + 2)
        if length is None:
            self._fail(f"an answer without its length: {bytes(self._buffer[:200])!r}")
            return
        if len(self._buffer) < (whole := end + len(_END) + int(length[1])):
            return
        self.micros.append((time.perf_counter_ns() - self._sent) / 1000)
        answer = bytes(self._buffer[:whole])
        del self._buffer[:whole]
        if not self.accepted(answer):
            self._fail(f"the benchmark's own call was refused: {answer!r}")
        elif self._waiting and time.perf_counter() < self._until:
            self._send()
        elif self._done is not None and not self._done.done():
            self._done.set_result(answer)

    def _send(self) -> None:
        request = self._waiting.pop()
        self._sent = time.perf_counter_ns()
        self.transport.write(request)

    def _fail(self, why: str) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(RuntimeError(why))


async def connect(port: int, context: ssl.SSLContext, accepted: Callable[[bytes], bool]) -> Line:
    """Return a connection to ``port`` of this machine."""
    loop = asyncio.get_running_loop()
    _, line = await loop.create_connection(lambda: Line(accepted), "127.0.0.1", port, ssl=context)
    return line


async def load(
    lines: Sequence[Line], requests: Sequence[list[bytes]], seconds: float, spent: Callable[[], float]
) -> Load:
    """Ask on every line at once. ``spent`` returns the CPU seconds of the server."""
    before, own, began = spent(), time.process_time(), time.perf_counter()
    await asyncio.gather(*(line.ask(given, seconds) for line, given in zip(lines, requests, strict=True)))
    wall, own, cpu = time.perf_counter() - began, time.process_time() - own, spent() - before
    return Load([each for line in lines for each in line.micros], wall, cpu, own)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of all threads of ``pid`` that live, the kernel's part in them included."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in threads) / 1e9


def megabytes(pid: int) -> float:
    """Return the memory that ``pid`` has resident, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
