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
from typing import TYPE_CHECKING, Any, Final

import rfc8785
import structlog

from countersign.audit.chain import NO_PREVIOUS, digest, encode, ours, parse_line, read_log
from countersign.audit.ids import new_decision_id
from countersign.audit.record import open_record
from countersign.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from countersign.clock import Clock

__all__ = ["AuditLog"]

_LOG: Final = structlog.get_logger(__name__)
_WAITING_MAX: Final = 4096
_LOCK: Final = ".lock"
_PROCESS: Final = re.compile(r"[a-z0-9-]{1,63}")

Waiting = tuple[dict[str, Any], "asyncio.Future[None]"]


class AuditLog:
    """An append-only, hash-chained log. Open one with :meth:`open`.

    Appends that wait at the same time share one ``fsync``. After the first error of the disk nothing is accepted any more:
    a log with a hole would be worse than a process that says no (E1).
    """

    def __init__(self, descriptor: int, path: Path, *, head: str, size: int) -> None:
        """Take over an open, locked file of ``size`` bytes whose first line has the digest ``head``."""
        self.path = path
        self.name = path.stem
        self._descriptor = descriptor
        self._head, self._next, self._size = head, 1, size
        self._waiting: deque[Waiting] = deque()
        self._wake = asyncio.Event()
        self._broken, self._closing = False, False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit")
        self._writer = asyncio.create_task(self._write(), name=f"audit {self.name}")

    @classmethod
    async def open(cls, directory: Path, *, process: str, clock: Clock) -> AuditLog:
        """Start a new log in ``directory``; its first record names the log that it follows, if one ended here.

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
            descriptor, path, line = await asyncio.to_thread(_start, directory, name, clock)
        except OSError as error:
            raise Unavailable("audit.unavailable", f"cannot open a log: {error.strerror}") from error
        return cls(descriptor, path, head=digest(line), size=len(line) + 1)

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
        os.close(self._descriptor)

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
        try:
            await loop.run_in_executor(self._thread, _append, self._descriptor, self.path, self._size, data)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, these records are not known to be on disk
            self._broken = True
            _LOG.error("audit log broken", log=self.name, error=str(error))
            return False
        self._size += len(data)
        for _record, written in good:
            if not written.done():
                written.set_result(None)
        return True

    def _encode(self, batch: list[Waiting]) -> tuple[bytes, list[Waiting]]:
        """Return the lines of a batch; a record that has no RFC 8785 form is refused alone."""
        lines: list[bytes] = []
        good: list[Waiting] = []
        for record, written in batch:
            try:
                line = encode(record, log=self.name, seq=self._next, prev=self._head)
            except (rfc8785.CanonicalizationError, RecursionError, ValueError, TypeError):
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


def _append(descriptor: int, path: Path, size: int, data: bytes) -> None:
    """Write and sync, but only onto the very file, of the very size, that this writer left behind."""
    mine, there = os.fstat(descriptor), path.stat()
    if (mine.st_dev, mine.st_ino) != (there.st_dev, there.st_ino) or mine.st_size != size:
        raise OSError(errno.ESTALE, "the log was replaced, removed or changed")
    _put(descriptor, data)


def _put(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fdatasync(descriptor)


def _start(directory: Path, process: str, clock: Clock) -> tuple[int, Path, bytes]:
    """Make the log's file with its first line, durably; one writer at a time looks for the log to follow."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(directory / _LOCK):
        follows = _ended(directory)
        path = directory / f"{process}-{secrets.token_hex(2)}-{new_decision_id()[:13].replace('-', '')}.jsonl"
        line = encode(open_record(new_decision_id(), clock.now(), follows), log=path.stem, seq=0, prev=NO_PREVIOUS)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Held as long as the process lives: whoever starts next can tell a log that ended from one being written.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _put(descriptor, line + b"\n")
            _sync(directory)
        except OSError:
            os.close(descriptor)
            raise
    if follows is not None and "torn" in follows:
        _LOG.warning("the log before ends in an unfinished line", log=follows["log"], torn=follows["torn"])
    return descriptor, path, line


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


def _ended(directory: Path) -> dict[str, Any] | None:
    """Return the head of the log that ended last here and that none follows yet; None if there is none.

    A line that a crash tore is not part of the chain; its bytes are named, so that nobody can remove or add any later.
    """
    logs = [path for path in directory.glob("*.jsonl") if not _held(path)]
    followed = {_followed(path) for path in directory.glob("*.jsonl")}
    for path in sorted(logs, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        if path.stem in followed:
            continue
        log = read_log(path)
        if log.head is None and not log.torn:
            continue
        follows: dict[str, Any] = {"log": log.name, "seq": len(log.lines) - 1, "head": log.head or NO_PREVIOUS}
        if log.torn:
            follows["torn"] = {"bytes": len(log.torn), "digest": digest(log.torn)}
        return follows
    return None


def _held(path: Path) -> bool:
    """Whether a writer still holds the log."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _followed(path: Path) -> str | None:
    """Return the name of the log that the one at ``path`` follows."""
    with path.open("rb") as file:
        record = parse_line(file.readline().rstrip(b"\n"))
    follows = ours(record).get("follows")
    name = follows.get("log") if isinstance(follows, dict) else None
    return name if isinstance(name, str) else None
