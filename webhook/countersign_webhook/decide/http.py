"""The edge of leg T: a whole request in, one answer out; raw ASGI, because this is the hot path."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from countersign.errors import Invalid
from countersign.wire import Message
from countersign_webhook.protocol import EXCHANGE, TARGET

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

__all__ = ["Answer", "Gone", "TooLate", "read_body", "read_message", "send_answer", "target_of"]

JSON_TYPE: Final = ("content-type", "application/json")
NO_STORE: Final = ("cache-control", "no-store")
_DIGITS: Final = 12


class Gone(Exception):
    """The client closed the connection: there is nobody to answer."""


class TooLate(Invalid):
    """The body was announced and did not come in time."""


class Answer(NamedTuple):
    """One whole answer; ``code`` is what is counted, ``ok`` for a good one."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    code: str = "ok"

    @classmethod
    def of_json(cls, value: Any, *headers: tuple[str, str], status: int = 200) -> Answer:
        """Return ``value`` as compact JSON."""
        return cls(status, (JSON_TYPE, *headers), orjson.dumps(value))


async def read_body(scope: Scope, receive: Receive, *, limit: int, seconds: float) -> bytes:
    """Read the body.

    Raises
    ------
    Invalid
        ``parse.size`` if it is longer than ``limit`` bytes, or not all here after ``seconds`` (as ``TooLate``).
    Gone
        If the client left.

    """
    exchange = scope.get(EXCHANGE)
    whole = None if exchange is None else exchange.body()
    if whole is not None:
        if len(whole) > limit:
            raise Invalid("parse.size", f"at most {limit} bytes")
        return bytes(whole)
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if not announced.isdigit() or len(announced) > _DIGITS or int(announced) > limit:
        raise Invalid("parse.size", f"at most {limit} bytes")
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            more = True
            while more:
                event = await receive()
                if event["type"] == "http.disconnect":
                    raise Gone
                parts.append(event.get("body", b""))
                size += len(parts[-1])
                if size > limit:
                    raise Invalid("parse.size", f"at most {limit} bytes")
                more = event.get("more_body", False)
    except TimeoutError as error:
        raise TooLate("parse.size", f"the body did not come within {seconds:g} s") from error
    return b"".join(parts)


async def read_message(scope: Scope, receive: Receive, *, limit: int, seconds: float) -> Message:
    """Read the whole request as wire.md 2.2 wants it; raises as ``read_body`` and ``Message.build``."""
    body = await read_body(scope, receive, limit=limit, seconds=seconds)
    return Message.build(scope["method"], target_of(scope), scope["headers"], body, max_body=limit)


def target_of(scope: Scope) -> str:
    """Return the request target as received; behind another server than ours, as ASGI gives it."""
    if TARGET in scope:
        return str(scope[TARGET])
    path: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    return (path + (b"?" + query if query else b"")).decode("latin-1")


async def send_answer(scope: Scope, send: Send, answer: Answer, *, close: bool = False) -> None:
    """Send ``answer``; with ``close`` the connection ends, because its request was not read to the end."""
    headers = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    if close:
        headers.append((b"connection", b"close"))
    exchange = scope.get(EXCHANGE)
    if exchange is not None and exchange.answer(answer.status, headers, answer.body):
        return
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
