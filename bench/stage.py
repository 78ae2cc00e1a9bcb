"""The demo's machine in a folder of its own, for the benchmark: real processes up to an agent's certificate, and a bare twin.

Control plane, TPM simulators, operator, authority, webhook, tool server and signers, then the same tool server without its
verifier, and a pod whose signer's parts live in this process, so that its token exchange can be timed from inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

from countersign.attest.tpm import TpmDevice
from countersign.clock import SystemClock
from countersign.demo.machine import Machine
from countersign.demo.opening import applied, enrolled, established, injected
from countersign.demo.processes import leftovers
from countersign.devcluster import find_or_build, free_ports, missing_packages
from countersign.errors import Unavailable
from countersign.signer.door import Door
from countersign.signer.enrol import Enroller
from countersign.signer.front import FrontDoor
from countersign.signer.keyring import Keyring
from countersign.signer.metrics import SignerMetrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from countersign.demo.kubelet import PodFolder

__all__ = ["Stage", "front_of", "missing", "set_up"]

_ENROL_SECONDS = 30
_SECONDS = re.compile(r'countersign_webhook_request_seconds_(sum|count)\{endpoint="/token"\} (\S+)')


@dataclass(frozen=True)
class Stage:
    """What runs: the machine, the port of the bare tool server, and a pod that has no signer's process."""

    machine: Machine
    bare_port: int
    spare: PodFolder

    @property
    def decided(self) -> tuple[float, int]:
        """Seconds that the webhook has spent on ``/token``, by its own histogram, and how many requests that were."""
        port = self.machine.layout.ports.webhook_health
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            found = dict(_SECONDS.findall(answer.read().decode()))
        return float(found.get("sum", 0)), int(float(found.get("count", 0)))


def missing() -> str | None:
    """Say what this machine lacks, or return None."""
    lacking = missing_packages()
    return f"Debian packages are missing: {' '.join(lacking)}" if lacking else None


@contextlib.contextmanager
def set_up(told: Callable[[str], None]) -> Iterator[Stage]:
    """Bring everything up, and end all of it afterwards. To be called on the main thread: children end with it."""
    with tempfile.TemporaryDirectory(prefix="cs-bench-", ignore_cleanup_errors=True) as place:
        machine = Machine(Path(place) / "run", find_or_build(told), told)
        # Not the demo's own ports: one may be kept running on this machine.
        machine.quickstart.ports = (_port_pair(), _port_pair())
        try:
            for scene in (established, applied, injected, enrolled):
                told(f"bringing up the machine: {scene.__name__}")
                scene(machine)
            bare = _start_bare(machine)
            machine.admin.apply([machine.quickstart.spare_pod()])
            spare = machine.run_pod(machine.quickstart.spare)
            for agent in machine.agents.values():
                agent.stop()
            machine.keeper.stop()  # its kubectl every two seconds would be measured too
            yield Stage(machine, bare, spare)
        finally:
            machine.stop()
            for pid in leftovers(machine.processes.mark):  # a TPM's set-up that was interrupted leaves its simulator
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def front_of(stage: Stage) -> AsyncIterator[FrontDoor]:
    """Enrol the spare pod with its node's TPM, and yield what its signer asks the front door by."""
    clock, metrics = SystemClock(), SignerMetrics()
    device = await TpmDevice.open(stage.machine.tpm_of(stage.spare.node).tcti)
    enroller = Enroller(device, token_file=stage.spare.token)
    keyring = Keyring(device, enroller, trust_dir=stage.spare.trust, clock=clock, metrics=metrics)
    door = Door(stage.spare.trust, clock)
    renewing = asyncio.create_task(keyring.run())
    try:
        async with asyncio.timeout(_ENROL_SECONDS):
            while not _enrolled(keyring):  # noqa: ASYNC110 - a keyring tells nobody
                await asyncio.sleep(0.1)
        yield FrontDoor(door, keyring, clock, metrics)
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        await door.aclose()
        await device.aclose()


def _enrolled(keyring: Keyring) -> bool:
    try:
        keyring.current()
    except Unavailable:
        return False
    return True


def _start_bare(machine: Machine) -> int:
    """Serve the quickstart's tools without the verifier, by the same program; return the port."""
    port = free_ports(1)[0]
    program = Path(__file__).with_name("bare_server.py")
    captures = machine.captures.with_name("bare.jsonl")
    command: list[str | Path] = [sys.executable, "-m", "countersign.demo.toolserver", program]
    machine.processes.start("bare", [*command, f"127.0.0.1:{port}", captures])
    machine.processes.await_listening("bare", port)
    return port


def _port_pair() -> int:
    """Return a free port whose neighbour, for health, is free too. Linux gives out every other port: so ask for that one."""
    while True:
        port = free_ports(1)[0]
        with contextlib.suppress(OSError, OverflowError), socket.socket() as neighbour:
            neighbour.bind(("127.0.0.1", port + 1))
            return port
