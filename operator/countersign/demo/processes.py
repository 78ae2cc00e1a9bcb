"""The processes of the story: started by their console commands, awaited by their readiness, ended together."""

from __future__ import annotations

import os
import socket
import sys
import time
import uuid
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Final

from countersign.devcluster import Child, start

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["MARK", "ProcessError", "Processes", "console", "leftovers", "ready_code", "until"]

MARK: Final = "COUNTERSIGN_DEMO_RUN"
"""Environment variable that every process of a run inherits: so that one left behind is found, whoever started it."""
_OK: Final = 200


class ProcessError(Exception):
    """A process did not become ready; the text has the end of its log."""


def console() -> Path:
    """Return the ``countersign`` program of this installation."""
    return Path(sys.executable).with_name("countersign")


def until(done: Callable[[], bool], seconds: float, every: float = 0.05) -> float | None:
    """Ask ``done`` until it says yes; return the seconds that it took, ``None`` if it did not within ``seconds``."""
    began = time.monotonic()
    while not done():
        if time.monotonic() - began > seconds:
            return None
        time.sleep(every)
    return time.monotonic() - began


def ready_code(port: int) -> tuple[int, str]:
    """Return status and body of ``/readyz`` on 127.0.0.1:``port``; ``(0, reason)`` if nobody answers."""
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()


def _listens(port: int) -> bool:
    with socket.socket() as one:
        one.settimeout(1)
        return one.connect_ex(("127.0.0.1", port)) == 0


class Processes:
    """Everything that one run started, by name."""

    def __init__(self, logs: Path, *, outlive: bool = False) -> None:
        """Write each process's log to ``logs/NAME.log``; with ``outlive`` they stay when this process ends."""
        self.mark = str(uuid.uuid4())
        # In our own environment too, so that what the control plane and the TPMs start carries it.
        os.environ[MARK] = self.mark
        self._logs = logs
        self._outlive = outlive
        self._running: dict[str, Child] = {}

    def start(self, name: str, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Child:
        """Start ``command`` under ``name``; a process of that name must not run."""
        if (child := self._running.get(name)) is not None and child.alive:
            raise ProcessError(f"{name} runs already")
        log = self._logs / f"{name}.log"
        self._running[name] = start(
            name, command, log=log, env={"PYTHONUNBUFFERED": "1", **(env or {})}, outlive=self._outlive
        )
        return self._running[name]

    def await_ready(self, name: str, health_port: int, seconds: float = 30) -> None:
        """Return when ``name`` says it is ready. Raises :class:`ProcessError` with its log if it ends or takes too long."""
        child = self._running[name]
        ready = until(lambda: not child.alive or ready_code(health_port)[0] == _OK, seconds)
        if ready is None or not child.alive:
            why = f"not ready after {seconds:.0f} s: {ready_code(health_port)[1]}" if child.alive else "ended"
            raise ProcessError(f"{name} {why}\n{child.tail()}")

    def await_listening(self, name: str, port: int, seconds: float = 30) -> None:
        """Return when somebody listens on 127.0.0.1:``port``; raises as :meth:`await_ready`."""
        child = self._running[name]
        if until(lambda: not child.alive or _listens(port), seconds) is None or not child.alive:
            raise ProcessError(f"{name} {'does not listen' if child.alive else 'ended'}\n{child.tail()}")

    def stop(self, name: str) -> None:
        """End ``name`` as a kubelet would: SIGTERM, then SIGKILL."""
        if child := self._running.pop(name, None):
            child.stop(12)

    def kill(self, name: str) -> None:
        """End ``name`` as a crash would."""
        self._running.pop(name).kill()

    def pid(self, name: str) -> int:
        """Return the pid of ``name``."""
        return self._running[name].process.pid

    @property
    def children(self) -> list[Child]:
        """The processes, in the order in which they were started."""
        return list(self._running.values())

    def stop_all(self) -> None:
        """End everything, last started first."""
        names = list(reversed(self._running))
        for name in names:
            self._running[name].process.terminate()
        for name in names:
            self.stop(name)


def leftovers(mark: str) -> list[int]:
    """Return the pids of processes of the run ``mark`` other than this one, whoever is their parent now."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if int(place.name) != os.getpid() and wanted in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
        except (OSError, ValueError):
            continue  # ended meanwhile, or another user's
    return found
