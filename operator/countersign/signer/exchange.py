"""One request of the agent, seen as its two ends: what came in, what goes out, and whether anybody still listens."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from countersign.errors import Invalid
from countersign.signer.refusal import Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, MutableMapping

    from countersign.signer.answers import TokenFilter
    from countersign.signer.replies import Reply

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

__all__ = ["BodyLimits", "Exchange", "Gone"]

_T = TypeVar("_T")
_REQUEST_TIMEOUT: Final = 408
_DIGITS: Final = 12


@dataclass(frozen=True)
class BodyLimits:
    """How many bytes a body has at most, and how many seconds it has to arrive."""

    size: int
    seconds: float = 30.0


class Gone(Exception):
    """The agent went away."""


class Exchange:
    """The ends of one ASGI request. ``request_id`` is the JSON-RPC id, as soon as one is known."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Keep the ends; nothing is read yet."""
        self.method: str = scope["method"]
        self.target: str = scope["raw_path"].decode("latin-1")
        if query := scope.get("query_string"):
            self.target += "?" + query.decode("latin-1")
        self.headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        self.request_id: str | int | None = None
        self._receive = receive
        self._send = send
        self._unread = False
        self._started = False
        self._finished = False

    def first(self, name: str) -> str | None:
        """Return the first value of a field, trimmed."""
        return next((value.strip(" \t") for known, value in self.headers if known == name), None)

    async def body(self, limits: BodyLimits) -> bytes:
        """Read the body, and with it the id that a refusal has to name.

        Raises:
            Invalid: ``parse.size``, it is too long.
            Refused: the same code as 408, it took too long.
            Gone: nobody is there any more.
        """
        self._unread = True
        announced = self.first("content-length") or "0"
        if not announced.isdigit() or len(announced) > _DIGITS or int(announced) > limits.size:
            raise Invalid("parse.size", f"a call has at most {limits.size} bytes")
        try:
            async with asyncio.timeout(limits.seconds):
                body = await self._read(limits.size)
        except TimeoutError as error:
            raise Refused("parse.size", _REQUEST_TIMEOUT, detail="the body did not arrive in time") from error
        self._unread = False
        self.request_id = _id_of(body)
        return body

    async def while_here(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Return what ``work`` returns; it is cancelled, and so is what it waits for, when the agent goes away.

        Raises:
            Gone: it did; and whatever ``work`` raises.
        """
        tasks = asyncio.ensure_future(work), asyncio.ensure_future(self._left())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not tasks[0].done() and not self._finished:
                raise Gone
            return await tasks[0]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def reply(self, reply: Reply) -> bool:
        """Send a whole answer; False, and nothing is sent, if one has begun: then the connection just ends."""
        if self._started:
            return False
        self._started = True
        fields = [*reply.headers, (b"content-length", str(len(reply.body)).encode())]
        if self._unread:
            fields.append((b"connection", b"close"))  # the rest of that body is of no interest
        await self._send({"type": "http.response.start", "status": reply.status, "headers": fields})
        self._finished = True
        await self._send({"type": "http.response.body", "body": reply.body})
        return True

    async def stream(
        self, status: int, headers: list[tuple[bytes, bytes]], parts: AsyncIterable[bytes], token: TokenFilter
    ) -> None:
        """Pass an answer on piece by piece, as it comes, without the token."""
        self._started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        async for part in parts:
            if ready := token.feed(part):
                await self._send({"type": "http.response.body", "body": ready, "more_body": True})
        self._finished = True
        await self._send({"type": "http.response.body", "body": token.end()})

    async def _read(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise Gone
            parts.append(event.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise Invalid("parse.size", f"a call has at most {limit} bytes")
            if not event.get("more_body", False):
                return b"".join(parts)

    async def _left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _id_of(body: bytes) -> str | int | None:
    """Find the id of a request that the strict parser may refuse: it goes back to the one who sent it, nowhere else."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or "method" not in message:
        return None
    found = message.get("id")
    return found if isinstance(found, str | int) and not isinstance(found, bool) else None
