"""Start programs so that none outlives its purpose, and stop exactly those that were started.

A child started here is killed by the kernel when its parent dies (``setpriv --pdeathsig``, util-linux), so a crash of a
test or of the demo leaves nothing. Children meant to outlive their parent (``countersign dev up``) are recorded instead:
pid and start time, so that a reused pid is never killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Child", "Recorded", "start", "start_time"]

_STATE_FIELD = 0
_START_FIELD = 19  # of /proc/PID/stat, counted after the command's closing parenthesis


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()


def start_time(pid: int) -> int | None:
    """Return when process ``pid`` began, in clock ticks since boot; ``None`` if it does not run (a zombie does not)."""
    fields = _stat(pid)
    if not fields or fields[_STATE_FIELD] in {"Z", "X"}:
        return None
    return int(fields[_START_FIELD])


@dataclass(frozen=True)
class Recorded:
    """A process that may belong to an earlier run: killed only if its start time still fits."""

    name: str
    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """True while the very process that was recorded runs."""
        return start_time(self.pid) == self.started

    def stop(self, grace: float = 5) -> None:
        """End the process: SIGTERM, then SIGKILL after ``grace`` seconds. Nothing happens if it is gone."""
        waits: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0))
        for number, seconds in waits:
            if not self.alive:
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
            end = time.monotonic() + seconds
            while start_time(self.pid) == self.started and time.monotonic() < end:
                time.sleep(0.02)


@dataclass
class Child:
    """A running program, its log and the way to end it."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    started: int = field(default=0)

    @property
    def alive(self) -> bool:
        """True while the program runs."""
        return self.process.poll() is None

    @property
    def record(self) -> Recorded:
        """What a state file keeps of this program."""
        return Recorded(self.name, self.process.pid, self.started)

    def stop(self, grace: float = 5) -> int:
        """End the program, SIGTERM then SIGKILL after ``grace`` seconds, and return its exit status."""
        if self.alive:
            self.process.terminate()
            try:
                return self.process.wait(grace)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()

    def kill(self) -> int:
        """End the program with SIGKILL, as a crash would, and return its exit status."""
        self.process.kill()
        return self.process.wait()

    def tail(self, lines: int = 15) -> str:
        """Return the end of the program's log, for an error message."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def start(
    name: str,
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    outlive: bool = False,
) -> Child:
    """Start ``command`` with its output appended to ``log``.

    ``env`` adds to this process's environment. Unless ``outlive``, the kernel kills the program when the calling
    *thread* ends: call from the main thread. The program gets a session of its own, so that Ctrl-C reaches only us.
    """
    words = [str(word) for word in command]
    if not outlive and (setpriv := shutil.which("setpriv")):
        words = [setpriv, "--pdeathsig", "KILL", "--", *words]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
    return Child(name, process, log, start_time(process.pid) or 0)
