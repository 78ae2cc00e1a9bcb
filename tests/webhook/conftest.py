"""A front door in memory for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.world import START, World

from countersign.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = await World.make(tmp_path)
    yield world
    await world.context.aclose()


@pytest.fixture
def world_clock() -> FakeClock:
    return FakeClock(START)
