"""Two operators on one plane: the leader is killed, and stopped; the other works, and nothing is done twice."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from countersign.demo.layout import SYSTEM
from countersign.demo.processes import console, ready_code
from countersign.devcluster import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.installation import Installation

pytestmark = [pytest.mark.plane, pytest.mark.tpm]

LEASE = "countersign-operator"


class Pair:
    """The installation's operator and a second one."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.machine = installation.machine
        [second] = free_ports(1)
        self.ports = {"operator": self.machine.layout.ports.operator_health, "operator-2": second}
        settings = yaml.safe_load(self.machine.settings["operator"].read_text())
        settings["health"]["port"] = second
        path = self.machine.settings["operator"].with_name("operator-2.yaml")
        path.write_text(yaml.safe_dump(settings))
        self.configs = {"operator": self.machine.settings["operator"], "operator-2": path}
        self.start("operator-2")

    def start(self, name: str) -> None:
        self.machine.processes.start(name, [console(), "operator", "--config", self.configs[name]])
        self.machine.processes.await_ready(name, self.ports[name], 60)

    def leads(self, name: str) -> bool:
        status, body = ready_code(self.ports[name])
        return status == 200 and bool(json.loads(body)["leading"])

    @property
    def leader(self) -> str:
        self.installation.until(lambda: any(map(self.leads, self.ports)), "one leads", 60)
        return next(name for name in self.ports if self.leads(name))

    def other(self, name: str) -> str:
        return next(one for one in self.ports if one != name)

    def lease(self) -> Any:
        return self.machine.admin.get("lease", LEASE, "-n", SYSTEM)["spec"]

    def works(self, name: str) -> None:
        """Return when ``name`` leads and has done what was asked for just now."""
        before = self.serial()
        self.installation.rotate("countersign-webhook-tls")
        self.installation.until(lambda: self.serial() != before, f"{name} works", 60)
        assert self.leads(name)

    def serial(self) -> str:
        return str(self.installation.secret("countersign-webhook-tls")["data"]["tls.crt"])

    def written(self) -> dict[str, str]:
        """The version of everything that the operator writes."""
        admin = self.machine.admin
        kinds = "agentidentities,agentinstances,devicepools,toolservers,toolpolicies"
        found = admin.get(kinds, "-A")["items"]
        found += admin.get("secrets", "-n", SYSTEM)["items"]
        found += [
            one for one in admin.get("configmaps", "-A")["items"] if one["metadata"]["name"] == "countersign-trust"
        ]
        return {
            f"{one['kind']}/{one['metadata'].get('namespace')}/{one['metadata']['name']}": one["metadata"][
                "resourceVersion"
            ]
            for one in found
        }

    def events(self) -> Counter[tuple[str, str, str]]:
        """How often the operator told what of whom."""
        found = self.machine.admin.get("events.events.k8s.io", "-A")["items"]
        ours = [one for one in found if one["reportingController"] == LEASE]
        return Counter((one["regarding"]["kind"], one["regarding"]["name"], one["reason"]) for one in ours)


@pytest.fixture
def pair(installation: Installation) -> Iterator[Pair]:
    made = Pair(installation)
    yield made
    processes = made.machine.processes
    for name in ("operator", "operator-2"):
        processes.stop(name)
    made.start("operator")
    installation.until(lambda: made.leads("operator"), "the operator leads again", 60)


def test_the_other_works_when_the_leader_was_killed(pair: Pair) -> None:
    leader, events, changes = pair.leader, pair.events(), pair.lease()["leaseTransitions"]
    pair.machine.processes.kill(leader)
    pair.works(pair.other(leader))

    assert pair.lease()["leaseTransitions"] == changes + 1
    assert pair.events() == events
    assert max(events.values()) == 1
    pair.start(leader)
    assert not pair.leads(leader)


def test_a_leader_that_was_stopped_writes_nothing_when_it_wakes(pair: Pair) -> None:
    leader, events = pair.leader, pair.events()
    other, pid = pair.other(leader), pair.machine.processes.pid(leader)
    mark = len(pair.installation.log(leader))
    os.kill(pid, signal.SIGSTOP)
    try:
        pair.works(other)
        before, lease = pair.written(), pair.lease()
    finally:
        os.kill(pid, signal.SIGCONT)
    lost = "lease.lost"
    pair.installation.until(lambda: lost in pair.installation.log(leader, mark), "it sees that it leads no more", 60)

    said = pair.installation.log(leader, mark)
    assert "secret written" not in said
    assert not pair.leads(leader)
    assert pair.leads(other)
    assert pair.written() == before
    assert pair.events() == events
    assert pair.lease()["holderIdentity"] == lease["holderIdentity"]
    assert pair.lease()["leaseTransitions"] == lease["leaseTransitions"]
