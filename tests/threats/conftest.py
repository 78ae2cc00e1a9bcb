"""Both ends of a call, and an authority, for each attack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.enrolment import Office
from support.installation import Installation, installed
from support.line import Line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """Everything as real processes; a test leaves it working."""
    with installed() as found:
        yield found


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    made = await Line.make(tmp_path)
    yield made
    await made.world.context.aclose()


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with Office.open(tmp_path) as opened:
        yield opened
