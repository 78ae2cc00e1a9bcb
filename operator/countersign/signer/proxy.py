"""The agent's side: an ASGI application on loopback that turns a bare MCP call into a countersigned one.

One request, in order: loopback rules (4.1) → body → route → strict parse (2.2, 2.3) → token for this very call (leg T) →
the same bytes with token and signature (leg C) → the answer as it came, less the token. Whatever fails before the tool
server is a refusal in the one form that every MCP client shows its caller.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from countersign.errors import CountersignError, Denied
from countersign.signer.answers import TokenFilter, filter_json, filter_sse
from countersign.signer.exchange import Exchange, Gone
from countersign.signer.forward import Unreachable
from countersign.signer.refusal import Refused, find_refusal, refused_by
from countersign.signer.replies import Reply, error_reply, plain_reply, refusal_reply, servers_reply, status_of
from countersign.signer.skew import explained
from countersign.wire import Message, parse_mcp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpcore

    from countersign.signer.catalogue import Catalogue, Server
    from countersign.signer.exchange import BodyLimits, Receive, Scope, Send
    from countersign.signer.forward import Forwarder
    from countersign.signer.front import FrontDoor, Grant
    from countersign.signer.keyring import Keyring
    from countersign.signer.metrics import SignerMetrics
    from countersign.wire import McpRequest

__all__ = ["Proxy"]

_MAX_LIST: Final = 8 * 1024 * 1024
_MAX_PROBLEM: Final = 64 * 1024
_STORE_RESET_SECONDS: Final = 1.0
_LONGEST_RESET_SECONDS: Final = 40.0
"""A verifier that just started believes nothing older than its start and the clock skew (at most 30 s) after it."""
_RETURNED: Final = frozenset({b"content-type", b"cache-control", b"retry-after", b"allow"})
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
        limits: BodyLimits,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Keep the parts; ``sleep`` waits before a retry."""
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._keyring = keyring
        self._front = front
        self._catalogue = catalogue
        self._forwarder = forwarder
        self._metrics = metrics
        self._limits = limits
        self._sleep = sleep

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        try:
            await self._serve(exchange)
        except Refused as refused:
            await self._refuse(exchange, refused)
        except CountersignError as error:
            await self._refuse(exchange, refused_by(error, status_of(error)))
        except Unreachable as error:
            self._metrics.calls.labels(code="unreachable").inc()
            sent = await exchange.reply(error_reply(exchange.request_id, 502, str(error)))
            _log.warning("call.unreachable", reason=str(error), cause=repr(error.__cause__), broke_off=not sent)
        except Gone:
            self._metrics.calls.labels(code="gone").inc()
        except Exception:  # noqa: BLE001 - whatever it is, the agent gets a refusal and the signer lives
            _log.exception("call.failed")
            await self._refuse(exchange, Refused("decide.failed", 503))

    async def _serve(self, exchange: Exchange) -> None:
        self._check_loopback(exchange)
        if exchange.method == "POST":
            body = await exchange.body(self._limits)
            await exchange.while_here(self._called(exchange, body))
        elif exchange.method == "GET" and exchange.target == "/-/servers":
            await exchange.reply(servers_reply(await self._catalogue.servers()))
        elif await self._route(exchange.target) is None:
            await exchange.reply(plain_reply(404, "no tool server by this path; see /-/servers"))
        else:
            raise Refused("mcp.http_method", 405)

    def _check_loopback(self, exchange: Exchange) -> None:
        """Refuse a page in the pod's browser, by its own headers and against DNS rebinding (wire.md 4.1)."""
        hosts = [value.strip(" \t") for name, value in exchange.headers if name == "host"]
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            raise Refused("request.origin", 403, detail="the Host is not this proxy's")
        if any(name in {"origin", "sec-fetch-site"} for name, _ in exchange.headers):
            raise Refused("request.origin", 403, detail="requests of browsers are refused")

    async def _route(self, target: str) -> Server | None:
        """Find the server of exactly this path; a query does not change where it is, and is refused by its own code."""
        segment = target.partition("?")[0].removeprefix("/")
        if not segment or "/" in segment or "%" in segment:
            return None
        return await self._catalogue.find(segment, self._keyring.current().instance)

    async def _called(self, exchange: Exchange, body: bytes) -> None:
        """Answer a POST."""
        server = await self._route(exchange.target)
        if server is None:
            await exchange.reply(plain_reply(404, "no tool server by this path; see /-/servers"))
            return
        if server.protocol != "MCP" or server.enforcement != "Verifier":
            raise Refused("call.protocol", 403, detail="this signer forwards MCP to servers with a verifier")
        message = Message.build(exchange.method, exchange.target, exchange.headers, body, max_body=self._limits.size)
        await self._call(_parse(message, server), message, server, exchange)

    async def _call(self, request: McpRequest, message: Message, server: Server, exchange: Exchange) -> None:
        """Ask, forward, answer; once more where the refusal certainly preceded the tool (wire.md "Retries")."""
        call = request.call(server.audience)
        for last in (False, True):
            grant = await self._front.token(call)
            identity = self._keyring.current()
            async with self._forwarder.send(message, server, grant, identity) as answer:
                refused = await self._answer(request, server, grant, answer, exchange)
            if refused is None:
                self._metrics.calls.labels(code="policy.allowed").inc()
                return
            if last or refused.code not in _AGAIN:
                raise refused
            self._metrics.retries.labels(code=refused.code).inc()
            if refused.code == "replay.store_reset":
                await self._sleep(min(max(refused.retry_after or 0, _STORE_RESET_SECONDS), _LONGEST_RESET_SECONDS))

    async def _answer(
        self, request: McpRequest, server: Server, grant: Grant, answer: httpcore.Response, exchange: Exchange
    ) -> Refused | None:
        """Pass the tool server's answer on, or return the refusal of its verifier: that gets a form of ours."""
        fields = [(name.lower(), value) for name, value in answer.headers]
        _check_passable(answer.status, dict(fields))
        token = TokenFilter(grant.token)
        kept = [(name, value) for name, value in fields if _returned(name) and grant.token.encode() not in value]
        kind = dict(fields).get(b"content-type", b"").partition(b";")[0].strip().lower()
        if answer.status >= 400 and kind == b"application/problem+json":  # noqa: PLR2004 - the first refusal
            body = token.clean(await _read(answer, _MAX_PROBLEM))
            refused = find_refusal(answer.status, body, dict(fields).get(b"retry-after", b"").decode("latin-1"))
            if refused is not None:
                date = dict(fields).get(b"date", b"").decode("latin-1")
                return explained(refused, date, self._forwarder.clock.now(), self._metrics, by="tool_server")
            await exchange.reply(Reply(answer.status, kept, body))  # the tool server's own words, no refusal of ours
        elif request.method == "tools/list" and answer.status < 300:  # noqa: PLR2004 - every good one: clients read 201 alike
            change = filter_sse if kind == b"text/event-stream" else filter_json
            try:
                body = change(token.clean(await _read(answer, _MAX_LIST)), grant.tools, server.pinned)
            except (ValueError, RecursionError) as error:
                raise Unreachable("The tool server's list of tools cannot be read") from error
            await exchange.reply(Reply(answer.status, kept, body))
        else:
            await exchange.stream(answer.status, kept, answer.aiter_stream(), token)
        if token.found:
            _log.warning("answer.token_removed", server=server.name, namespace=server.namespace)
        return None

    async def _refuse(self, exchange: Exchange, refused: Refused) -> None:
        self._metrics.calls.labels(code=refused.code).inc()
        _log.info("call.refused", code=refused.code, decision=refused.decision, detail=refused.detail)
        await exchange.reply(
            refusal_reply(exchange.request_id, refused, version=exchange.first("mcp-protocol-version"))
        )


def _parse(message: Message, server: Server) -> McpRequest:
    """Read the message as wire.md 2.3 says; a tool that is not known here is the front door's to refuse, and to record."""
    path = message.target.partition("?")[0]
    try:
        return parse_mcp(message, path=path, input_schemas=server.schemas)
    except Denied:
        return parse_mcp(message, path=path, input_schemas=None)


def _check_passable(status: int, fields: dict[bytes, bytes]) -> None:
    """Refuse a redirect, which is never followed (D19), and a coded body, in which nothing can be looked for."""
    if 300 <= status < 400:  # noqa: PLR2004 - the redirections
        raise Unreachable("The tool server answered with a redirect")
    if fields.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise Unreachable("The tool server coded an answer that nobody asked to be coded")


def _returned(name: bytes) -> bool:
    return name in _RETURNED or name.startswith(b"mcp-")


async def _read(answer: httpcore.Response, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in answer.aiter_stream():
        size += len(part)
        if size > limit:
            raise Unreachable("The tool server's answer is too long")
        parts.append(part)
    return b"".join(parts)
