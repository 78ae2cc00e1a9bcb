"""Waiting as a test sees it: what a loop wants to sleep is told, and it goes on when the test says so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from countersign.clock import FakeClock

SECONDS = 10


class Naps:
    """The ``sleep`` of one loop."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._asked: asyncio.Queue[tuple[float, asyncio.Future[None]]] = asyncio.Queue()
        self._last: tuple[float, asyncio.Future[None]] | None = None

    async def __call__(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._asked.put((seconds, future))
        await future

    async def next(self) -> float:
        """Return how long the loop wants to sleep, as soon as it does."""
        async with asyncio.timeout(SECONDS):
            self._last = await self._asked.get()
        return self._last[0]

    async def after(self) -> float:
        """Let the time pass that was asked for last, and return what is asked for next."""
        assert self._last is not None
        seconds, future = self._last
        self._clock.advance(seconds)
        if not future.done():
            future.set_result(None)
        return await self.next()
