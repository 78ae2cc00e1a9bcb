"""Who has heads signed in time: each minute and each 1,000 records, in the log and outside it (wire.md 9)."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import structlog

from countersign.audit.heads import Head, sign_head
from countersign.audit.ids import new_decision_id
from countersign.audit.record import head_record
from countersign.errors import CountersignError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cryptography.hazmat.primitives.asymmetric import ec

    from countersign.audit.log import AuditLog
    from countersign.clock import Clock

    Key = Callable[[], tuple[str, ec.EllipticCurvePrivateKey]]
    Publish = Callable[[Head, str, str], Awaitable[None]]

__all__ = ["HeadKeeper"]

HEAD_SECONDS: Final = 60.0
HEAD_RECORDS: Final = 1000
_LOG: Final = structlog.get_logger(__name__)


class HeadKeeper:
    """Signs where a log stands, if anything but heads was added. No decision waits for it.

    ``key`` gives ``kid`` and key of the issuer at that moment, and may raise Unavailable; ``publish`` keeps head, JWS and
    ``kid`` outside the log. What fails is told to the process's own log and tried again with the next head.
    """

    def __init__(self, log: AuditLog, *, issuer: str, key: Key, publish: Publish, clock: Clock) -> None:
        """Watch ``log`` from here on."""
        self._log, self._issuer, self._key, self._publish, self._clock = log, issuer, key, publish, clock
        self._many = asyncio.Event()
        self._signed = self._tried = -1
        log.subscribe(self._grown)

    async def run(self, *, every: float = HEAD_SECONDS) -> None:
        """Sign for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._many.wait(), every)
            await self.sign()

    async def sign(self) -> bool:
        """Sign the last line on disk, write the head down and publish it; False if nothing was new or it failed."""
        self._many.clear()
        seq, digest = self._log.position
        if seq <= self._signed:
            return False
        self._tried = seq
        now = self._clock.now()
        head = Head(self._issuer, self._log.name, seq, digest, int(now.timestamp()))
        try:
            kid, key = self._key()
            text = sign_head(head, key=key, kid=kid)
            process = self._log.name.rsplit("-", 2)[0]
            await self._log.append(head_record(new_decision_id(), now, text, process=process))
            await self._publish(head, text, kid)
        except CountersignError as error:
            _LOG.warning("no signed head", log=self._log.name, error=str(error))
            return False
        # The record of a head is no reason for another one, if it is all that was added.
        self._signed = seq + 1 if self._log.position[0] == seq + 1 else seq
        return True

    def _grown(self) -> None:
        if self._log.position[0] - max(self._tried, 0) >= HEAD_RECORDS:
            self._many.set()
