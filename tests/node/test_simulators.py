"""Slots of simulators, on a real one: what is a slot, is it idle, does a new pod find it empty."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from support.chart import CHART
from support.eventually import eventually

from countersign.attest import verify_ek
from countersign.attest.tpm import TpmDevice
from countersign.clock import SystemClock
from countersign.errors import Unavailable
from countersign.node.simulator import SOCKET, answers, begin_anew, is_idle
from countersign.node.tpms import Simulators

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.swtpm import Simulator

pytestmark = pytest.mark.tpm


async def test_a_slot_is_listed_and_given_as_a_folder(folder: Path) -> None:
    tpms = Simulators(folder)
    assert await tpms.look() == {"slot-0": True}
    given = await tpms.allocate("slot-0")
    assert given.envs["TCTI"] == given.envs["TPM2TOOLS_TCTI"] == "swtpm:path=/run/countersign/tpm/tpm.sock"
    (mount,) = given.mounts
    assert (mount.container_path, mount.host_path) == ("/run/countersign/tpm", str(folder / "slot-0"))
    assert given.devices == ()


async def test_a_new_pod_finds_nothing_of_the_one_before(folder: Path) -> None:
    tpms = Simulators(folder)
    before = await TpmDevice.open(f"swtpm:path={folder / 'slot-0' / SOCKET}")
    try:
        await before.create_ak("P256")
        await before.create_key()
        assert not await is_idle(folder / "slot-0")
        await tpms.allocate("slot-0")
        assert await is_idle(folder / "slot-0")
        with pytest.raises(Unavailable):
            await before.certify(b"x")
    finally:
        await before.aclose()
    after = await TpmDevice.open(f"swtpm:path={folder / 'slot-0' / SOCKET}")
    await after.create_key()
    await after.aclose()


async def test_a_slot_that_is_in_use_or_was_handed_out_is_not_enrolled(folder: Path) -> None:
    tpms = Simulators(folder)
    async with tpms.to_enrol("slot-0") as tcti:
        signer = await TpmDevice.open(tcti)
    await signer.create_key()
    with pytest.raises(Unavailable, match="in use"):
        async with tpms.to_enrol("slot-0"):
            pass
    await signer.aclose()
    async with tpms.to_enrol("slot-0"):
        pass
    await tpms.allocate("slot-0")
    with pytest.raises(Unavailable, match="in use"):
        async with tpms.to_enrol("slot-0"):
            pass


async def test_what_is_no_slot(folder: Path) -> None:
    for name in ("empty", "UPPER", "with-a-file", ".hidden"):
        (folder / name).mkdir()
    (folder / "with-a-file" / SOCKET).touch()
    (folder / "file").touch()
    (folder / "link").symlink_to(folder / "slot-0")
    (folder / "socket-link").mkdir()
    (folder / "socket-link" / SOCKET).symlink_to(folder / "slot-0" / SOCKET)
    assert await Simulators(folder).names() == ["slot-0"]
    assert await Simulators(folder / "nowhere").look() == {}


async def test_a_simulator_that_died_is_unhealthy_and_gets_nobody(simulator: Simulator, folder: Path) -> None:
    tpms, slot = Simulators(folder), folder / "slot-0"
    child = simulator.tpm.child
    assert child is not None
    child.kill()
    try:
        assert not await answers(slot)
        assert await tpms.look() == {"slot-0": False}
        with pytest.raises(Unavailable):
            await tpms.allocate("slot-0")
        with pytest.raises(Unavailable):
            await is_idle(slot)
        (slot / f"{SOCKET}.ctrl").unlink()
        with pytest.raises(Unavailable):
            await begin_anew(slot)
    finally:
        for suffix in ("", ".ctrl"):
            (slot / f"{SOCKET}{suffix}").unlink(missing_ok=True)
        simulator.tpm.start()
        for suffix in ("", ".ctrl"):
            (simulator.tpm.directory / f"sock{suffix}").rename(slot / f"{SOCKET}{suffix}")


@pytest.fixture
def trial(directory: Path) -> Iterator[Path]:
    """What the chart's script prints, while it runs two slots in ``directory``."""
    told = {"COUNTERSIGN_SOCKET_DIR": str(directory), "COUNTERSIGN_SLOTS": "2", "COUNTERSIGN_NODE": "worker-1"}
    log = directory / "log"
    with log.open("wb") as out:
        words = ["sh", str(CHART / "files" / "simulators.sh")]
        child = subprocess.Popen(words, env={**os.environ, **told}, stdout=out, stderr=out, start_new_session=True)
    yield log
    os.killpg(child.pid, signal.SIGTERM)
    child.wait(10)


async def test_the_charts_simulators_are_slots_whose_certificates_verify_under_what_it_prints(
    directory: Path, trial: Path
) -> None:
    await eventually(lambda: trial.read_text().count("END CERTIFICATE") == 2, "both certificates printed", 60)
    tpms = Simulators(directory)
    async with asyncio.timeout(20):
        while await tpms.look() != {"slot-0": True, "slot-1": True}:  # noqa: ASYNC110 - sockets tell nobody that they are there
            await asyncio.sleep(0.01)
    async with tpms.to_enrol("slot-1") as tcti:
        device = await TpmDevice.open(tcti)
        (first, *_) = await device.endorsements()
        await device.aclose()
    ek = verify_ek(first.spki, first.certificates, {"trial": printed(trial)}, SystemClock().now())
    assert (ek.pool, ek.model) == ("trial", "swtpm")
    # A pod sees its slot's folder: the simulator's state is elsewhere, and for root alone.
    assert {one.name for one in (directory / "slot-1").iterdir()} == {SOCKET, f"{SOCKET}.ctrl"}
    assert (directory / ".state").stat().st_mode & 0o077 == 0


def printed(log: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(log.read_bytes())
