"""Rows D13 and E4 of docs/threats.md: the front door and the authority are killed and rolled while two agents call.

No wrong decision; what fails is counted where it failed; nothing is sent twice but where wire.md allows it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from support.installation import HOPELESS, OK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.installation import Installation

pytestmark = [pytest.mark.plane, pytest.mark.tpm]

AWAY = "decide.unavailable"
RETRIED = {
    "nonce.invalid",
    "nonce.expired",
    "replay.store_reset",
    "token.kid",
    "token.expired",
    "environment.attestation_stale",
    "instance.unknown",
}
"""The refusals of wire.md, "Retries" and the table of errors, after which a request is sent once more."""


@pytest.fixture
def running(installation: Installation) -> Iterator[Installation]:
    installation.begin()
    yield installation
    installation.end()


def stopped_and_counted(running: Installation) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Let the agents end, and return what they were answered, and what the signers counted of calls and of retries."""
    running.end()
    answered: Counter[str] = sum((one.codes for one in running.calls.values()), Counter())
    return answered, counted(running, "countersign_signer_calls"), counted(running, "countersign_signer_retries")


def counted(running: Installation, name: str) -> Counter[str]:
    """A counter of both signers, by code."""
    found: Counter[str] = Counter()
    for port in running.ports.values():
        for labels, value in running.metrics(port + 1, f"{name}_total").items():
            found[labels.removeprefix('{code="').removesuffix('"}')] += int(value)
    return found


def again(running: Installation, process: str, end: Callable[[str], None]) -> None:
    end(process)
    running.machine.start(process)
    ports = running.machine.layout.ports
    running.machine.processes.await_ready(process, getattr(ports, f"{process}_health"), 60)
    running.more(5)


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_d13_e4_the_front_door_under_calls(running: Installation, how: str) -> None:
    answered, calls, retries = stopped_and_counted(running)
    assert not set(answered) - {OK, HOPELESS}
    running.begin()
    processes = running.machine.processes
    for _ in range(3):
        again(running, "webhook", processes.kill if how == "SIGKILL" else processes.stop)

    answered, calls_after, retries_after = stopped_and_counted(running)
    assert running.wrong == []
    assert set(answered) <= {OK, HOPELESS, AWAY}
    # Each call that failed is counted by the signer, under the code that the agent was told.
    new = calls_after - calls
    assert new == Counter({"policy.allowed" if code == OK else code: count for code, count in answered.items()})
    # The process's own store and nonce key are new after a start: that is what a signer may ask again after.
    sent_again = retries_after - retries
    assert set(sent_again) <= RETRIED
    assert sum(sent_again.values()) > 0


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_e4_the_authority_under_calls(running: Installation, how: str) -> None:
    processes = running.machine.processes
    for _ in range(2):
        again(running, "authority", processes.kill if how == "SIGKILL" else processes.stop)
    assert running.failed == []
    assert running.wrong == []


def test_a_process_that_is_told_to_stop_says_so_and_ends_well(running: Installation) -> None:
    for process in ("webhook", "authority"):
        mark = len(running.log(process))
        child = next(one for one in running.machine.processes.children if one.name == process)
        again(running, process, running.machine.processes.stop)
        assert child.process.returncode == 0
        said = running.log(process, mark)
        assert "Traceback" not in said
        assert "timeout graceful shutdown exceeded" not in said
