"""A real Redis for a test: on a socket of its own, without persistence. Debian's redis-tools brings the program, no service."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class RedisServer:
    """One process. ``url`` is its socket's; commands go over it as an operator would type them."""

    def __init__(self, directory: Path, *options: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.options = directory, options
        self.socket = directory / "s"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = self.directory / "redis-server"  # one binary: its name says what it is
        if not program.exists():
            found = shutil.which("redis-server") or shutil.which("redis-check-rdb")
            assert found, "redis-tools is missing: make packages"
            program.symlink_to(found)
        words = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"]
        words += ["--dir", str(self.directory), "--maxmemory", "64mb", "--maxmemory-policy", "noeviction"]
        self._process = subprocess.Popen(
            [str(program), *words, *self.options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 10
        while not self._answers():
            assert time.monotonic() < end, "redis does not start"
            time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.socket.unlink(missing_ok=True)

    def command(self, *words: str) -> bytes:
        """Send one command and return what comes back at first."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.socket))
            parts = [b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(one), one.encode()) for one in words)]
            connection.sendall(b"".join(parts))
            return connection.recv(65536)

    def freeze(self, *, seconds: float) -> None:
        """Let it answer nobody for a while."""
        self.command("CLIENT", "PAUSE", str(int(seconds * 1000)), "ALL")

    def _answers(self) -> bool:
        try:
            return self.command("PING").startswith(b"+PONG")
        except OSError:
            return False
