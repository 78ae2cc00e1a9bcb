"""HTTP/1.1 as uvicorn reads it, with the bounds that it does not have: how long a request's head may take and be.

A body's bounds are ``answers.read_body``'s; without one for the head, silent connections alone would use up the port.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from countersign.errors import title

if TYPE_CHECKING:
    from asyncio import TimerHandle

__all__ = ["PatientProtocol"]

_HEAD_BYTES: Final = 32 * 1024
_FIELDS: Final = 64
_IDLE_LINGER: Final = 0.1
_LINGER: Final = 1.0
"""TLS waits half a minute for the other side's goodbye; a process that stops gives an idle one this long, and one that was
just answered a second."""


class _TooMuch(Exception):
    """Stops the parser in the middle of a head."""


class PatientProtocol(HttpToolsProtocol):
    """One connection whose request heads are bounded in bytes, fields and seconds."""

    def __init__(self, *args: Any, head_seconds: float, **kwargs: Any) -> None:
        """Wait for the first head; ``head_seconds`` is how long."""
        super().__init__(*args, **kwargs)
        self._head_seconds = head_seconds
        self._head: TimerHandle | None = None
        self._bytes = 0
        self._status = HTTPStatus.BAD_REQUEST
        self._stopping = False

    def connection_made(self, transport: Any) -> None:
        """Give the first head its time."""
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, unless the connection is refused already."""
        if not self.transport.is_closing():
            super().data_received(data)

    def on_message_begin(self) -> None:
        """Give each later head its time, too."""
        super().on_message_begin()
        self._begin()

    def on_url(self, url: bytes) -> None:
        """Count the target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a field; one of a trailer is dropped."""
        if self._head is not None:
            self._count(len(name) + len(value))
            if len(self.headers) >= _FIELDS:
                self._count(_HEAD_BYTES)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Let the request run; its body has bounds of its own."""
        self._end()
        super().on_headers_complete()

    def shutdown(self) -> None:
        """Close an idle connection at once; one whose request runs, when that is answered."""
        self._stopping = True
        super().shutdown()
        self._leave(_IDLE_LINGER)

    def on_response_complete(self) -> None:
        """Go when a process that stops has answered."""
        super().on_response_complete()
        if self._stopping:
            self._leave(_LINGER)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or too much of it, with the document that every refusal is."""
        del msg
        self._refuse(self._status, "attest.request" if self._status is HTTPStatus.BAD_REQUEST else "parse.size")

    def _leave(self, seconds: float) -> None:
        if self.transport.is_closing():
            self.loop.call_later(seconds, self.transport.abort)

    def _begin(self) -> None:
        self._end()
        self._bytes = 0
        self._head = self.loop.call_later(self._head_seconds, self._too_slow)

    def _end(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > _HEAD_BYTES:
            self._status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise _TooMuch

    def _too_slow(self) -> None:
        self._head = None
        if not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "attest.request")

    def _refuse(self, status: HTTPStatus, code: str) -> None:
        self._end()
        cycle: Any = self.cycle  # None before the first request, whatever its annotation says
        if cycle is None or cycle.response_complete or not (cycle.response_started or self.pipeline):
            document = {"type": f"https://countersign.dev/problems/{code}", "title": title(code), "status": status}
            body = json.dumps(document | {"detail": status.phrase, "code": code}).encode()
            lines = (
                f"HTTP/1.1 {status.value} {status.phrase}",
                "content-type: application/problem+json",
                f"content-length: {len(body)}",
                "connection: close",
            )
            self.transport.write("\r\n".join((*lines, "", "")).encode() + body)
        if cycle is not None:
            cycle.disconnected = True  # who still reads that body is told that there is no more
            cycle.message_event.set()
        self.transport.close()
