"""One request and its answer: given to an ASGI application directly, or as bytes over a connection that stays open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from countersign.wire import Message

__all__ = ["Answer", "ask", "encoded", "read_answer"]


@dataclass(frozen=True)
class Answer:
    """Status, header fields by their names in lower case, and body."""

    status: int
    headers: dict[str, str]
    body: bytes


async def ask(app: Any, message: Message) -> Answer:
    """Give ``message`` to an ASGI application as a server would, and return what it answers."""
    headers = [(name.encode(), value.encode("latin-1")) for name, value in message.headers]
    path = message.target.encode()
    scope = {"type": "http", "method": message.method, "path": message.target, "raw_path": path, "query_string": b""}
    events: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": message.body, "more_body": False}

    async def send(event: dict[str, Any]) -> None:
        events.append(event)

    await app({**scope, "headers": headers, "client": ("127.0.0.1", 4711)}, receive, send)
    fields = {name.decode(): value.decode("latin-1") for name, value in events[0]["headers"]}
    return Answer(events[0]["status"], fields, b"".join(event.get("body", b"") for event in events[1:]))


def encoded(message: Message) -> bytes:
    """Return ``message`` as HTTP/1.1."""
    lines = [f"{message.method} {message.target} HTTP/1.1", *(f"{name}: {value}" for name, value in message.headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + message.body


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Read one answer that says its length."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    fields = {name.lower(): value.strip() for name, _, value in pairs}
    return Answer(int(first.split()[1]), fields, await reader.readexactly(int(fields["content-length"])))
