"""A proxy between two twins, for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.loopback import rig_of
from support.swtpm import simulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.loopback import Rig

__all__ = ["rig", "simulator"]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig_of(tmp_path) as made:
        yield made
