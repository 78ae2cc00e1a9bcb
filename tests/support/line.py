"""A front door in memory and, behind our verifier, the tool servers it gives tokens for: both ends of one call, by hand."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import httpx
from support.world import AUDIENCE, ISSUER, World, details, form

from countersign import kube
from countersign.verifier import STATE, CountersignVerifier, VerifierSettings
from countersign.wire import Message, sign_request

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from support.world import SoftwareKey

    from countersign.wire import ReplayCache

VERSION = "2025-11-25"
OTHER = "https://ledger.billing.svc/mcp"


def body_of(tool: str = "get_charge", arguments: Any = None) -> bytes:
    """A ``tools/call`` as a client writes it."""
    params = {"name": tool, "arguments": {} if arguments is None else arguments}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()


def code_of(answer: httpx.Response) -> str:
    """The reason code of a refusal; ``ok`` for what is none."""
    return "ok" if answer.status_code == 200 else str(answer.json()["code"])


@dataclass
class Line:
    """``ran`` is what each tool server's application was given, by audience."""

    world: World
    jwks: Path
    ran: dict[str, list[Any]] = field(default_factory=dict)
    _servers: dict[str, CountersignVerifier] = field(default_factory=dict)

    @classmethod
    async def make(cls, directory: Path) -> Self:
        """Open a front door with two tool servers, ``stripe`` and ``ledger``, which have tools of the same names."""
        world = await World.make(directory)
        world.source.put(kube.TOOL_SERVERS, world.server("ledger", audience=OTHER))
        rules = world.source.get(kube.TOOL_POLICIES, "refunds", "billing")
        assert rules is not None
        rules["spec"]["rules"].append(
            {
                "name": "ledger",
                "effect": "Allow",
                "tools": [{"server": {"name": "ledger"}, "names": ["get_charge"]}],
            }
        )
        world.source.put(kube.TOOL_POLICIES, rules)
        jwks = directory / "jwks.json"
        jwks.write_text(json.dumps(world.context.keys.jwks(int(world.clock.now().timestamp()))))
        line = cls(world, jwks)
        for audience in (AUDIENCE, OTHER):
            line.start(audience)
        world.clock.advance(7)  # past what their replay stores do not believe after a start
        return line

    def start(self, audience: str = AUDIENCE, *, replay: ReplayCache | None = None) -> CountersignVerifier:
        """Start a tool server, or start it again with nothing in memory."""
        ran = self.ran.setdefault(audience, [])

        async def app(scope: Any, receive: Any, send: Any) -> None:
            event = await receive()
            ran.append((scope["state"][STATE], event["body"]))
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})

        settings = VerifierSettings(issuer=ISSUER, audience=audience, jwks_file=self.jwks)
        self._servers[audience] = CountersignVerifier(app, settings, replay=replay, clock=self.world.clock)
        return self._servers[audience]

    async def ask(
        self, tool: str = "get_charge", arguments: Any = None, *, audience: str = AUDIENCE, **how: Any
    ) -> httpx.Response:
        """Ask for a token; ``how`` is the signed request's."""
        body = form(details(tool, arguments), resource=audience)
        return await self.world.send(await self.world.signed(body=body, **how))

    async def token(self, tool: str = "get_charge", arguments: Any = None, **how: Any) -> str:
        """Return the token of an allowed call."""
        answer = await self.ask(tool, arguments, **how)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def call(
        self,
        token: str,
        body: bytes | None = None,
        *,
        audience: str = AUDIENCE,
        target: str | None = None,
        key: SoftwareKey | None = None,
        created: int = 0,
        seconds: int = 30,
        more: Mapping[str, str] | None = None,
    ) -> Message:
        """Return the tool call under ``token`` as its signer would send it; ``created`` is an offset from now."""
        content = body_of() if body is None else body
        headers = [
            ("host", urlsplit(audience).netloc),
            ("authorization", f"Countersign {token}"),
            ("content-type", "application/json"),
            ("mcp-protocol-version", VERSION),
            *(more or {}).items(),
            ("content-length", str(len(content))),
        ]
        return await sign_request(
            Message("POST", target or urlsplit(audience).path, tuple(headers), content),
            key or self.world.key,
            audience=audience,
            nonce=jti_of(token),
            created=int(self.world.clock.now().timestamp()) + created,
            seconds=seconds,
        )

    async def present(
        self, message: Message, *, at: str = AUDIENCE, server: CountersignVerifier | None = None
    ) -> httpx.Response:
        """Send a tool call to the tool server of an audience, or to one of its replicas."""
        transport = httpx.ASGITransport(server or self._servers[at])
        async with httpx.AsyncClient(transport=transport, base_url="https://tools.test") as client:
            return await client.request(message.method, message.target, headers=message.headers, content=message.body)


def jti_of(token: str) -> str:
    payload = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["jti"])
