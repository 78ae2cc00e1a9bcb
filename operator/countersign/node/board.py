"""The slots and their health as they were seen last: one looker, any number of streams that wait for news."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from countersign.node.metrics import NodeMetrics
    from countersign.node.tpms import Tpms

__all__ = ["Board"]

_log = structlog.get_logger("countersign.node")


class Board:
    """Looks at the TPMs; everybody else reads what was seen."""

    def __init__(self, tpms: Tpms, metrics: NodeMetrics) -> None:
        """Nothing was seen so far."""
        self._tpms = tpms
        self._metrics = metrics
        self._news = asyncio.Event()
        self.slots: dict[str, bool] = {}

    @property
    def works(self) -> bool:
        """Whether there is a slot that can be handed out."""
        return any(self.slots.values())

    async def look(self) -> None:
        """Look now, and wake whoever waits if it is another sight than before."""
        seen = await self._tpms.look()
        if seen == self.slots:
            return
        self.slots, news, self._news = seen, self._news, asyncio.Event()
        healthy = sum(seen.values())
        self._metrics.slots.labels("healthy").set(healthy)
        self._metrics.slots.labels("unhealthy").set(len(seen) - healthy)
        _log.info("slots", healthy=healthy, unhealthy=len(seen) - healthy)
        news.set()

    async def run(self, seconds: float) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(seconds)

    async def sights(self) -> AsyncIterator[dict[str, bool]]:
        """Yield the slots as they are, and again whenever they are others."""
        while True:
            news = self._news
            yield dict(self.slots)
            await news.wait()
