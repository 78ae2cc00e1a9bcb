"""The settings, the command, and the parts together: ready when kubelet knows the plugin and a TPM works."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
from pydantic import ValidationError
from support.eventually import eventually
from support.memory_cluster import MemoryCluster
from typer import Typer
from typer.testing import CliRunner

from countersign.attest import SoftwareDevice
from countersign.devcluster.plane import free_ports
from countersign.node.context import ProcessContext
from countersign.node.main import command, serve
from countersign.node.settings import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.kubelet import Kubelet

    from countersign.kube import Kube


def test_nothing_has_to_be_set() -> None:
    settings = load(None)
    assert (settings.socket_dir, str(settings.device), settings.slots) == (None, "/dev/tpmrm0", 64)
    assert (settings.look, settings.facts) == (timedelta(seconds=1), timedelta(minutes=10))


def test_the_environment_wins_over_the_option_and_the_option_over_the_file(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = directory / "node.yaml"
    file.write_text("socket_dir: /file\nslots: 3\n")
    assert load(file).socket_dir == directory.__class__("/file")
    assert load(file, socket_dir=directory).socket_dir == directory
    monkeypatch.setenv("COUNTERSIGN_NODE_SOCKET_DIR", "/environment")
    assert str(load(file, socket_dir=directory).socket_dir) == "/environment"
    assert load(file).slots == 3


@pytest.mark.parametrize(
    "bad",
    [{"slot": 3}, {"slots": 0}, {"look": 0}, {"facts": 1}, {"health": {"prt": 1}}, {"log_level": "loud"}],
    ids=str,
)
def test_what_is_unknown_or_out_of_bounds_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        load(None, **bad)


def test_the_command_says_what_is_wrong(directory: Path) -> None:
    app = Typer()
    app.command()(command)
    (directory / "node.yaml").write_text("slots: 0\n")
    for config in (directory / "node.yaml", directory / "nowhere.yaml"):
        done = CliRunner().invoke(app, ["--config", str(config)])
        assert done.exit_code == 2
        assert "countersign node:" in done.output


@pytest.fixture
async def context(kubelet: Kubelet, directory: Path) -> AsyncIterator[ProcessContext]:
    """A node whose chip is a character device of another kind, and whose health port is a free one."""
    (directory / "null").symlink_to("/dev/null")
    settings = load(
        None,
        plugin_dir=kubelet.directory,
        device=directory / "null",
        slots=2,
        trust_dir=directory,
        token_file=directory / "token",
        look=0.02,
        health={"host": "127.0.0.1", "port": free_ports(1)[0]},
    )

    async def open_tpm(_tcti: str) -> SoftwareDevice:
        return SoftwareDevice.make()

    made = ProcessContext.of(settings, kube=cast("Kube", MemoryCluster().kube), open_tpm=open_tpm)
    yield made
    await made.aclose()


async def test_ready_is_that_kubelet_can_hand_out_a_tpm(
    context: ProcessContext, kubelet: Kubelet, directory: Path
) -> None:
    assert context.faults() == ["kubelet does not know this plugin", "no TPM of this node works"]
    stop = asyncio.Event()
    running = asyncio.create_task(serve(context, stop))
    plugin = await kubelet.plugin()
    assert len(await plugin.allocate(["null-0"], ["null-1"])) == 2
    await eventually(lambda: not context.faults(), "ready")
    await eventually(lambda: bool(context.proposing.problems), "told what keeps it from proposing")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{context.settings.health.port}") as http:
        assert (await http.get("/healthz")).status_code == 200
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()) == (
            200,
            {"ready": True, "missing": [], "devices": [], "problems": {"null": "attest.unavailable"}},
        )
        metrics = (await http.get("/metrics")).text
        assert 'countersign_node_slots{health="healthy"} 2.0' in metrics
        assert 'countersign_node_enrolments_total{code="attest.unavailable"} 1.0' in metrics
        (directory / "null").unlink()
        await eventually(lambda: context.faults() == ["no TPM of this node works"], "no longer ready")
        assert (await http.get("/readyz")).status_code == 503
    stop.set()
    await running
    assert [each.name for each in kubelet.directory.iterdir()] == ["kubelet.sock"]


async def test_a_part_that_fails_ends_the_process(context: ProcessContext) -> None:
    async def broken() -> list[str]:
        raise RuntimeError("a bug")

    context.proposing._tpms = cast("Any", SimpleNamespace(names=broken))
    with pytest.raises(RuntimeError, match="a bug"):
        await serve(context, asyncio.Event())
