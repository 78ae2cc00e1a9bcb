"""What runs on this machine: one ``state.json`` per run, below ``~/.cache/countersign/run/``."""

from __future__ import annotations

import fcntl
import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from countersign.devcluster.binaries import cache_directory
from countersign.devcluster.pki import write_private
from countersign.devcluster.process import Recorded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["NODES", "Run", "forget", "read", "run_directory", "runs", "single", "stop", "write"]

_FILE = "state.json"
NODES = "e2e"
"""The run of ``make e2e``: its nodes have a bridge and cgroups beside processes, and its own command takes them away."""


@dataclass(frozen=True)
class Run:
    """A run that was left running: its name, folder, API server and processes, in the order they are to be stopped."""

    name: str
    directory: Path
    url: str
    kubeconfig: Path
    processes: tuple[Recorded, ...]

    @property
    def document(self) -> dict[str, Any]:
        """The run as ``countersign dev status -o json`` prints it."""
        return {
            "name": self.name,
            "running": any(each.alive for each in self.processes),
            "directory": str(self.directory),
            "url": self.url,
            "kubeconfig": str(self.kubeconfig),
            "processes": [{**asdict(each), "alive": each.alive} for each in self.processes],
        }


def run_directory(name: str) -> Path:
    """Return the folder of the run called ``name``."""
    return cache_directory() / "run" / name


@contextmanager
def single(name: str) -> Iterator[None]:
    """Hold the lock of the run called ``name``: two starts at once would take each other for leftovers."""
    place = run_directory(name).parent
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (place / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write(run: Run) -> None:
    """Record ``run`` in its folder."""
    run.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(run.directory / _FILE, json.dumps(run.document, indent=1).encode())


def read(name: str) -> Run | None:
    """Return the recorded run called ``name``, ``None`` if there is none or its file cannot be read."""
    directory = run_directory(name)
    try:
        found = json.loads((directory / _FILE).read_bytes())
        processes = tuple(Recorded(each["name"], each["pid"], each["started"]) for each in found["processes"])
        return Run(found["name"], directory, found["url"], directory / found["kubeconfig"], processes)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def runs() -> list[Run]:
    """Return every recorded run, by name."""
    place = cache_directory() / "run"
    names = sorted(each.parent.name for each in place.glob(f"*/{_FILE}"))
    return [run for name in names if (run := read(name)) is not None]


def stop(run: Run) -> None:
    """End what still runs of ``run`` and forget it."""
    for each in run.processes:
        each.stop()
    forget(run.name)


def forget(name: str) -> None:
    """Remove the record of the run called ``name``. Its folder, with the logs, stays."""
    (run_directory(name) / _FILE).unlink(missing_ok=True)
