"""The node's Devices: each TPM goes through leg E1 once (enrolment.md 2, Pending devices), and its facts are kept fresh.

What kubelet is told does not depend on it: whether a TPM is good enough is decided where an agent enrols with it.
"""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING, Any, Final

import structlog

from countersign.attest.client import AttestationClient, b64, prove
from countersign.attest.trust import read_trust
from countersign.errors import CountersignError, Denied, Unavailable
from countersign.kube import DEVICES, KubeError, NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime
    from pathlib import Path

    from countersign.attest import AttestationDevice
    from countersign.clock import Clock
    from countersign.kube import Kube
    from countersign.node.metrics import NodeMetrics
    from countersign.node.tpms import Tpms

__all__ = ["MANAGER", "SOURCE", "Proposing", "facts_of"]

MANAGER: Final = "countersign-node"
SOURCE: Final = "node"
_STATES: Final = ("Pending", "Approved", "Denied")
_AFTER_REFUSAL: Final = 60.0
_LONGEST_WAIT: Final = 60.0
_JITTER: Final = 0.1
_EXPONENT: Final = 6
_log = structlog.get_logger("countersign.node")


class Proposing:
    """Proposes what the node has; :meth:`run` until cancelled. ``devices`` are names and states by TPM, ``problems`` codes."""

    def __init__(
        self,
        tpms: Tpms,
        open_tpm: Callable[[str], Awaitable[AttestationDevice]],
        kube: Kube,
        *,
        trust_dir: Path,
        token_file: Path,
        facts_seconds: float,
        clock: Clock,
        metrics: NodeMetrics,
    ) -> None:
        """Keep the parts; ``open_tpm`` opens a TCTI string."""
        self._tpms = tpms
        self._open = open_tpm
        self._kube = kube
        self._trust_dir = trust_dir
        self._token_file = token_file
        self._facts_seconds = facts_seconds
        self._clock = clock
        self._metrics = metrics
        self._due: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self.devices: dict[str, tuple[str, str]] = {}
        self.problems: dict[str, str] = {}

    async def run(self, seconds: float) -> None:
        """Do what is due, again and again."""
        while True:
            await self.pass_once()
            await asyncio.sleep(seconds)

    async def pass_once(self) -> None:
        """Do for each TPM what is due, one after another: a node is in no hurry."""
        names = await self._tpms.names()
        for gone in self._due.keys() - set(names):
            self._forget(gone)
        for name in names:
            if self._clock.monotonic() >= self._due.get(name, 0.0):
                await self._look(name)
        for state in _STATES:
            self._metrics.devices.labels(state).set(sum(one == state for _, one in self.devices.values()))

    async def _look(self, name: str) -> None:
        """Propose a TPM that has no Device, and tell its facts; after a refusal a minute passes, after an outage less."""
        try:
            if name not in self.devices:
                self.devices[name] = await self._propose(name)
                _log.info("proposed", tpm=name, device=self.devices[name][0], state=self.devices[name][1])
            await self._tell(name)
        except CountersignError as problem:
            self._failed(name, problem)
            return
        except Exception:  # noqa: BLE001 - whatever it was, the other TPMs must come
            self._failed(name, Unavailable("attest.failed", "an unexpected error; it is in the log"))
            _log.exception("a pass over a TPM failed", tpm=name)
            return
        self._metrics.enrolments.labels("policy.allowed").inc()
        self._failures.pop(name, None)
        self.problems.pop(name, None)
        self._due[name] = self._clock.monotonic() + self._facts_seconds

    async def _propose(self, name: str) -> tuple[str, str]:
        """Run E1 without a key and return the Device's name and state."""
        trust = read_trust(self._trust_dir)
        async with self._tpms.to_enrol(name) as tcti:
            device = await self._open(tcti)
            try:
                async with AttestationClient.to(trust, self._token_file) as client:
                    secret = await prove(device, "P256", client)
                    return _device_of(await client.post("/secret", {"secret": b64(secret)}))
            finally:
                await device.aclose()

    async def _tell(self, name: str) -> None:
        """Apply the facts of this source to the Device, and learn its state from the answer."""
        device, _ = self.devices[name]
        status = {"facts": facts_of(self._tpms.kind, self._clock.now())}
        head = {"apiVersion": DEVICES.api_version, "kind": DEVICES.kind, "metadata": {"name": device}}
        try:
            found = await self._kube.apply_status(DEVICES, {**head, "status": status}, MANAGER)
        except NotFound as error:
            self.devices.pop(name)  # somebody deleted it: it is proposed again
            raise Denied("attest.device_unknown", f"Device {device} is gone") from error
        except KubeError as error:
            raise Unavailable("attest.unavailable", f"the facts of Device {device} were not taken: {error}") from error
        self.devices[name] = device, str((found.get("spec") or {}).get("state", _STATES[0]))

    def _failed(self, name: str, problem: CountersignError) -> None:
        failures = self._failures[name] = self._failures.get(name, 0) + 1
        wait = _AFTER_REFUSAL
        if isinstance(problem, Unavailable):
            jitter = 1 + _JITTER * (random.random() * 2 - 1)  # noqa: S311 - spreads load, keeps no secret
            wait = max(min(2.0 ** min(failures - 1, _EXPONENT), _LONGEST_WAIT) * jitter, float(problem.retry_after))
        self._due[name] = self._clock.monotonic() + wait
        self._metrics.enrolments.labels(problem.code).inc()
        if self.problems.get(name) != problem.code:
            _log.warning("not proposed", tpm=name, code=problem.code, detail=problem.detail)
        self.problems[name] = problem.code

    def _forget(self, name: str) -> None:
        for book in (self._due, self._failures, self.devices, self.problems):
            book.pop(name, None)


def facts_of(kind: str, now: datetime) -> list[dict[str, str]]:
    """Return what a node says of itself (crds.md 3.3): a rule believes it only where it names this source."""
    machine = os.uname()
    said = {"architecture": machine.machine, "kernel": machine.release, "tpm": kind}
    seen = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return [{"name": name, "value": value, "source": SOURCE, "observedTime": seen} for name, value in said.items()]


def _device_of(answer: dict[str, Any]) -> tuple[str, str]:
    name, state = answer.get("device"), answer.get("state")
    if not isinstance(name, str) or not name or state not in _STATES:
        raise Unavailable("attest.unavailable", "the authority's answer to /secret cannot be read")
    return name, state
