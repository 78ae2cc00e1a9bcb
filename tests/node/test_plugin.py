"""The plugin before a kubelet: it registers, lists, allocates, survives kubelet's restart and its own."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import grpc
import pytest
from support.eventually import eventually
from support.kubelet import Kubelet

from countersign.errors import Unavailable
from countersign.node.board import Board
from countersign.node.kubelet import ENDPOINT, Registration
from countersign.node.messages import Allocation
from countersign.node.metrics import NodeMetrics
from countersign.node.plugin import DevicePlugin
from countersign.node.tpms import Chip

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

SECONDS = 0.02


class Slots:
    """``Tpms`` that a test sets."""

    kind = "simulator"

    def __init__(self) -> None:
        self.slots = {"a": True, "b": True}
        self.broken = False

    async def look(self) -> dict[str, bool]:
        return dict(self.slots)

    async def allocate(self, slot: str) -> Allocation:
        if self.broken:
            raise Unavailable("attest.unavailable", "the TPM does not begin anew")
        return Allocation(envs={"TCTI": slot})

    async def names(self) -> list[str]:
        return []

    def to_enrol(self, name: str) -> AbstractAsyncContextManager[str]:
        raise AssertionError(name)


class Rig:
    """A plugin that runs."""

    def __init__(self, directory: Path) -> None:
        self.slots = Slots()
        self.metrics = NodeMetrics()
        self.board = Board(self.slots, self.metrics)
        self.registration = Registration(
            directory,
            lambda: DevicePlugin(self.slots, self.board, self.metrics),
            self.metrics,
            look_seconds=SECONDS,
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self.board.look()
        self._tasks = [asyncio.create_task(self.board.run(SECONDS)), asyncio.create_task(self.registration.run())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"countersign_node_{name}", labels) or 0.0


@pytest.fixture
async def rig(kubelet: Kubelet) -> AsyncIterator[Rig]:
    made = Rig(kubelet.directory)
    await made.start()
    yield made
    await made.stop()


async def test_it_registers_and_lists_its_slots(rig: Rig, kubelet: Kubelet) -> None:
    plugin = await kubelet.plugin()
    assert (plugin.version, plugin.endpoint, plugin.resource) == ("v1beta1", ENDPOINT, "countersign.dev/tpm")
    assert await plugin.call("GetDevicePluginOptions") == b""
    async with contextlib.aclosing(plugin.lists()) as lists:
        assert await anext(lists) == {"a": "Healthy", "b": "Healthy"}
        rig.slots.slots["b"] = False
        assert await anext(lists) == {"a": "Healthy", "b": "Unhealthy"}
        rig.slots.slots = {"a": True, "c": True}
        assert await anext(lists) == {"a": "Healthy", "c": "Healthy"}
    await eventually(lambda: rig.registration.registered, "registered")
    assert (rig.count("registered"), rig.count("slots", health="healthy")) == (1, 2)


@pytest.mark.parametrize("method", ["PreStartContainer", "GetPreferredAllocation", "Other"])
async def test_what_our_options_rule_out_is_not_there(rig: Rig, kubelet: Kubelet, method: str) -> None:
    del rig
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (await kubelet.plugin()).call(method)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_each_container_gets_one_slot(rig: Rig, kubelet: Kubelet) -> None:
    plugin = await kubelet.plugin()
    given = await plugin.allocate(["b"], ["a"])
    assert [each.envs for each in given] == [{"TCTI": "b"}, {"TCTI": "a"}]
    assert rig.count("allocations_total", outcome="given") == 2


@pytest.mark.parametrize("wanted", [[["a", "b"]], [[]], [["z"]], [["a"], ["z"]]], ids=str)
async def test_no_other_number_of_slots_and_no_unknown_one(rig: Rig, kubelet: Kubelet, wanted: list[list[str]]) -> None:
    plugin = await kubelet.plugin()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await plugin.allocate(*wanted)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert rig.count("allocations_total", outcome="refused") == 1


async def test_a_tpm_that_does_not_work_and_a_request_that_is_none_are_refused(rig: Rig, kubelet: Kubelet) -> None:
    plugin = await kubelet.plugin()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await plugin.call("Allocate", b"\x0a\x05ab")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    rig.slots.broken = True
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await plugin.allocate(["a"])
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_after_kubelet_restarts_it_registers_again(rig: Rig, kubelet: Kubelet) -> None:
    first = await kubelet.plugin()
    async with contextlib.aclosing(first.lists()) as lists:
        assert await anext(lists)
    await eventually(lambda: rig.registration.registered, "registered")
    await kubelet.stop()
    await kubelet.start()
    second = await kubelet.plugin()
    assert [each.envs for each in await second.allocate(["a"])] == [{"TCTI": "a"}]
    async with contextlib.aclosing(second.lists()) as lists:
        assert await anext(lists) == {"a": "Healthy", "b": "Healthy"}
    assert rig.count("registrations_total", outcome="done") == 2


async def test_a_socket_that_somebody_removes_is_made_again(rig: Rig, kubelet: Kubelet) -> None:
    del rig
    await kubelet.plugin()
    (kubelet.directory / ENDPOINT).unlink()
    assert await (await kubelet.plugin()).allocate(["a"])


async def test_a_kubelet_that_refuses_is_asked_again(rig: Rig, kubelet: Kubelet) -> None:
    await kubelet.plugin()
    await eventually(lambda: rig.registration.registered, "registered")
    kubelet.refuse = True
    await kubelet.stop()
    await kubelet.start()
    await eventually(lambda: rig.count("registrations_total", outcome="failed") >= 2, "refused twice")
    assert not rig.registration.registered
    kubelet.refuse = False
    await kubelet.plugin()
    await eventually(lambda: rig.registration.registered, "registered")


async def test_without_a_kubelet_it_waits(directory: Path) -> None:
    rig, kubelet = Rig(directory), Kubelet(directory)
    await rig.start()
    rig.slots.slots["b"] = False
    await eventually(lambda: rig.count("slots", health="unhealthy") == 1, "looked once more")
    assert not rig.registration.registered
    await kubelet.start()
    await kubelet.plugin()
    await rig.stop()
    await kubelet.stop()


async def test_when_it_stops_kubelet_sees_the_slots_go(rig: Rig, kubelet: Kubelet) -> None:
    plugin = await kubelet.plugin()
    async with contextlib.aclosing(plugin.lists()) as lists:
        assert await anext(lists)
        stopping = asyncio.create_task(rig.stop())
        with pytest.raises(StopAsyncIteration):
            await anext(lists)
        await stopping
    assert [each.name for each in kubelet.directory.iterdir()] == ["kubelet.sock"]
    assert rig.count("registered") == 0


# a chip


async def test_a_chip_is_shared_and_its_file_is_handed_out(directory: Path) -> None:
    # There is no TPM chip here: /dev/null is a character device just as well.
    device = directory / "null"
    device.symlink_to("/dev/null")
    chip = Chip(device, 3)
    assert await chip.look() == {"null-0": True, "null-1": True, "null-2": True}
    given = await chip.allocate("null-1")
    assert given.envs == {"TCTI": f"device:{device}", "TPM2TOOLS_TCTI": f"device:{device}"}
    assert [(one.path, one.permissions) for one in given.devices] == [(str(device), "rw")]
    assert given.mounts == ()
    assert await chip.names() == ["null"]
    async with chip.to_enrol("null") as tcti:
        assert tcti == f"device:{device}"


@pytest.mark.parametrize("kind", ["nothing", "a file"])
async def test_a_chip_that_is_not_there(directory: Path, kind: str) -> None:
    if kind == "a file":
        (directory / "tpmrm0").touch()
    chip = Chip(directory / "tpmrm0", 2)
    assert await chip.look() == {"tpmrm0-0": False, "tpmrm0-1": False}
    with pytest.raises(Unavailable):
        await chip.allocate("tpmrm0-0")
