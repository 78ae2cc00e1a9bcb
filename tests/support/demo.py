"""One run of the console, and what a kept demo says of itself."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CONSOLE = Path(sys.executable).with_name("countersign")


@dataclass(frozen=True)
class Ran:
    """One run of a command: exit status, what it printed, and the environment it had."""

    status: int
    out: str
    err: str

    @property
    def scenes(self) -> dict[str, dict[str, Any]]:
        return {scene["name"]: scene for scene in json.loads(self.out)["scenes"]}


def run(*words: str, env: dict[str, str]) -> Ran:
    done = subprocess.run([_CONSOLE, *words], capture_output=True, text=True, env=env, timeout=280, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Kept:
    """A demo that runs on: what its command printed, and its ``demo.json``."""

    ran: Ran
    document: dict[str, Any]
    env: dict[str, str]
