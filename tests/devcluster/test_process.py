"""No process outlives its purpose, and only what was started is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from countersign.devcluster import start, start_time

if TYPE_CHECKING:
    from pathlib import Path

PARENT = """
import sys, pathlib
from countersign.devcluster import start
child = start("child", ["sleep", "600"], log=pathlib.Path(sys.argv[1]))
print(child.process.pid, flush=True)
sys.stdin.read()
"""


def gone(pid: int) -> bool:
    end = time.monotonic() + 5
    while start_time(pid) is not None and time.monotonic() < end:
        time.sleep(0.01)
    return start_time(pid) is None


def test_a_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    child = int(parent.stdout.readline())
    assert start_time(child) is not None
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    parent.stdin.close()
    assert gone(child)


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    child = start("deaf", [sys.executable, "-c", script], log=tmp_path / "log")
    end = time.monotonic() + 10
    while "deaf" not in child.tail() and time.monotonic() < end:
        time.sleep(0.01)
    assert child.stop(grace=0.1) == -signal.SIGKILL
    assert child.stop() == -signal.SIGKILL


def test_the_end_of_the_log_is_kept_for_the_error(tmp_path: Path) -> None:
    child = start("loud", ["sh", "-c", "echo one; echo two >&2; exit 3"], log=tmp_path / "log")
    assert child.process.wait() == 3
    assert child.tail() == "one\ntwo"


def test_a_recorded_process_is_stopped_and_a_reused_pid_is_not(tmp_path: Path) -> None:
    child = start("child", ["sleep", "600"], log=tmp_path / "log", outlive=True)
    stranger = replace(child.record, started=child.record.started + 1)
    assert not stranger.alive
    stranger.stop()
    assert child.alive
    assert child.record.alive
    child.record.stop()
    assert child.process.wait() == -signal.SIGTERM
    child.record.stop()


def test_a_pid_that_never_was_has_no_start_time() -> None:
    assert start_time(2**22 + 1) is None
    assert start_time(os.getpid()) is not None


def test_a_program_that_is_missing_is_an_error_in_words(tmp_path: Path) -> None:
    child = start("missing", ["countersign-no-such-program"], log=tmp_path / "log")
    assert child.process.wait() == 127
    assert "countersign-no-such-program" in child.tail()
