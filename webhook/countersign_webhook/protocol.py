"""HTTP/1.1 as uvicorn and llhttp read it, with the bounds they do not have (wire.md 2.2 and 11).

llhttp limits neither a header section nor the time it may take, and uvicorn adds the trailers of a chunked body to the
headers of a request that already runs. Here a request head has a size and a patience, and trailers mean nothing.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from countersign.wire import problem

if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Sequence

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

__all__ = ["EXCHANGE", "PEER_NAMES", "TARGET", "BoundedProtocol", "Exchange"]

EXCHANGE: Final = "countersign.exchange"
"""Key of the ASGI scope: an :class:`Exchange`; absent behind another server."""

TARGET: Final = "countersign.target"
"""Key of the ASGI scope: the request target, byte for byte as received."""

PEER_NAMES: Final = "countersign.peer_names"
"""Key of the ASGI scope: URI and DNS names of the client certificate that the handshake verified; absent without one."""

_VERSIONS: Final = ("1.0", "1.1")
_SECTION_BYTES: Final = 32 * 1024
_FIELD_BYTES: Final = 16 * 1024
_FIELDS: Final = 128
_HEAD_SECONDS: Final = 10.0
_IDLE_LINGER: Final = 0.1
_LINGER: Final = 1.0
"""TLS waits half a minute for the other side's goodbye; a process that stops gives an idle one this long, and one that was
just answered a second."""
_BREAK: Final = re.compile(rb"[\r\n\0]")


class Exchange:
    """One request and its answer in whole, for who needs no more: ASGI takes four messages and their waiting for it."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        """Stand for what uvicorn calls a cycle."""
        self._cycle = cycle

    def body(self) -> bytes | None:
        """Return the body if all of it is here and the client too; else it is to be received as ASGI does."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected or cycle.waiting_for_100_continue:
            return None
        return bytes(cycle.body)

    def answer(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bool:
        """Write the whole answer at once; False if it has to be sent as ASGI does. ``headers`` have the body's length."""
        cycle = self._cycle
        if cycle.response_started or cycle.disconnected or cycle.flow.write_paused:
            return False
        if cycle.scope["method"] == "HEAD" or any(_BREAK.search(value) for _, value in headers):
            return False
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        told = any(name == b"connection" for name, _ in headers)  # what we say of it is always that it ends
        cycle.keep_alive = cycle.keep_alive and not told
        parts = [STATUS_LINE[status]]
        for name, value in (*cycle.default_headers, *headers):
            parts += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive and not told:
            parts.append(b"connection: close\r\n")
        cycle.transport.write(b"".join([*parts, b"\r\n", body]))
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        return True


class _Refused(Exception):
    """Stops the parser; what the stranger is told is kept in the protocol."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection: its request heads are small, come in time, and name a target in origin form."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Start before the first request's head."""
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._fed = 0
        self._patience: TimerHandle | None = None
        self._until: float | None = None
        self._refusal = (HTTPStatus.BAD_REQUEST, "parse.syntax")
        self._peer_names: tuple[str, ...] = ()
        self._stopping = False

    def connection_made(self, transport: Any) -> None:
        """Give the first head its time."""
        super().connection_made(transport)
        # asyncio has the certificate only if the handshake verified it.
        certificate = transport.get_extra_info("peercert") or {}
        self._peer_names = tuple(name for kind, name in certificate.get("subjectAltName", ()) if kind in ("URI", "DNS"))
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._end_head()
        if self._patience is not None:
            self._patience.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a head that does not end within its bound ends the connection."""
        if self.transport.is_closing():
            return
        if self._in_head:
            self._fed += len(data)
        super().data_received(data)
        if self._in_head and self._fed > _SECTION_BYTES and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "parse.size")

    def on_message_begin(self) -> None:
        """Give each later head its time, too."""
        super().on_message_begin()
        if self._until is None:
            self._begin_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head; one of a trailer is dropped."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Judge the head as a whole, then let the request run."""
        self._end_head()
        sizes = [len(name) + len(value) for name, value in self.headers]
        size, longest = len(self.url) + sum(sizes) + 4 * len(sizes), max(sizes, default=0)
        if size > _SECTION_BYTES or longest > _FIELD_BYTES or len(self.headers) > _FIELDS:
            self._refusal = (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "parse.size")
            raise _Refused
        if self.parser.get_http_version() not in _VERSIONS:
            raise _Refused
        if not self.url.startswith(b"/") or b"#" in self.url:
            self._refusal = (HTTPStatus.BAD_REQUEST, "http.path")
            raise _Refused
        self.scope[TARGET] = self.url.decode("ascii", "strict")  # type: ignore[typeddict-unknown-key]  # ours
        if self._peer_names:
            self.scope[PEER_NAMES] = self._peer_names  # type: ignore[typeddict-unknown-key]  # ours
        scope = self.scope
        super().on_headers_complete()
        if self.cycle.scope is scope:
            scope[EXCHANGE] = Exchange(self.cycle)  # type: ignore[typeddict-unknown-key]  # ours

    def on_message_complete(self) -> None:
        """Wait for the next head."""
        super().on_message_complete()
        self._in_head = True
        self._fed = 0

    def on_response_complete(self) -> None:
        """End a connection whose request was answered before its end: the rest is nobody's to wait for."""
        if not self.pipeline and self.cycle.more_body:
            self.transport.close()
        super().on_response_complete()
        if self._stopping:
            self._leave(_LINGER)

    def shutdown(self) -> None:
        """Close an idle connection at once; one whose request runs, when that is answered."""
        self._stopping = True
        super().shutdown()
        self._leave(_IDLE_LINGER)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with the problem document that everything else gets."""
        del msg
        self._refuse(*self._refusal)

    def _leave(self, seconds: float) -> None:
        if self.transport.is_closing():
            self.loop.call_later(seconds, self.transport.abort)

    def _begin_head(self) -> None:
        """Give a head its time. The timer of the head before is left to run, and asks again when it ends."""
        self._in_head = True
        self._fed = 0
        self._until = self.loop.time() + _HEAD_SECONDS
        if self._patience is None:
            self._patience = self.loop.call_later(_HEAD_SECONDS, self._out_of_patience)

    def _end_head(self) -> None:
        self._in_head = False
        self._until = None

    def _out_of_patience(self) -> None:
        self._patience = None
        if self._until is None or self.transport.is_closing():
            return
        left = self._until - self.loop.time()
        if left > 0:
            self._patience = self.loop.call_later(left, self._out_of_patience)
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "parse.size")

    def _refuse(self, status: HTTPStatus, code: str) -> None:
        """Answer and close. What is under way is told that its client left; what has begun to answer cannot be unsaid."""
        self._end_head()
        cycle = self.cycle
        # There is none before the first request, whatever its type says.
        if cycle is not None and not cycle.response_complete:  # type: ignore[redundant-expr]
            if cycle.response_started or self.pipeline:
                self.transport.close()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        body = problem(code)[2]
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/problem+json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
