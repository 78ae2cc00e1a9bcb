"""Row A10 of docs/threats.md: the clock of one part is ten minutes off. It fails closed, and says so.

Real processes; the one that is off runs under libfaketime, which moves its calendar and leaves its monotonic clock alone.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from support.installation import OK, call

from countersign.clock import ahead_of, skew_fault
from countersign.demo.processes import ready_code, until

if TYPE_CHECKING:
    from support.installation import Installation

pytestmark = [pytest.mark.plane, pytest.mark.tpm]

OFF = ["+10m", "-10m"]
SAYS = "clock skew"


def faked(offset: str) -> dict[str, str]:
    [library] = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    return {"LD_PRELOAD": str(library), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@pytest.fixture
def running(installation: Installation) -> Installation:
    return installation


class Agent:
    """The first agent, which calls when it is told to."""

    def __init__(self, running: Installation) -> None:
        self.running = running
        self.name = running.machine.quickstart.pods[0]
        self.health = running.ports[self.name] + 1
        self.mark = 0

    def code(self) -> str:
        with httpx.Client(timeout=30) as client:
            return call(client, self.running.url(self.name), "get_charge", 1)

    def works(self) -> None:
        self.running.until(lambda: self.code() == OK, "a call is allowed", 60)

    def restart(self, env: dict[str, str] | None = None) -> None:
        self.running.machine.processes.stop(f"signer-{self.name}")
        self.mark = len(self.log)
        self.running.start_signer(self.name, env)

    def said(self) -> str:
        """What its readiness says, as one text."""
        return ready_code(self.health)[1]

    @property
    def log(self) -> str:
        return self.running.log(f"signer-{self.name}")

    def says(self) -> bool:
        """Whether it names the skew in its readiness, or did in its log since its start."""
        return SAYS in self.said() or SAYS in self.log[self.mark :]


@pytest.fixture
def agent(running: Installation) -> Agent:
    found = Agent(running)
    found.works()
    return found


def restarted(running: Installation, process: str, env: dict[str, str] | None = None) -> None:
    machine = running.machine
    machine.processes.stop(process)
    machine.start(process, env)
    if env is None:
        machine.processes.await_ready(process, port_of(running, process))


def port_of(running: Installation, process: str) -> int:
    return int(getattr(running.machine.layout.ports, f"{process}_health"))


def metric(running: Installation, port: int, against: str) -> float:
    return running.metrics(port, "countersign_clock_skew_seconds")[f'{{against="{against}"}}']


def is_off(seconds: float, offset: str) -> bool:
    """Whether a skew is about that of ``offset``."""
    return abs(seconds - (600 if offset == "+10m" else -600)) < 30


@pytest.mark.parametrize("offset", OFF)
def test_a10_a_signer(running: Installation, agent: Agent, offset: str) -> None:
    agent.restart(faked(offset))
    try:
        running.until(lambda: SAYS in agent.said(), "the signer says so", 60)
        assert ready_code(agent.health)[0] == 503
        assert agent.code() in {"proof.future", "attest.unavailable", "decide.unavailable"}
        if offset == "+10m":  # it has a certificate, and signs ahead of time
            assert "proof.future" in agent.said()
            assert is_off(metric(running, agent.health, "front_door"), offset)
            assert is_off(metric(running, port_of(running, "webhook"), "signer"), "-10m")
            assert "clock.skew" in running.log("webhook")
        else:  # what it is given is of its future
            assert "attest.unavailable" in agent.said()
    finally:
        agent.restart()
    agent.works()


@pytest.mark.parametrize("offset", OFF)
def test_a10_a_front_door(running: Installation, agent: Agent, offset: str) -> None:
    restarted(running, "webhook", faked(offset))
    try:
        health = port_of(running, "webhook")
        running.until(lambda: '"warning":"clock skew' in ready_code(health)[1], "the front door says so", 60)
        assert is_off(metric(running, health, "api_server"), offset)
        code = "proof.future" if offset == "-10m" else "proof.expired"
        seen = until(lambda: agent.code() == code, 30)
        assert seen is not None, agent.code()
        assert "clock.skew" in running.log("webhook")
        assert is_off(metric(running, agent.health, "front_door"), "-10m" if offset == "+10m" else "+10m")
        assert "this machine is" in agent.log
    finally:
        restarted(running, "webhook")
    agent.works()


@pytest.mark.parametrize("offset", OFF)
def test_a10_an_authority(running: Installation, agent: Agent, offset: str) -> None:
    restarted(running, "authority", faked(offset))
    try:
        health = port_of(running, "authority")
        running.until(lambda: SAYS in ready_code(health)[1], "the authority says so", 60)
        assert ready_code(health)[0] == 503
        assert is_off(metric(running, health, "api_server"), offset)
        assert agent.code() == OK  # who has a certificate goes on
        agent.restart()
        running.until(lambda: SAYS in agent.said(), "the signer is told", 60)
        assert "attest.unavailable" in agent.said()
        assert agent.code() == "attest.unavailable"
    finally:
        restarted(running, "authority")
    agent.works()


@pytest.mark.parametrize("offset", OFF)
def test_a10_a_verifier(running: Installation, agent: Agent, offset: str) -> None:
    machine = running.machine
    machine.processes.stop("tools")
    machine.start_tools(faked(offset))
    try:
        code = "proof.expired" if offset == "+10m" else "proof.future"
        assert until(lambda: agent.code() == code, 60) is not None, agent.code()
        assert is_off(metric(running, agent.health, "tool_server"), "-10m" if offset == "+10m" else "+10m")
        assert SAYS in agent.log
        assert f"refused code={code}" in running.log("tools")
        assert SAYS in running.log("tools")
    finally:
        machine.processes.stop("tools")
        machine.start_tools()
    agent.works()


@pytest.mark.parametrize("offset", OFF)
def test_a10_an_operator(running: Installation, agent: Agent, offset: str) -> None:
    before = running.secret("countersign-webhook-tls")
    restarted(running, "operator", faked(offset))
    try:
        health = port_of(running, "operator")
        running.until(lambda: SAYS in ready_code(health)[1], "the operator says so", 60)
        assert ready_code(health)[0] == 503
        assert is_off(metric(running, health, "api_server"), offset)
        mark = len(running.log("operator"))
        running.rotate("countersign-webhook-tls")
        refused = "certificates and keys are not as they should be"
        running.until(lambda: refused in running.log("operator", mark), "it makes nothing by a wrong clock", 60)
        assert running.secret("countersign-webhook-tls")["data"] == before["data"]
        assert agent.code() == OK
    finally:
        restarted(running, "operator")
    # What was asked for meanwhile is done by the right clock.
    running.until(lambda: running.secret("countersign-webhook-tls")["data"] != before["data"], "a new pair", 60)
    agent.works()


NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def test_a10_skew_is_what_a_date_says() -> None:
    date = "Tue, 24 Nov 2026 12:00:00 GMT"
    assert ahead_of(date, NOW + timedelta(seconds=7)) == 7
    assert ahead_of(date, NOW - timedelta(minutes=10)) == -600
    for nothing in (None, "", "now", "Tue, 24 Nov"):
        assert ahead_of(nothing, NOW) is None


@pytest.mark.parametrize(
    ("seconds", "words"), [(600.4, "600 s ahead of"), (-600.0, "600 s behind"), (31.0, "31 s ahead")]
)
def test_a10_skew_is_said_with_what_to_do(seconds: float, words: str) -> None:
    fault = skew_fault(seconds, "the API server")
    assert fault is not None
    assert words in fault
    assert "NTP" in fault


@pytest.mark.parametrize("seconds", [None, 0.0, 30.0, -30.0])
def test_a10_a_slow_answer_is_no_skew(seconds: float | None) -> None:
    assert skew_fault(seconds, "the API server") is None
