"""The writer: one log for each start of a process, chained, on disk before ``append`` returns."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import secrets
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from countersign.audit.chain import (
    NO_PREVIOUS,
    digest,
    encode,
    group,
    links,
    parse_line,
    read_log,
    segment_name,
)
from countersign.audit.ids import new_decision_id
from countersign.audit.record import open_record
from countersign.canonical import CanonicalizationError
from countersign.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from countersign.clock import Clock

__all__ = ["AuditLog"]

_LOG: Final = structlog.get_logger(__name__)
_WAITING_MAX: Final = 4096
_SEGMENT_BYTES: Final = 64 << 20
_CHUNK: Final = 1 << 20
_LOCK: Final = ".lock"
_PROCESS: Final = re.compile(r"[a-z0-9-]{1,63}")

Waiting = tuple[dict[str, Any], "asyncio.Future[None]"]


class AuditLog:
    """An append-only, hash-chained log. Open one with :meth:`open`.

    Appends that wait at the same time share one ``fsync``. After the first error of the disk nothing is accepted any more:
    a log with a hole would be worse than a process that says no (E1).
    """

    def __init__(self, start: _Start, *, segment_bytes: int) -> None:
        """Take over an open, locked file; a further file is begun where one would grow over ``segment_bytes``."""
        self.path = start.path
        self.name = start.path.stem
        self._descriptor = self._first = start.descriptor
        self._segment, self._segment_bytes = 0, segment_bytes
        self._head, self._next, self._size = digest(start.line), 1, len(start.line) + 1
        self._position = (0, self._head)
        self.write_seconds = 0.0
        self._listeners: list[Callable[[], None]] = []
        self._waiting: deque[Waiting] = deque()
        self._wake = asyncio.Event()
        self._broken, self._closing = False, False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit")
        self._writer = asyncio.create_task(self._write(), name=f"audit {self.name}")

    @classmethod
    async def open(
        cls, directory: Path, *, process: str, clock: Clock, segment_bytes: int = _SEGMENT_BYTES
    ) -> AuditLog:
        """Start a new log in ``directory``; its first record names the logs that ended here and that none follows yet.

        Raises
        ------
        Unavailable
            ``audit.unavailable`` if the directory or the file cannot be written.

        """
        name = process if process.startswith("countersign-") else f"countersign-{process}"
        if not _PROCESS.fullmatch(name):
            msg = f"not a process name: {process!r}"
            raise ValueError(msg)
        try:
            start = await asyncio.to_thread(_start, directory, name, clock)
        except OSError as error:
            raise Unavailable("audit.unavailable", f"cannot open a log: {error.strerror}") from error
        return cls(start, segment_bytes=segment_bytes)

    @property
    def position(self) -> tuple[int, str]:
        """Seq and digest of the last line that is on disk."""
        return self._position

    @property
    def backlog(self) -> int:
        """How many records wait for the disk, beside those that are being written."""
        return len(self._waiting)

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after each write."""
        self._listeners.append(callback)

    @property
    def ready(self) -> bool:
        """Whether records are accepted."""
        return not (self._broken or self._closing)

    async def append(self, record: dict[str, Any]) -> None:
        """Write ``record`` and return when it is on disk.

        Raises
        ------
        Unavailable
            ``audit.unavailable`` if it is not, or may not be.

        """
        if not self.ready or len(self._waiting) >= _WAITING_MAX:
            raise Unavailable("audit.unavailable", "the log takes no records")
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((record, written))
        self._wake.set()
        await written

    async def aclose(self) -> None:
        """Write what waits, close the file; later appends are refused."""
        if self._closing:
            return
        self._closing = True
        self._wake.set()
        await self._writer
        self._thread.shutdown()
        for descriptor in {self._first, self._descriptor}:
            os.close(descriptor)

    async def _write(self) -> None:
        while self._waiting or not self._closing:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch = list(self._waiting)
                self._waiting.clear()
                if self._broken or not await self._put(batch):
                    _fail(batch)

    async def _put(self, batch: list[Waiting]) -> bool:
        """Put a batch on disk and tell those who wait; False if it may not be there, and then nothing follows it."""
        data, good = self._encode(batch)
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await loop.run_in_executor(self._thread, self._store, data)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, these records are not known to be on disk
            self._broken = True
            _LOG.error("audit log broken", log=self.name, error=str(error))
            return False
        self.write_seconds = loop.time() - began
        self._position = (self._next - 1, self._head)
        for _record, written in good:
            if not written.done():
                written.set_result(None)
        for listener in self._listeners:
            listener()
        return True

    def _store(self, data: bytes) -> None:
        """Write and sync, in a further file if this one is full; the writer's thread alone runs this."""
        _require_untouched(self._descriptor, self.path, self._size)
        if self._size and self._size + len(data) > self._segment_bytes:
            path = self.path.with_name(segment_name(self.name, self._segment + 1))
            descriptor = _create(path)
            # The first file stays open: its lock says that the log is being written.
            if self._descriptor != self._first:
                os.close(self._descriptor)
            self._descriptor, self.path, self._size, self._segment = descriptor, path, 0, self._segment + 1
            _sync(path.parent)
        _put(self._descriptor, data)
        self._size += len(data)

    def _encode(self, batch: list[Waiting]) -> tuple[bytes, list[Waiting]]:
        """Return the lines of a batch; a record that has no RFC 8785 form is refused alone."""
        lines: list[bytes] = []
        good: list[Waiting] = []
        for record, written in batch:
            try:
                line = encode(record, log=self.name, seq=self._next, prev=self._head)
            except (CanonicalizationError, RecursionError, ValueError, TypeError):
                _LOG.exception("audit record refused", log=self.name)
                _fail([(record, written)])
                continue
            self._head, self._next = digest(line), self._next + 1
            lines.append(line)
            good.append((record, written))
        return b"".join(line + b"\n" for line in lines), good


def _fail(batch: list[Waiting]) -> None:
    for _record, written in batch:
        if not written.done():
            written.set_exception(Unavailable("audit.unavailable", "the record could not be written"))


def _require_untouched(descriptor: int, path: Path, size: int) -> None:
    """Go on only with the very file, of the very size, that this writer left behind."""
    mine, there = os.fstat(descriptor), path.stat()
    if (mine.st_dev, mine.st_ino) != (there.st_dev, there.st_ino) or mine.st_size != size:
        raise OSError(errno.ESTALE, "the log was replaced, removed or changed")


def _create(path: Path) -> int:
    """Make a new file and lock it: whoever starts next can tell a log that ended from one being written."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _put(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fdatasync(descriptor)


@dataclass(frozen=True)
class _Start:
    """A log that was begun: its open, locked file and its first line."""

    descriptor: int
    path: Path
    line: bytes


def _start(directory: Path, process: str, clock: Clock) -> _Start:
    """Make the log's file with its first line, durably; one writer at a time looks for the logs to follow."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(directory / _LOCK):
        ended, beside = _others(directory)
        path = directory / f"{process}-{secrets.token_hex(2)}-{new_decision_id()[:13].replace('-', '')}.jsonl"
        line = encode(
            open_record(new_decision_id(), clock.now(), ended, beside, process=process),
            log=path.stem,
            seq=0,
            prev=NO_PREVIOUS,
        )
        descriptor = _create(path)
        try:
            _put(descriptor, line + b"\n")
            _sync(directory)
        except OSError:
            os.close(descriptor)
            raise
    for follows in ended:
        if "torn" in follows:
            _LOG.warning("a log before ends in an unfinished line", log=follows["log"], torn=follows["torn"])
    return _Start(descriptor, path, line)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _others(directory: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the heads of the logs that ended here and that none follows yet, the last one first, and who still writes.

    A line that a crash tore is not part of the chain; its bytes are named, so that nobody can remove or add any later.
    """
    logs = group(directory.glob("*.jsonl"))
    followed = {name for files in logs.values() for name in _followed(files[0])}
    beside = [name for name, files in logs.items() if any(_held(path) for path in files)]
    ended = [files for name, files in logs.items() if name not in followed and name not in beside]
    heads = [_end_of(files) for files in sorted(ended, key=_last_change, reverse=True)]
    return [head for head in heads if head is not None], beside


def _last_change(files: Sequence[Path]) -> int:
    return max(path.stat().st_mtime_ns for path in files)


def _end_of(files: Sequence[Path]) -> dict[str, Any] | None:
    """Return how a log ended, reading no more of it into memory than its last file; None for one without a byte."""
    written = [path for path in files if path.stat().st_size]
    if not written:
        return None
    log = read_log(written[-1:])
    before = sum(_count_lines(path) for path in written[:-1])
    follows: dict[str, Any] = {
        "log": log.name,
        "seq": before + len(log.lines) - 1,
        "head": log.head or _last_digest(written[:-1]),
    }
    if log.torn:
        follows["torn"] = {"bytes": len(log.torn), "digest": digest(log.torn)}
    return follows


def _last_digest(files: Sequence[Path]) -> str:
    """Return the digest of the last line of ``files``, where the last file of all has only an unfinished one."""
    return (read_log(files[-1:]).head or NO_PREVIOUS) if files else NO_PREVIOUS


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(_CHUNK), b""))


def _held(path: Path) -> bool:
    """Whether a writer still holds the log."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _followed(path: Path) -> list[str]:
    """Return the names of the logs that the one that begins at ``path`` follows."""
    with path.open("rb") as file:
        record = parse_line(file.readline().rstrip(b"\n"))
    return [str(link["log"]) for link in links(record)]
