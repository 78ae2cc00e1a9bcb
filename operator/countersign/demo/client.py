"""The agent's process, driven from outside: what it is asked, what it answers, and what it holds."""

from __future__ import annotations

import json
import re
import selectors
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Agent", "AgentError", "credentials_in"]

_SECONDS: Final = 60.0
_TOKEN: Final = re.compile(rb"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}")
_KEY: Final = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\n[A-Za-z0-9+/=]{20,}")
_CHUNK: Final = 1 << 22


class AgentError(Exception):
    """The agent's process ended or does not answer."""


class Agent:
    """A running agent; its environment is exactly ``env``."""

    def __init__(self, name: str, url: str, directory: Path, env: Mapping[str, str]) -> None:
        """Start the process and return when its MCP client is connected. Raises :class:`AgentError`."""
        directory.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.notes = directory / "notes.jsonl"
        command = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", "countersign.demo.agent", url]
        with (directory / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, str(self.notes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=dict(env),
                cwd=directory,
                start_new_session=True,
            )
        self._log = directory / "agent.log"
        if self._read().get("ready") is not True:
            raise AgentError(f"agent {name} did not start: {self._log}")

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call ``tool`` and return ``{"result": …}`` or ``{"refused": {"code", "message", "data"}}``."""
        return self._ask({"call": tool, "arguments": arguments})

    def tools(self) -> list[str]:
        """Return the names that ``tools/list`` shows; empty if it is refused."""
        names: list[str] = self._ask({"list": True}).get("tools", [])
        return names

    def stop(self) -> None:
        """End the process. Safe to call twice."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Self:
        """Return the agent itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.stop()

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        if self.process.stdin is None or self.process.poll() is not None:
            raise AgentError(f"agent {self.name} ended: {self._log}")
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            line = self.process.stdout.readline() if selector.select(_SECONDS) else b""
        if not line:
            raise AgentError(f"agent {self.name} gave no answer: {self._log.read_text(errors='replace')[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _held(pid: int, directory: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what process ``pid`` holds: environment, arguments, open and written files, and all readable memory."""
    place = Path(f"/proc/{pid}")
    yield "environment", (place / "environ").read_bytes()
    yield "arguments", (place / "cmdline").read_bytes()
    opened = {link.resolve() for link in (place / "fd").iterdir() if link.resolve().is_file()}
    for path in sorted(opened | {each for each in directory.rglob("*") if each.is_file()}):
        yield f"file {path.name}", path.read_bytes()
    with (place / "mem").open("rb", buffering=0) as memory:
        for line in (place / "maps").read_text().splitlines():
            span, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue  # what is not writable was never filled at run time
            begin, end = (int(part, 16) for part in span.split("-"))
            yield "memory", _region(memory, begin, end)


def _region(memory: Any, begin: int, end: int) -> bytes:
    """Return the bytes from ``begin`` to ``end``; shorter where the kernel refuses a part."""
    read = bytearray()
    try:
        memory.seek(begin)
        while begin + len(read) < end:
            part = memory.read(min(_CHUNK, end - begin - len(read)))
            if not part:
                break
            read += part
    except (OSError, OverflowError, ValueError):
        pass  # [vvar] and the like cannot be read, by anybody
    return bytes(read)


def credentials_in(pid: int, directory: Path, secrets: Mapping[str, bytes]) -> tuple[list[str], int]:
    """Look through all that process ``pid`` holds for ``secrets`` (name → bytes), any signed token, any private key.

    Returns the findings, and how many bytes were searched.
    """
    found: set[str] = set()
    searched = 0
    for where, data in _held(pid, directory):
        searched += len(data)
        found |= {f"{name} in {where}" for name, secret in secrets.items() if secret in data}
        found |= {f"a signed token in {where}"} if _TOKEN.search(data) else set()
        found |= {f"a private key in {where}"} if _KEY.search(data) else set()
    return sorted(found), searched
