"""Fixtures of this room: kubelet's directory and kubelet, and a simulator in a slot."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.kubelet import Kubelet
from support.swtpm import Simulator, simulator

from countersign.node.simulator import SOCKET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = ["directory", "folder", "kubelet", "simulator"]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: a socket's is limited."""
    path = Path(tempfile.mkdtemp(prefix="cs-node-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def kubelet(directory: Path) -> AsyncIterator[Kubelet]:
    """kubelet, which runs."""
    (directory / "plugins").mkdir()
    started = Kubelet(directory / "plugins")
    await started.start()
    yield started
    await started.stop()


@pytest.fixture
def folder(directory: Path, simulator: Simulator) -> Iterator[Path]:
    """A folder of slots with one in it: links to the sockets would be no slot, so they lie there by another name."""
    slot = directory / "slot-0"
    slot.mkdir()
    for suffix in ("", ".ctrl"):
        (simulator.tpm.directory / f"sock{suffix}").rename(slot / f"{SOCKET}{suffix}")
    yield directory
    for suffix in ("", ".ctrl"):
        (slot / f"{SOCKET}{suffix}").rename(simulator.tpm.directory / f"sock{suffix}")
    shutil.rmtree(slot)
