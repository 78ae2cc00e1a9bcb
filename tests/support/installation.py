"""Everything as separate processes on a real API server with simulated TPMs, and two agents that call without end."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import httpx

from countersign.demo.layout import SYSTEM, neighbours
from countersign.demo.machine import Machine
from countersign.demo.opening import applied, established
from countersign.demo.processes import ready_code, until
from countersign.devcluster import find_or_build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEADERS = {
    "accept": "application/json, text/event-stream",
    "content-type": "application/json",
    "mcp-protocol-version": "2025-11-25",
}
OK = "ok"
HOPELESS = "policy.default_deny"


class Calls:
    """An agent's calls, one after the other, of which each fifth may never be allowed; what came of each is counted."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.codes: Counter[str] = Counter()
        self.failed: list[str] = []
        """What went otherwise than it must while nothing is broken, with the time."""
        self.wrong: list[str] = []
        """Calls that were allowed and must not be."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(timeout=30) as client:
            number = 0
            while not self._stop.wait(0.02):
                number += 1
                hopeless = number % 5 == 0
                code = call(client, self._url, "delete_customer" if hopeless else "get_charge", number)
                self.codes[code] += 1
                if hopeless and code == OK:
                    self.wrong.append(code)
                if code != (HOPELESS if hopeless else OK):
                    self.failed.append(f"{time.strftime('%H:%M:%S')} {code}")


def call(client: httpx.Client, url: str, tool: str, number: int) -> str:
    """Call a tool through a signer; return ``ok`` or the code of the refusal."""
    arguments = {"customer": "cus_1"} if tool == "delete_customer" else {"charge": "ch_1"}
    params = {"name": tool, "arguments": arguments}
    message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    try:
        answer = client.post(url, json=message, headers=HEADERS)
    except httpx.HTTPError as error:
        return type(error).__name__
    text = answer.text
    if text.startswith(("event:", "data:")):
        text = next(line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: "))
    try:
        document = json.loads(text)
    except ValueError:
        return f"status {answer.status_code}"
    if "result" in document and not document["result"].get("isError"):
        return OK
    return str((document.get("error", {}).get("data") or {}).get("code") or document.get("code") or text[:200])


class Installation:
    """The processes of one installation, by the demo's own machine; ports are free ones."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.ports: dict[str, int] = {}
        self.calls: dict[str, Calls] = {}

    def enrol(self) -> None:
        """Make the two agents' pods and start their signers."""
        story = self.machine.quickstart
        self.machine.admin.apply(story.pod_objects())
        for name in story.pods:
            self.start_signer(name)
        for name in story.pods:
            self.await_ready(self.ports[name] + 1, f"signer-{name}")

    def start_signer(self, name: str, env: dict[str, str] | None = None) -> None:
        """Start the signer of pod ``name``; ``env`` is for tools of tests."""
        pod = self.machine.pods.get(name) or self.machine.run_pod(name)
        port = self.ports.setdefault(name, neighbours())
        self.machine.start_signer(f"signer-{name}", pod, self.machine.tpm_of(pod.node), port, env or {})

    def await_ready(self, port: int, name: str, seconds: float = 60) -> None:
        if until(lambda: ready_code(port)[0] == 200, seconds) is None:
            raise AssertionError(f"{name}: {ready_code(port)[1]}\n{self.log(name)[-3000:]}")

    def begin(self) -> None:
        """Let both agents call, and return when each was answered."""
        for name in self.machine.quickstart.pods:
            self.calls[name] = Calls(self.url(name))
            self.calls[name].start()
        self.more(1)

    def end(self) -> None:
        """Let no agent call any more; what came of the calls stays to be read."""
        for one in self.calls.values():
            one.stop()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}/{self.machine.quickstart.server}"

    def more(self, count: int, seconds: float = 60) -> None:
        """Return when each agent was allowed ``count`` more calls."""
        goals = {name: one.codes[OK] + count for name, one in self.calls.items()}
        self.until(lambda: all(self.calls[name].codes[OK] >= goal for name, goal in goals.items()), "calls", seconds)

    def until(self, true: Callable[[], bool], what: str, seconds: float = 60) -> None:
        if until(true, seconds, every=0.2) is None:
            raise AssertionError(f"not within {seconds:.0f} s: {what}; failed calls: {self.failed[-5:]}")

    @property
    def failed(self) -> list[str]:
        return [f"{name} {one}" for name, calls in self.calls.items() for one in calls.failed]

    @property
    def wrong(self) -> list[str]:
        return [f"{name} {one}" for name, calls in self.calls.items() for one in calls.wrong]

    @property
    def count(self) -> int:
        return sum(sum(calls.codes.values()) for calls in self.calls.values())

    def log(self, process: str, since: int = 0) -> str:
        """What a process has written; ``since`` is how much of it is of no interest."""
        return (self.machine.layout.directory / "logs" / f"{process}.log").read_text()[since:]

    def metrics(self, port: int, name: str) -> dict[str, float]:
        """The samples of a metric at a health port, by their labels as text."""
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        found = [line.rpartition(" ") for line in lines if line.startswith((f"{name}{{", f"{name} "))]
        return {labels.removeprefix(name): float(value) for labels, _, value in found}

    def secret(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.machine.admin.get("secret", name, "-n", SYSTEM)
        return found

    def rotate(self, *names: str) -> None:
        """Ask for a rotation as a person does."""
        for name in names:
            self.machine.admin.run("annotate", "secret", name, "-n", SYSTEM, "countersign.dev/rotate=now")


SETTINGS = {
    # Signers read the trust files again every ten seconds.
    "operator": {"overlap": {"ahead_seconds": 45, "kept_seconds": 15}},  # a verifier asks for a key it lacks each 30 s
    "authority": {"overlap": {"ahead_seconds": 10}},
}
"""Rotations take ten minutes and more; here they do not."""


@contextlib.contextmanager
def installed() -> Iterator[Installation]:
    """Start everything, the quickstart applied and two agents enrolled."""
    directory = Path(tempfile.mkdtemp(prefix="cs-"))  # short: a TPM's socket has a limited path
    machine = Machine(directory / "m", find_or_build(), lambda _text: None, more=SETTINGS)
    found = Installation(machine)
    try:
        established(machine)
        applied(machine)
        found.enrol()
        yield found
    finally:
        found.end()
        machine.stop()
        shutil.rmtree(directory, ignore_errors=True)
