"""Events on AgentInstances: their owner sees ``CallsDenied`` in ``kubectl describe``. Never waited for, never many."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

if TYPE_CHECKING:
    from countersign.policy import Catalogue
    from countersign_webhook.decide.case import Case
    from countersign_webhook.decide.guard import Refusal

__all__ = ["Notices", "Recording"]

_WAITING: Final = 256
_FLUSH_SECONDS: Final = 15
_log = structlog.get_logger("countersign.webhook.notices")


class Recording(Protocol):
    """What ``kube.EventRecorder`` does: at most one Event per object, reason and minute."""

    async def emit(self, regarding: dict[str, Any], type: str, reason: str, note: str) -> None:  # noqa: A002 - its name there
        """Write one Event."""

    async def flush(self) -> None:
        """Write the counts of bursts that are over."""


class Notices:
    """A short queue to the recorder: what does not fit is dropped, because the audit log has it anyway."""

    def __init__(self, recorder: Recording | None) -> None:
        """Keep the recorder; without one (a test's twin) nothing is written."""
        self._recorder = recorder
        self._queue: asyncio.Queue[tuple[dict[str, Any], str]] = asyncio.Queue(_WAITING)

    def denied(self, case: Case, refusal: Refusal, servers: Catalogue) -> None:
        """Say on the instance that a call of it was refused, and at which known server; never in the caller's own words."""
        if self._recorder is None or case.facts is None or self._queue.full():
            return
        server = None if case.request is None else servers.by_audience(case.request.call.audience)
        where = "" if server is None or case.request is None else f" at {case.request.call.audience}"
        self._queue.put_nowait((case.facts.instance, f"{refusal.code}{where}"))

    async def run(self) -> None:
        """Write Events for ever, and the count of a burst when it is over."""
        loop = asyncio.get_running_loop()
        due = loop.time() + _FLUSH_SECONDS
        while True:
            try:
                async with asyncio.timeout_at(due):
                    await self._write(*await self._queue.get())
            except TimeoutError:
                await self._flush()
                due = loop.time() + _FLUSH_SECONDS

    async def drain(self) -> None:
        """Write the Events that wait."""
        while not self._queue.empty():
            await self._write(*self._queue.get_nowait())

    async def _flush(self) -> None:
        try:
            if self._recorder is not None:
                await self._recorder.flush()
        except Exception as error:  # noqa: BLE001 - as below
            _log.warning("no count written", error=type(error).__name__)

    async def _write(self, instance: dict[str, Any], note: str) -> None:
        try:
            if self._recorder is not None:
                await self._recorder.emit(instance, "Warning", "CallsDenied", note)
        except Exception as error:  # noqa: BLE001 - an Event is a courtesy
            _log.warning("no Event written", error=type(error).__name__)
