"""The agent's side: an ASGI application on loopback that turns a bare MCP call into a countersigned one.

One request, in order: loopback rules (4.1) → route → strict parse (2.2, 2.3) → token for this very call (leg T) → the
same bytes with token and signature (leg C) → the answer as it came. Whatever fails before the tool server is a refusal
in the one form that every MCP client shows its caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

import structlog

from countersign.errors import CountersignError, Invalid
from countersign.signer.answers import filter_json, filter_sse
from countersign.signer.forward import Unreachable
from countersign.signer.refusal import Refused, read_refusal, refused_by
from countersign.signer.replies import Reply, error_reply, plain_reply, refusal_reply, servers_reply, status_of
from countersign.wire import Message, parse_mcp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    import httpcore

    from countersign.signer.catalogue import Catalogue, Server
    from countersign.signer.forward import Forwarder
    from countersign.signer.front import FrontDoor, Grant
    from countersign.signer.keyring import Keyring
    from countersign.signer.metrics import SignerMetrics
    from countersign.wire import McpRequest

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

__all__ = ["Proxy"]

_BODY_SECONDS: Final = 30.0
_MAX_LIST: Final = 8 * 1024 * 1024
_RETURNED: Final = frozenset({"content-type", "cache-control", "retry-after", "allow"})
_AGAIN: Final = frozenset({"token.kid", "token.expired", "replay.store_reset", "nonce.invalid", "nonce.expired"})
_log = structlog.get_logger("signer")


class Proxy:
    """The ASGI application. ``port`` is the loopback port it is served on, for the ``Host`` check."""

    def __init__(
        self,
        *,
        port: int,
        keyring: Keyring,
        front: FrontDoor,
        catalogue: Catalogue,
        forwarder: Forwarder,
        metrics: SignerMetrics,
        body_bytes: int,
    ) -> None:
        """Keep the parts."""
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._keyring = keyring
        self._front = front
        self._catalogue = catalogue
        self._forwarder = forwarder
        self._metrics = metrics
        self._body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        exchange = _Exchange(receive, send)
        try:
            await self._serve(scope, exchange)
        except Refused as refused:
            await self._refuse(exchange, refused)
        except CountersignError as error:
            await self._refuse(exchange, refused_by(error, status_of(error)))
        except Unreachable as error:
            _log.warning("call.unreachable", reason=str(error))
            await exchange.reply(error_reply(exchange.request_id, 502, "The tool server did not answer"))
        except _Gone:
            self._metrics.calls.labels(code="client.gone").inc()
        except Exception:  # noqa: BLE001 - whatever it is, the agent gets a refusal and the signer lives
            _log.exception("call.failed")
            await self._refuse(exchange, Refused("decide.failed", 503))

    async def _serve(self, scope: Scope, exchange: _Exchange) -> None:
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        self._check_loopback(headers)
        target = scope["raw_path"].decode("latin-1")
        if target == "/-/servers" and scope["method"] == "GET":
            await exchange.reply(servers_reply(await self._catalogue.servers()))
            return
        server = await self._route(target)
        if server is None:
            await exchange.reply(plain_reply(404, "no tool server by this path; see /-/servers"))
            return
        if scope["method"] != "POST":
            raise Refused("mcp.http_method", 405)
        body = await exchange.body(self._body_bytes)
        query = scope.get("query_string", b"").decode("latin-1")
        message = Message.build(
            scope["method"], target + (f"?{query}" if query else ""), headers, body, max_body=self._body_bytes
        )
        exchange.request_id = _guess_id(body)
        request = parse_mcp(message, path=target, input_schemas=server.schemas)
        exchange.request_id = request.id
        await self._call(request, message, server, exchange)

    def _check_loopback(self, headers: list[tuple[str, str]]) -> None:
        """Refuse a page in the pod's browser, by its own headers and against DNS rebinding (wire.md 4.1)."""
        hosts = [value.strip() for name, value in headers if name == "host"]
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            raise Refused("request.origin", 403, detail="the Host is not this proxy's")
        if any(name in {"origin", "sec-fetch-site"} for name, _ in headers):
            raise Refused("request.origin", 403, detail="requests of browsers are refused")

    async def _route(self, target: str) -> Server | None:
        segment = target.removeprefix("/")
        if not segment or "/" in segment or "%" in segment:
            return None
        return await self._catalogue.find(segment, self._keyring.current().instance)

    async def _call(self, request: McpRequest, message: Message, server: Server, exchange: _Exchange) -> None:
        """Ask, forward, answer; once more where the refusal certainly preceded the tool (wire.md "Retries")."""
        if server.protocol != "MCP" or server.enforcement != "Verifier":
            raise Refused("call.protocol", 403, detail="this signer forwards MCP to servers with a verifier")
        call = request.call(server.audience)
        for last in (False, True):
            identity = self._keyring.current()
            grant = await self._front.token(call)
            async with self._forwarder.send(message, server, grant, identity) as answer:
                refused = await _refusal_of(answer)
                if refused is None:
                    await self._answer(request, server, grant, answer, exchange)
                    self._metrics.calls.labels(code="policy.allowed").inc()
                    return
            if last or refused.code not in _AGAIN:
                raise refused
            if refused.code == "replay.store_reset":
                await asyncio.sleep(1.0)

    async def _answer(
        self, request: McpRequest, server: Server, grant: Grant, answer: httpcore.Response, exchange: _Exchange
    ) -> None:
        fields = [(name.lower(), value) for name, value in answer.headers]
        kept = [(name, value) for name, value in fields if name.decode() in _RETURNED or name.startswith(b"mcp-")]
        if request.method != "tools/list" or answer.status != 200:  # noqa: PLR2004 - OK
            await exchange.stream(answer.status, kept, answer.aiter_stream())
            return
        kind = dict(fields).get(b"content-type", b"").partition(b";")[0].strip().lower()
        change = filter_sse if kind == b"text/event-stream" else filter_json
        try:
            body = change(await _read(answer, _MAX_LIST), grant.tools, server.pinned)
        except (ValueError, RecursionError) as error:
            raise Unreachable("the answer to tools/list cannot be read") from error
        await exchange.reply(Reply(200, kept, body))

    async def _refuse(self, exchange: _Exchange, refused: Refused) -> None:
        self._metrics.calls.labels(code=refused.code).inc()
        _log.info("call.refused", code=refused.code, decision=refused.decision)
        await exchange.reply(refusal_reply(exchange.request_id, refused))


class _Gone(Exception):
    """The agent went away."""


class _Exchange:
    """One request's two ends, and what is known of it when something fails."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._started = False
        self.request_id: str | int | None = None

    async def body(self, limit: int) -> bytes:
        """Read the body, at most ``limit`` bytes of it and in at most 30 s."""
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                while True:
                    event = await self._receive()
                    if event["type"] == "http.disconnect":
                        raise _Gone
                    parts.append(event.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise Invalid("parse.size", f"a call has at most {limit} bytes")
                    if not event.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError as error:
            raise Invalid("parse.size", "the body did not arrive in time") from error

    async def reply(self, reply: Reply) -> None:
        """Send a whole answer, unless one has begun: then the connection just ends."""
        if self._started:
            raise ConnectionError("the answer broke off")
        self._started = True
        fields = [*reply.headers, (b"content-length", str(len(reply.body)).encode())]
        await self._send({"type": "http.response.start", "status": reply.status, "headers": fields})
        await self._send({"type": "http.response.body", "body": reply.body})

    async def stream(self, status: int, headers: list[tuple[bytes, bytes]], parts: Any) -> None:
        """Pass an answer on piece by piece, and stop reading it when the agent goes away."""
        self._started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        watch = asyncio.ensure_future(self._gone())
        copy = asyncio.ensure_future(self._copy(parts))
        try:
            await asyncio.wait({watch, copy}, return_when=asyncio.FIRST_COMPLETED)
            if not copy.done():
                raise _Gone
            await copy
        finally:
            for task in (watch, copy):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task

    async def _copy(self, parts: Any) -> None:
        async for part in parts:
            await self._send({"type": "http.response.body", "body": part, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _refusal_of(answer: httpcore.Response) -> Refused | None:
    """Read the tool server's verifier's refusal, if this answer is one."""
    fields = {name.lower(): value for name, value in answer.headers}
    if answer.status < 400 or not fields.get(b"content-type", b"").startswith(b"application/problem+json"):  # noqa: PLR2004 - the first refusal
        return None
    body = await _read(answer, 64 * 1024)
    return read_refusal(answer.status, body, fields.get(b"retry-after", b"").decode("latin-1"))


async def _read(answer: httpcore.Response, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in answer.aiter_stream():
        size += len(part)
        if size > limit:
            raise Unreachable("the answer is too long")
        parts.append(part)
    return b"".join(parts)


def _guess_id(body: bytes) -> str | int | None:
    """Find the id of a message that the strict parser may refuse: it goes back to the one who sent it, nowhere else."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return None
    found = message.get("id") if isinstance(message, dict) else None
    return found if isinstance(found, str | int) and not isinstance(found, bool) else None
