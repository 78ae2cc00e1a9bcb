"""Used once: the port of the replay store, and its twin in memory (wire.md 3.3.4 and 3.3.5)."""

from __future__ import annotations

import heapq
from typing import Final, Protocol

from countersign.errors import Denied, Unavailable

__all__ = ["MemoryReplayCache", "ReplayCache"]

_EPOCH_MARGIN: Final = 1
_MOST: Final = 1_000_000


class ReplayCache(Protocol):
    """Remembers what was used. All replicas that accept the same audience share one store."""

    async def insert(self, key: tuple[str, str], *, issued: int, expires: int, now: int) -> None:
        """Mark ``key`` as used, atomically, and keep it until ``expires``; times are in seconds since 1970.

        ``key`` is (jkt, nonce) or (iss, jti); ``issued`` is when nonce or token was made.

        Raises
        ------
        Unavailable
            ``replay.store_reset`` if it was made before the store's epoch + 1 s: the store may have forgotten its use.
            ``replay.unavailable`` if the store does not answer.
        Denied
            ``proof.replayed`` if it was used.

        """


class MemoryReplayCache:
    """The store of one process: empty, so of the epoch ``epoch``, when it is made. It never forgets before its time.

    A clock that was ahead and is set back makes things good again whose use was forgotten meanwhile: they are not believed.
    Only for a process that is alone in accepting its audience: another one's uses are not seen here (A6).
    """

    def __init__(self, *, epoch: int, most: int = _MOST) -> None:
        """Begin empty at ``epoch``, seconds since 1970; at most ``most`` entries are kept, then nothing is accepted."""
        self._believed_from = epoch + _EPOCH_MARGIN
        self._most = most
        self._used: set[tuple[str, str]] = set()
        self._ends: list[tuple[int, tuple[str, str]]] = []
        self._forgotten = epoch

    def __len__(self) -> int:
        return len(self._used)

    async def insert(self, key: tuple[str, str], *, issued: int, expires: int, now: int) -> None:
        """See :meth:`ReplayCache.insert`; atomic, as nothing here waits."""
        if issued < self._believed_from:
            wait = max(self._believed_from - now, 1)
            raise Unavailable("replay.store_reset", "made before this replay store", retry_after=wait)
        while self._ends and self._ends[0][0] < now:
            self._forgotten, gone = heapq.heappop(self._ends)
            self._used.discard(gone)
        if expires <= self._forgotten:
            raise Unavailable("replay.store_reset", "the clock went back: its use may be forgotten", retry_after=1)
        if key in self._used:
            raise Denied("proof.replayed", "used before")
        if len(self._used) >= self._most:
            raise Unavailable("replay.unavailable", "the replay store is full")
        self._used.add(key)
        heapq.heappush(self._ends, (expires, key))
