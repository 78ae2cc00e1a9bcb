"""A front door for each test: in memory, or on real ports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.front_door import listening, write_pair
from support.world import START, World

from countersign.clock import FakeClock
from countersign.devcluster.pki import LocalCA

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from countersign_webhook.main import Ports


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = await World.make(tmp_path)
    yield world
    await world.context.aclose()


@pytest.fixture
def world_clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def ca(tmp_path: Path) -> LocalCA:
    """The CA of the serving certificate, which lies ready."""
    ca = LocalCA("serving")
    write_pair(tmp_path, ca)
    return ca


@pytest.fixture
async def served(tmp_path: Path, ca: LocalCA) -> AsyncIterator[tuple[World, Ports]]:
    """The three ports; a body has a fifth of a second."""
    del ca
    async with listening(tmp_path, limits={"body_seconds": 0.2}) as parts:
        yield parts
