"""Fixtures of this room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.enrolment import Office
from support.swtpm import simulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

__all__ = ["office", "simulator"]


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    """An authority, and a cluster with one agent's pod on one node."""
    async with Office.open(tmp_path) as opened:
        yield opened
