"""A signer's proxy between two twins on this machine: a scripted front door and a scripted tool server, both real HTTP.

The twins are served over TLS with names of their own; :class:`Net` is the resolver that finds them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import tempfile
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpcore
import httpx
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from countersign.attest import SoftwareDevice
from countersign.clock import FakeClock
from countersign.devcluster.pki import LocalCA
from countersign.signer.catalogue import Catalogue
from countersign.signer.door import Door
from countersign.signer.exchange import BodyLimits
from countersign.signer.forward import Forwarder
from countersign.signer.front import FrontDoor
from countersign.signer.keyring import Identity
from countersign.signer.metrics import SignerMetrics
from countersign.signer.proxy import Proxy
from countersign.wire import chain_header

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from countersign.errors import Unavailable

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
AUDIENCE = "https://tools.billing.svc/stripe"
PORT = 7080
ISSUER = "https://countersign.example.com"
INSTANCE = "billing/refund-agent-7f9c4"
WEB = LocalCA("test web CA")
JSON = [(b"content-type", b"application/json")]
PROBLEM = [(b"content-type", b"application/problem+json")]
EVENTS = [(b"content-type", b"text/event-stream")]


class Net(httpcore.AsyncNetworkBackend):
    """Finds twins by host name; every other name is not there."""

    def __init__(self) -> None:
        self._real = httpcore.AnyIOBackend()
        self.hosts: dict[str, int] = {}

    async def connect_tcp(self, host: str, port: int, **more: Any) -> httpcore.AsyncNetworkStream:
        del port
        if host not in self.hosts:
            raise httpcore.ConnectError(f"no such host: {host}")
        return await self._real.connect_tcp("127.0.0.1", self.hosts[host], **more)

    async def connect_unix_socket(self, path: str, **more: Any) -> httpcore.AsyncNetworkStream:
        raise NotImplementedError(path, more)

    async def sleep(self, seconds: float) -> None:
        await self._real.sleep(seconds)


@contextlib.asynccontextmanager
async def serving(app: Any, *names: str, ca: LocalCA = WEB) -> AsyncIterator[int]:
    """Serve an ASGI application on a port of its own until the end of the block, over TLS if it has ``names``."""
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, ws="none")
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: H11Protocol(config, state, {}), "127.0.0.1", 0, ssl=_server_context(ca, names) if names else None
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        for task in list(state.tasks):
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)


def _server_context(ca: LocalCA, names: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as directory:
        context.load_cert_chain(*ca.issue("twin", names=names).write(Path(directory), "twin"))
    return context


@dataclass
class Seen:
    """A request as a twin got it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def get(self, name: str) -> str | None:
        return next((value for known, value in self.headers if known == name), None)


async def read_request(scope: Any, receive: Any) -> Seen:
    body, more = b"", True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    query = scope["query_string"].decode()
    target = scope["raw_path"].decode() + (f"?{query}" if query else "")
    return Seen(scope["method"], target, [(n.decode(), v.decode("latin-1")) for n, v in scope["headers"]], body)


async def answer(send: Any, status: int, headers: Any, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [*headers]})
    await send({"type": "http.response.body", "body": body})


def token_of(number: int) -> str:
    """A token in form alone: the signer reads its ``jti`` and believes the front door."""
    claims = {"jti": f"jti{number:019d}"}
    parts = ({"alg": "ES256"}, claims)
    return ".".join([*(_b64(json.dumps(part).encode()) for part in parts), _b64(bytes([number % 256]) * 64)])


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class FrontTwin:
    """Answers ``/nonce``, ``/catalogue`` and ``/token``; a refusal is said once for each that was scripted."""

    servers: list[dict[str, Any]]
    tools: list[str] | None = None
    refusals: dict[str, deque[tuple[int, dict[str, Any], dict[str, str]]]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    hold: asyncio.Event | None = None
    held: asyncio.Event = field(default_factory=asyncio.Event)
    _nonces: int = 0

    def refuse(self, path: str, code: str, status: int, *, headers: dict[str, str] | None = None, **more: Any) -> None:
        self.refusals.setdefault(path, deque()).append((status, {"error": "x", "code": code, **more}, headers or {}))

    def asked(self, path: str) -> list[Seen]:
        return [one for one in self.seen if one.target.partition("?")[0] == path]

    def nonce(self) -> str:
        self._nonces += 1
        return f"nonce{self._nonces:038d}"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = await read_request(scope, receive)
        self.seen.append(request)
        path = scope["path"]
        if path != "/nonce" and self.hold is not None:
            self.held.set()
            await self.hold.wait()
        if self.refusals.get(path):
            status, body, headers = self.refusals[path].popleft()
            extra = [(name.encode(), value.encode()) for name, value in headers.items()]
            await answer(send, status, [*JSON, *extra], json.dumps(body).encode())
            return
        fresh = [] if path == "/nonce" else [(b"countersign-nonce", self.nonce().encode())]
        await answer(send, 200, [*JSON, *fresh], json.dumps(self._good(path)).encode())

    def _good(self, path: str) -> dict[str, Any]:
        if path == "/nonce":
            return {"nonces": [self.nonce() for _ in range(16)], "expires_in": 60}
        if path == "/catalogue":
            return {"servers": self.servers}
        self.tokens.append(token_of(len(self.tokens) + 1))
        good = {"access_token": self.tokens[-1], "token_type": "Countersign", "expires_in": 30, "decision": "d-1"}
        return good if self.tools is None else {**good, "tools": self.tools}


@dataclass
class ToolTwin:
    """A tool server; what it answers next is scripted, otherwise ``{"result": {"ok": true}}`` with the request's id."""

    script: deque[Callable[[Seen, Any], Awaitable[None]]] = field(default_factory=deque)
    seen: list[Seen] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = await read_request(scope, receive)
        self.seen.append(request)
        if self.script:
            await self.script.popleft()(request, send)
            return
        body = {"jsonrpc": "2.0", "id": json.loads(request.body).get("id"), "result": {"ok": True}}
        await answer(send, 200, JSON, json.dumps(body).encode())

    def says(self, status: int, headers: Any, body: bytes) -> None:
        async def say(_request: Seen, send: Any) -> None:
            await answer(send, status, headers, body)

        self.script.append(say)

    def refuses(self, code: str, status: int, **more: Any) -> None:
        document = {"type": f"https://countersign.dev/problems/{code}", "title": "x", "status": status, "code": code}
        self.says(status, PROBLEM, json.dumps({**document, **more}).encode())


class FixedKeyring:
    """A keyring with one identity, or with a reason why there is none."""

    def __init__(self, clock: FakeClock, key: Any, chain: str) -> None:
        now = clock.now()
        start, end = now - timedelta(hours=1), now + timedelta(hours=1)
        self.identity = Identity(key, chain, INSTANCE, start, end, now)
        self.missing: Unavailable | None = None
        self.renewals = 1
        self.problem: Unavailable | None = None
        self.reattested = 0

    def current(self) -> Identity:
        if self.missing is not None:
            raise self.missing
        return self.identity

    async def reattest(self) -> None:
        self.reattested += 1


def entry(name: str = "stripe", namespace: str = "billing", **more: Any) -> dict[str, Any]:
    """A server of the catalogue."""
    return {
        "name": name,
        "namespace": namespace,
        "audience": AUDIENCE,
        "protocol": "MCP",
        "enforcement": "Verifier",
        "ca_bundle": WEB.pem.decode(),
        "tools": [{"name": "get_charge"}, {"name": "create_refund"}],
        **more,
    }


@dataclass
class Rig:
    """A proxy, its client, and what stands around it."""

    clock: FakeClock
    net: Net
    keyring: FixedKeyring
    front: FrontTwin
    tool: ToolTwin
    door: Door
    front_door: FrontDoor
    proxy: Proxy
    metrics: SignerMetrics
    client: httpx.AsyncClient
    trust_dir: Path
    naps: list[float]

    async def post(self, message: Any, path: str = "/stripe", **headers: str) -> httpx.Response:
        """Send an MCP message as a client of 2025-11-25; a header's ``_`` is a ``-``, and None leaves it out."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        fields = {"content-type": "application/json", "mcp-protocol-version": "2025-11-25", **given}
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        sent = {name: value for name, value in fields.items() if value is not None}
        got = await self.client.post(path, content=body, headers=sent)
        self.check_no_token(got)
        return got

    async def modern(self, message: dict[str, Any], **headers: str | None) -> httpx.Response:
        """Send a request of 2026-07-28 with the headers that it needs, unless they are given."""
        meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
        params = {**message.get("params", {}), "_meta": meta}
        fields = {"mcp_protocol_version": "2026-07-28", "mcp_method": message["method"], **headers}
        if message["method"] == "tools/call":
            fields = {"mcp_name": params["name"], **fields}
        return await self.post({**message, "params": params}, **fields)

    def check_no_token(self, got: httpx.Response) -> None:
        """No answer holds a call token, in its head or in its body."""
        head = "\n".join(f"{name}: {value}" for name, value in got.headers.multi_items())
        for token in getattr(self.front, "tokens", ()):
            assert token not in head
            assert token.encode() not in got.content

    def counted(self, code: str) -> float:
        value = self.metrics.registry.get_sample_value("countersign_signer_calls_total", {"code": code})
        return value or 0.0


def call(tool: str = "get_charge", arguments: dict[str, Any] | None = None, id_: Any = 7) -> dict[str, Any]:
    """A ``tools/call``."""
    params = {"name": tool, "arguments": {} if arguments is None else arguments}
    return {"jsonrpc": "2.0", "id": id_, "method": "tools/call", "params": params}


def write_trust(directory: Path, *, webhook: str = ISSUER, authority: str = "https://authority.example.com") -> Path:
    """Write the files of the ConfigMap ``countersign-trust``."""
    directory.mkdir(exist_ok=True)
    for name, text in (("authorityURL", authority), ("webhookURL", webhook), ("ca.crt", WEB.pem.decode())):
        (directory / name).write_text(text)
    return directory


@contextlib.asynccontextmanager
async def rig_of(
    directory: Path,
    *,
    front: Any = None,
    tool: Any = None,
    limits: BodyLimits | None = None,
    key: Any = None,
    chain: str | None = None,
    clock: FakeClock | None = None,
) -> AsyncIterator[Rig]:
    """A proxy in front of the two twins, or of other applications."""
    clock = clock or FakeClock(START)
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        clock.advance(seconds)

    key = key or await SoftwareDevice.make().create_key()
    keyring = FixedKeyring(clock, key, chain or chain_header([WEB.certificate]))  # a twin verifies nothing
    front = front or FrontTwin([entry()])
    tool = tool or ToolTwin()
    net, metrics = Net(), SignerMetrics()
    trust_dir = write_trust(directory / "trust")
    door = Door(trust_dir, clock, network=net)
    front_door = FrontDoor(door, keyring, clock, metrics, sleep=nap)
    forwarder = Forwarder(clock, network=net)
    proxy = Proxy(
        port=PORT,
        keyring=keyring,
        front=front_door,
        catalogue=Catalogue(front_door, clock),
        forwarder=forwarder,
        metrics=metrics,
        limits=limits or BodyLimits(262_144),
        sleep=nap,
    )
    async with (
        serving(front, "countersign.example.com") as front_port,
        serving(tool, "tools.billing.svc") as tool_port,
        httpx.AsyncClient(transport=httpx.ASGITransport(proxy), base_url=f"http://127.0.0.1:{PORT}") as client,
    ):
        net.hosts = {"countersign.example.com": front_port, "tools.billing.svc": tool_port}
        yield Rig(clock, net, keyring, front, tool, door, front_door, proxy, metrics, client, trust_dir, naps)
        await door.aclose()
        await forwarder.aclose()
