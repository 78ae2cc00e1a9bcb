"""For a tool server's own tests: calls as a signer sends them, good and broken, under keys that nobody else believes.

    maker = CallMaker(audience="https://tools.example.com/payroll", path="/mcp")
    app = maker.protect(my_app)
    message = await maker.call("pay", {"amount": 1})          # passes, once
    message = await maker.broken("call.args", "pay", {"amount": 1})   # refused with that code

A message is sent as it is: its method, target, headers and body. Never give a real server these settings.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from countersign.clock import SystemClock
from countersign.verifier.asgi import CountersignVerifier
from countersign.verifier.jwks import Jwks
from countersign.verifier.settings import VerifierSettings
from countersign.wire import (
    MemoryReplayCache,
    Message,
    TokenClaims,
    canonical,
    digest_of,
    jwk_of,
    mint_token,
    sign_request,
    thumbprint,
)
from countersign.wire.keys import sign_es256

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from countersign.clock import Clock
    from countersign.verifier.asgi import App

__all__ = ["BROKEN", "CallMaker", "TestKey"]

_VERSION: Final = "2026-07-28"
_LIFE: Final = 30
_AGENT: Final = "spiffe://agents.example.com/ns/default/sa/test-agent"


class TestKey:
    """A request key in memory."""

    __test__ = False

    def __init__(self) -> None:
        """Make a new key."""
        self.private_key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Its public half."""
        return self.private_key.public_key()

    @property
    def jkt(self) -> str:
        """Its thumbprint."""
        return thumbprint(self.public_key)

    async def sign(self, data: bytes) -> bytes:
        """Return r and s, 32 bytes each."""
        return sign_es256(self.private_key, data)


class CallMaker:
    """An issuer, an agent with a key, and the calls between them and one tool server."""

    def __init__(
        self,
        *,
        audience: str = "https://tools.example.com/test",
        issuer: str = "https://countersign.example.com",
        path: str = "/mcp",
        clock: Clock | None = None,
    ) -> None:
        """Make keys; ``path`` is where the application has its MCP endpoint."""
        self.audience = audience
        self.issuer = issuer
        self.path = path
        self.clock = SystemClock() if clock is None else clock
        self.key = TestKey()
        self.issuer_key = TestKey()
        self.jwks = Jwks(self, self.clock)

    @property
    def settings(self) -> VerifierSettings:
        """Settings of a verifier that believes this issuer; give it :attr:`jwks` too."""
        return VerifierSettings(
            issuer=self.issuer, audience=self.audience, jwks_url=f"{self.issuer}/.well-known/jwks.json"
        )

    async def fetch(self) -> bytes:
        """Return the JWKS: this object is its own source of keys."""
        key = {**jwk_of(self.issuer_key.public_key), "kid": self.issuer_key.jkt, "alg": "ES256", "use": "sig"}
        return json.dumps({"keys": [key]}).encode()

    def protect(self, app: App, settings: VerifierSettings | None = None, **parts: Any) -> CountersignVerifier:
        """Put a verifier of this issuer before ``app``; ``parts`` are those of :class:`CountersignVerifier`.

        Its replay store believes what was made before its start: a test need not wait out the clock skew.
        """
        given = {"jwks": self.jwks, "clock": self.clock, "replay": MemoryReplayCache(epoch=0), **parts}
        return CountersignVerifier(app, settings or self.settings, **given)

    def claims(self, method: str, tool: str, arguments: dict[str, Any], **changes: Any) -> TokenClaims:
        """Return the claims of a token for one call; ``changes`` replace some."""
        now = int(self.clock.now().timestamp())
        claims = TokenClaims(
            iss=self.issuer,
            sub=_AGENT,
            aud=self.audience,
            client_id=_AGENT,
            iat=now,
            exp=now + _LIFE,
            jti=secrets.token_urlsafe(16),
            txn="01998f1e-6c1a-7d43-9a55-3d5f0b8f7a10",
            public_key=self.key.public_key,
            protocol="MCP",
            method=method,
            tool=tool,
            args=digest_of(canonical(arguments)),
            instance="default/test-agent-1",
            key_tier="TPM",
            assurance="Hardware",
            attested_at=now - 60,
            policy=digest_of(b"test"),
        )
        return claims._replace(**changes)

    def message(self, method: str, tool: str, arguments: dict[str, Any]) -> Message:
        """Return an MCP request without any credential."""
        meta = {
            "io.modelcontextprotocol/protocolVersion": _VERSION,
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        params: dict[str, Any] = {"_meta": meta}
        headers = [
            ("host", "localhost"),
            ("accept", "application/json, text/event-stream"),
            ("content-type", "application/json"),
            ("mcp-protocol-version", _VERSION),
            ("mcp-method", method),
        ]
        if method == "tools/call":
            params |= {"name": tool, "arguments": arguments}
            headers.append(("mcp-name", tool))
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        return Message("POST", self.path, (*headers, ("content-length", str(len(body)))), body)

    async def signed(
        self,
        message: Message,
        claims: TokenClaims,
        *,
        scheme: str = "Countersign",
        issuer_key: TestKey | None = None,
        key: TestKey | None = None,
        audience: str | None = None,
        nonce: str | None = None,
        age: int = 0,
    ) -> Message:
        """Return ``message`` with a token of ``claims`` and its proof; each part may be replaced by another."""
        token = mint_token(claims, key=(issuer_key or self.issuer_key).private_key)
        carrying = replace(message, headers=(*message.headers, ("authorization", f"{scheme} {token}")))
        return await sign_request(
            carrying,
            key or self.key,
            audience=audience or self.audience,
            nonce=nonce or claims.jti,
            created=int(self.clock.now().timestamp()) - age,
        )

    async def call(
        self, tool: str, arguments: dict[str, Any] | None = None, *, method: str = "tools/call", **changes: Any
    ) -> Message:
        """Return a call that passes, once; ``changes`` are claims to replace, for floors and unusual callers."""
        arguments = arguments or {}
        return await self.signed(self.message(method, tool, arguments), self.claims(method, tool, arguments, **changes))

    async def broken(self, code: str, tool: str, arguments: dict[str, Any] | None = None) -> Message:
        """Return a call that is refused with ``code``, one of :data:`BROKEN`, and otherwise as good as it can be."""
        arguments = arguments or {}
        message = self.message("tools/call", tool, arguments)
        return await BROKEN[code](self, message, self.claims("tools/call", tool, arguments))


async def _without(maker: CallMaker, message: Message, claims: TokenClaims, name: str) -> Message:
    signed = await maker.signed(message, claims)
    return replace(signed, headers=tuple(field for field in signed.headers if field[0] != name))


async def _body(maker: CallMaker, message: Message, claims: TokenClaims) -> Message:
    signed = await maker.signed(message, claims)
    return replace(signed, body=signed.body.replace(b'"id": 1', b'"id": 2'))


async def _also_dpop(maker: CallMaker, message: Message, claims: TokenClaims) -> Message:
    return await maker.signed(replace(message, headers=(*message.headers, ("dpop", "eyJ"))), claims)


BROKEN: Final[dict[str, Callable[[CallMaker, Message, TokenClaims], Awaitable[Message]]]] = {
    "token.missing": lambda maker, message, claims: _without(maker, message, claims, "authorization"),
    "token.scheme": lambda maker, message, claims: maker.signed(message, claims, scheme="Bearer"),
    "proof.ambiguous": _also_dpop,
    "proof.missing": lambda maker, message, claims: _without(maker, message, claims, "signature"),
    "digest.missing": lambda maker, message, claims: _without(maker, message, claims, "content-digest"),
    "digest.mismatch": _body,
    "proof.expired": lambda maker, message, claims: maker.signed(message, claims, age=_LIFE),
    "proof.future": lambda maker, message, claims: maker.signed(message, claims, age=-_LIFE),
    "proof.audience": lambda maker, message, claims: maker.signed(message, claims, audience=maker.audience + "/"),
    "token.kid": lambda maker, message, claims: maker.signed(message, claims, issuer_key=TestKey()),
    "token.issuer": lambda maker, message, claims: maker.signed(message, claims._replace(iss=maker.issuer + ":444")),
    "token.audience": lambda maker, message, claims: maker.signed(message, claims._replace(aud=maker.audience + "/")),
    "token.future": lambda maker, message, claims: maker.signed(
        message, claims._replace(iat=claims.iat + _LIFE, exp=claims.exp + _LIFE)
    ),
    "token.life": lambda maker, message, claims: maker.signed(message, claims._replace(exp=claims.iat + 3600)),
    "token.expired": lambda maker, message, claims: maker.signed(
        message, claims._replace(iat=claims.iat - _LIFE, exp=claims.iat)
    ),
    "token.actor": lambda maker, message, claims: maker.signed(message, claims._replace(sub="root")),
    "token.facts": lambda maker, message, claims: maker.signed(message, claims._replace(key_tier="Quantum")),
    "proof.nonce": lambda maker, message, claims: maker.signed(message, claims, nonce=secrets.token_urlsafe(16)),
    "proof.signature": lambda maker, message, claims: maker.signed(message, claims, key=TestKey()),
    "call.protocol": lambda maker, message, claims: maker.signed(message, claims._replace(protocol="HTTP")),
    "call.method": lambda maker, message, claims: maker.signed(message, claims._replace(method="tools/list", tool="")),
    "call.tool": lambda maker, message, claims: maker.signed(message, claims._replace(tool="another_tool")),
    "call.args": lambda maker, message, claims: maker.signed(message, claims._replace(args=digest_of(b"other"))),
}
"""How to break a call, by the code that it is then refused with."""
