"""The client of a replay store that several processes share: one address, short patience, nothing sent twice (wire.md 3.3).

The webhook's replicas use it for nonces, the replicas of a tool server for call tokens. It needs redis-py.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from countersign.errors import Unavailable
from countersign.wire import SCRIPT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence
    from pathlib import Path

__all__ = ["Address", "RedisCommands"]

_SECONDS: Final = 0.5
_CONNECTIONS: Final = 64


class Address(Protocol):
    """Where the store is. ``url`` holds no secret: ``password`` is a file. ``ca`` are the roots of a ``rediss`` server."""

    @property
    def url(self) -> str:
        """``redis://…``, ``rediss://…`` or ``unix:///…``."""

    @property
    def username(self) -> str | None:
        """Who connects; None is the server's default user."""

    @property
    def password(self) -> Path | None:
        """A file with the password."""

    @property
    def ca(self) -> Path | None:
        """A file with roots; None are the system's."""


class RedisCommands:
    """``wire.ReplayCommands`` over redis-py. A lost answer is not asked for again: the entry may be there."""

    def __init__(self, address: Address) -> None:
        """Read the password; raises OSError. Nothing is connected yet."""
        more: dict[str, Any] = {}
        if address.url.startswith("rediss:"):
            ca = None if address.ca is None else str(address.ca)
            more = {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": ca}
        pool = BlockingConnectionPool.from_url(
            address.url,
            username=address.username,
            password=None if address.password is None else address.password.read_text().strip(),
            socket_timeout=_SECONDS,
            socket_connect_timeout=_SECONDS,
            max_connections=_CONNECTIONS,
            timeout=_SECONDS,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
            **more,
        )
        self._redis = Redis.from_pool(pool)
        self._script = self._redis.register_script(SCRIPT)

    async def run(self, keys: Sequence[str], arguments: Sequence[int]) -> tuple[str, str, int]:
        """Decide on one entry."""
        answer = await _answered(self._script(keys=list(keys), args=list(arguments)))
        try:
            word, run, number = answer
            return str(word), str(run), int(number)
        except (TypeError, ValueError) as error:
            raise Unavailable("replay.unavailable", "the replay store answers something else") from error

    async def memory(self) -> Mapping[str, Any]:
        """Ask what happens when it is full."""
        found = await _answered(self._redis.info("memory"))
        if not isinstance(found, dict) or "maxmemory" not in found:
            raise Unavailable("replay.unavailable", "the replay store does not tell what it does when it is full")
        return found

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


async def _answered(asked: Awaitable[Any]) -> Any:
    try:
        async with asyncio.timeout(_SECONDS):
            return await asked
    except (RedisError, OSError, TimeoutError) as error:
        raise Unavailable("replay.unavailable", f"the replay store does not answer ({type(error).__name__})") from error
