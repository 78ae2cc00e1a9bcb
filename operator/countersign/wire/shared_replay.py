"""Used once, among many: a replay store in Valkey or Redis that all replicas share (wire.md 3.3.4 and 3.3.5).

One script decides, so that two replicas that ask at the same moment get two answers. It trusts the store's own clock and
notices what makes a store forget: an empty one (FLUSHALL), another server process (restart, failover: also with a copy of
the data, whose end may be missing), a clock that went back. Each of these begins a new epoch.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

from countersign.errors import Denied, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from countersign.clock import Clock

__all__ = ["CALL_TOKEN_AHEAD", "SCRIPT", "ReplayCommands", "SharedReplayCache"]

_PREFIX: Final = "countersign:{replay}:"
_EPOCH_KEY: Final = f"{_PREFIX}epoch"
_EPOCH_MARGIN: Final = 1
_DRIFT_SECONDS: Final = 5
_EARLY_MICROSECONDS: Final = 300_000
_LOOK_SECONDS: Final = 30.0

CALL_TOKEN_AHEAD: Final = 5
"""How far the ``iat`` of a call token may lie ahead of the store's clock: the issuer's is not the store's."""

SCRIPT: Final = f"""
local time = redis.call('TIME')
local now = tonumber(time[1])
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local issued, expires, caller = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local known = redis.call('HMGET', KEYS[1], 'run', 'epoch', 'seen')
local epoch, seen = tonumber(known[2] or now), tonumber(known[3] or now)
if known[1] ~= run or now < seen then
  epoch = now
  redis.call('HSET', KEYS[1], 'run', run, 'epoch', now, 'seen', now)
elseif now > seen then
  redis.call('HSET', KEYS[1], 'seen', now)
end
if math.abs(now - caller) > {_DRIFT_SECONDS} then return {{'drift', run, now - caller}} end
if issued > now then return {{'early', run, (issued - now) * 1000000 - tonumber(time[2])}} end
if issued < epoch + {_EPOCH_MARGIN} then return {{'reset', run, epoch}} end
local life = math.max(1, expires - math.min(now, caller) + 1)
if redis.call('SET', KEYS[2], '', 'NX', 'EX', life) then return {{'new', run, 0}} end
return {{'used', run, 0}}
"""
"""Keys: epoch, entry. Arguments: issued, expires, the caller's now. Returns a word, the server's run id, and a number."""


class ReplayCommands(Protocol):
    """The two things asked of a server. Whatever goes wrong is Unavailable ``replay.unavailable``."""

    async def run(self, keys: Sequence[str], arguments: Sequence[int]) -> tuple[str, str, int]:
        """Run :data:`SCRIPT` and return what it returns."""

    async def memory(self) -> Mapping[str, Any]:
        """Return the section ``memory`` of INFO."""


class SharedReplayCache:
    """A :class:`ReplayCache` in a server that several processes share. Their clocks and its may differ by 5 s at most."""

    def __init__(self, commands: ReplayCommands, clock: Clock, *, ahead: int = 0) -> None:
        """Ask nothing yet. ``ahead`` is how far ``issued`` may lie ahead of the store's clock, in seconds.

        By so much longer nothing is believed after a reset: it could have been used before it. All who share a store for one
        kind of thing say the same.
        """
        self._commands, self._clock, self._ahead = commands, clock, ahead
        self._run: str | None = None
        self._looked = float("-inf")
        self._believed_from = 0

    async def insert(self, key: tuple[str, str], *, issued: int, expires: int, now: int) -> None:
        """See :meth:`ReplayCache.insert`."""
        await self._require_memory()
        issued -= self._ahead
        entry = f"{_PREFIX}{key[0]}:{key[1]}"
        word, run, number = await self._commands.run([_EPOCH_KEY, entry], [issued, expires, now])
        if word == "early" and number <= _EARLY_MICROSECONDS:
            # Made by a replica whose clock is a little ahead. Taken at once, it could come again after a reset of now.
            await asyncio.sleep(number / 1_000_000)
            word, run, number = await self._commands.run([_EPOCH_KEY, entry], [issued, expires, now])
        self._note(run, now)
        if word == "reset" or issued < self._believed_from:
            believed = max(self._believed_from, number + _EPOCH_MARGIN if word == "reset" else 0)
            wait = max(believed + self._ahead - now, 1)
            raise Unavailable("replay.store_reset", "made before this replay store", retry_after=wait)
        if word == "used":
            raise Denied("proof.replayed", "used before")
        if word != "new":
            raise Unavailable("replay.unavailable", "the clocks of replicas and replay store differ")

    def _note(self, run: str, now: int) -> None:
        """Believe nothing from before the moment when another server answered, whatever that one remembers."""
        if self._run not in (None, run):
            self._believed_from = now + _EPOCH_MARGIN
        self._run = run

    async def _require_memory(self) -> None:
        """Refuse a server that forgets when it is full instead of refusing."""
        if self._clock.monotonic() - self._looked < _LOOK_SECONDS:
            return
        memory = await self._commands.memory()
        if int(memory.get("maxmemory", 0)) and memory.get("maxmemory_policy") != "noeviction":
            raise Unavailable("replay.unavailable", "the replay store evicts: maxmemory-policy must be noeviction")
        self._looked = self._clock.monotonic()
