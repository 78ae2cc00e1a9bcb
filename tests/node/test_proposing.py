"""A node's TPMs become Devices at the real authority: once each, told what they are, and asked again in good time."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest
from support.enrolment import EK_ROOT, NODE, Office
from support.loopback import WEB, answer, serving

from countersign import kube
from countersign.attest import SoftwareDevice
from countersign.clock import FakeClock
from countersign.errors import Unavailable
from countersign.node.metrics import NodeMetrics
from countersign.node.proposing import Proposing, facts_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FACTS = 600.0


class Shelf:
    """``Tpms`` of software devices; the name of a TPM is its TCTI string too."""

    kind = "hardware"

    def __init__(self) -> None:
        self.devices = {"tpmrm0": SoftwareDevice.make(EK_ROOT)}
        self.in_use = False
        self.opened: list[str] = []

    async def names(self) -> list[str]:
        return list(self.devices)

    @asynccontextmanager
    async def to_enrol(self, name: str) -> AsyncIterator[str]:
        if self.in_use:
            raise Unavailable("attest.unavailable", "in use", retry_after=60)
        yield name

    async def open(self, tcti: str) -> SoftwareDevice:
        self.opened.append(tcti)
        return self.devices[tcti]


class Rig:
    """``Proposing`` beside an authority on a port."""

    def __init__(self, office: Office, directory: Path, port: int) -> None:
        self.office, self.directory, self.shelf, self.clock = office, directory, Shelf(), FakeClock(office.clock.now())
        self.metrics = NodeMetrics()
        (directory / "trust").mkdir()
        self.write("authorityURL", f"https://127.0.0.1:{port}")
        self.write("webhookURL", "https://unused.example")
        self.write("ca.crt", WEB.pem.decode())
        (directory / "token").write_text(f"token-of-{NODE}\n")
        self.proposing = Proposing(
            cast("Any", self.shelf),
            self.shelf.open,
            cast("kube.Kube", office.cluster.kube),
            trust_dir=directory / "trust",
            token_file=directory / "token",
            facts_seconds=FACTS,
            clock=self.clock,
            metrics=self.metrics,
        )

    def write(self, name: str, text: str) -> None:
        (self.directory / "trust" / name).write_text(text)

    async def after(self, seconds: float) -> None:
        """Let time pass, and a pass be made."""
        self.clock.advance(seconds)
        self.office.clock.advance(seconds)
        await self.proposing.pass_once()

    def device(self, name: str = NODE) -> dict[str, Any]:
        return self.office.cluster.find(kube.DEVICES, name)

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"countersign_node_{name}", labels) or 0.0


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Office.open(tmp_path) as office:
        office.cluster.edit(kube.DEVICE_POOLS, "racks", enrollment="Request")
        await office.node(SoftwareDevice.make(EK_ROOT))  # its pod, and its token
        async with serving(office.app, "127.0.0.1") as port:
            yield Rig(office, tmp_path, port)


async def test_a_tpm_becomes_a_device_with_facts(rig: Rig) -> None:
    await rig.proposing.pass_once()
    assert rig.proposing.devices == {"tpmrm0": (NODE, "Pending")}
    found = rig.device()
    assert found["spec"]["state"] == "Pending"
    assert found["status"]["facts"] == facts_of("hardware", rig.clock.now())
    assert {one["source"] for one in found["status"]["facts"]} == {"node"}
    assert rig.count("devices", state="Pending") == 1
    assert rig.count("enrolments_total", code="policy.allowed") == 1


async def test_it_is_proposed_once_and_its_facts_are_kept_fresh(rig: Rig) -> None:
    await rig.proposing.pass_once()
    rig.office.cluster.edit(kube.DEVICES, NODE, state="Approved")
    await rig.after(FACTS - 1)
    assert rig.proposing.devices == {"tpmrm0": (NODE, "Pending")}
    await rig.after(1)
    assert rig.proposing.devices == {"tpmrm0": (NODE, "Approved")}
    assert rig.shelf.opened == ["tpmrm0"]
    assert rig.device()["status"]["facts"] == facts_of("hardware", rig.clock.now())
    assert (rig.count("devices", state="Pending"), rig.count("devices", state="Approved")) == (0, 1)


async def test_after_a_refusal_a_minute_passes(rig: Rig) -> None:
    rig.office.cluster.edit(kube.DEVICE_POOLS, "racks", enrollment="Refuse")
    await rig.proposing.pass_once()
    assert rig.proposing.problems == {"tpmrm0": "attest.device_unknown"}
    rig.office.cluster.edit(kube.DEVICE_POOLS, "racks", enrollment="Request")
    await rig.after(59)
    assert rig.proposing.devices == {}
    await rig.after(1)
    assert rig.proposing.devices == {"tpmrm0": (NODE, "Pending")}
    assert rig.proposing.problems == {}


async def test_after_an_outage_less_passes_and_then_more(rig: Rig) -> None:
    url = (rig.directory / "trust" / "authorityURL").read_text()
    rig.write("authorityURL", "https://127.0.0.1:1")
    await rig.proposing.pass_once()
    for seconds in (1.2, 2.3, 4.5):
        before = rig.count("enrolments_total", code="attest.unavailable")
        await rig.after(seconds)
        assert rig.count("enrolments_total", code="attest.unavailable") == before + 1
        await rig.after(1.0)
        assert rig.count("enrolments_total", code="attest.unavailable") == before + 1
    rig.write("authorityURL", url)
    await rig.after(60 * 1.2)
    assert rig.proposing.devices == {"tpmrm0": (NODE, "Pending")}


@pytest.mark.parametrize("name", ["trust/ca.crt", "token"])
async def test_without_what_kubelet_mounts_it_waits(rig: Rig, name: str) -> None:
    (rig.directory / name).unlink()
    await rig.proposing.pass_once()
    assert rig.proposing.problems == {"tpmrm0": "attest.unavailable"}


async def test_a_device_that_somebody_deletes_is_proposed_again(rig: Rig) -> None:
    await rig.proposing.pass_once()
    rig.office.cluster.drop(kube.DEVICES, NODE)
    await rig.after(FACTS)
    assert rig.proposing.problems == {"tpmrm0": "attest.device_unknown"}
    await rig.after(60)
    assert rig.device()["spec"]["state"] == "Pending"
    assert rig.shelf.opened == ["tpmrm0", "tpmrm0"]


async def test_facts_that_are_not_taken_are_told_again_and_nothing_is_proposed_twice(rig: Rig) -> None:
    await rig.proposing.pass_once()
    rig.office.cluster.down = True
    await rig.after(FACTS)
    assert rig.proposing.problems == {"tpmrm0": "attest.unavailable"}
    rig.office.cluster.down = False
    await rig.after(2)
    assert rig.proposing.problems == {}
    assert rig.shelf.opened == ["tpmrm0"]


async def test_a_tpm_in_use_is_left_alone_for_a_minute(rig: Rig) -> None:
    rig.shelf.in_use = True
    await rig.proposing.pass_once()
    rig.shelf.in_use = False
    await rig.after(59)
    assert rig.shelf.opened == []
    await rig.after(1)
    assert rig.shelf.opened == ["tpmrm0"]


async def test_each_tpm_for_itself_and_one_that_is_gone_is_forgotten(rig: Rig) -> None:
    await rig.proposing.pass_once()
    rig.shelf.devices["second"] = SoftwareDevice.make(EK_ROOT)
    await rig.proposing.pass_once()
    assert rig.proposing.problems == {"second": "attest.pending_full"}
    rig.office.cluster.edit(kube.DEVICES, NODE, state="Approved")
    await rig.after(60)
    name, state = rig.proposing.devices["second"]
    assert (name.startswith(f"{NODE}-"), state) == (True, "Pending")
    del rig.shelf.devices["tpmrm0"]
    await rig.after(1)
    assert set(rig.proposing.devices) == {"second"}


async def test_a_tpm_without_endorsement_and_one_that_breaks_do_not_stop_the_others(rig: Rig) -> None:
    good = rig.shelf.devices.pop("tpmrm0")
    rig.shelf.devices = {"bare": SoftwareDevice.make(), "broken": cast("SoftwareDevice", object()), "good": good}
    await rig.proposing.pass_once()
    assert rig.proposing.problems == {"bare": "attest.ek_certificate", "broken": "attest.failed"}
    assert set(rig.proposing.devices) == {"good"}


@pytest.mark.parametrize(
    "said", [{}, {"device": 7, "state": "Pending"}, {"device": "", "state": "Pending"}, {"device": "a", "state": "x"}]
)
async def test_an_answer_that_names_no_device(rig: Rig, said: dict[str, Any]) -> None:
    async def authority(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/secret":
            await answer(send, 200, [], json.dumps(said).encode())
            return
        await rig.office.app(scope, receive, send)

    async with serving(authority, "127.0.0.1") as port:
        rig.write("authorityURL", f"https://127.0.0.1:{port}")
        await rig.proposing.pass_once()
    assert rig.proposing.problems == {"tpmrm0": "attest.unavailable"}
    assert rig.proposing.devices == {}


async def test_it_goes_on_until_it_is_told_to_stop(rig: Rig) -> None:
    task = asyncio.create_task(rig.proposing.run(0.01))
    async with asyncio.timeout(20):
        while not rig.proposing.devices:  # noqa: ASYNC110 - the authority's answer is waited for
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
