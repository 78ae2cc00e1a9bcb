"""The signer's side of leg T: nonces, ``/catalogue``, ``/token`` (wire.md 3.3, 4, 4.2), with the retries it allows."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import httpcore

from countersign.errors import Denied, Unavailable
from countersign.signer.refusal import Refused, read_refusal
from countersign.wire import Message, sign_request

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from countersign.clock import Clock
    from countersign.signer.keyring import Identity, Keyring
    from countersign.wire import Call

__all__ = ["FrontDoor", "Grant"]

_OK: Final = 200
_POOL: Final = 16
_NONCE_SECONDS: Final = 45.0
"""A nonce lives 60 s at the webhook; an older one of the pool is not worth the round trip."""
_MAX_ANSWER: Final = 4 * 1024 * 1024
_NEW_CERTIFICATE_SECONDS: Final = 10.0
_FORM: Final = "application/x-www-form-urlencoded"
_TIMEOUT: Final = {"timeout": {"connect": 5.0, "read": 15.0, "write": 5.0, "pool": 5.0}}


@dataclass(frozen=True)
class Grant:
    """An allowed call: its token (single use), the token's ``jti``, the decision's id, and tools for ``tools/list``."""

    token: str
    jti: str
    decision: str
    tools: frozenset[str]


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class FrontDoor:
    """Speaks leg T as the identity of ``keyring``; one per signer."""

    def __init__(self, issuer: str, context: ssl.SSLContext, keyring: Keyring, clock: Clock) -> None:
        """Keep where the front door is; ``issuer`` is its URL without a trailing slash."""
        self._issuer = issuer
        self._origin = httpcore.URL(issuer)
        self._keyring = keyring
        self._clock = clock
        self._nonces: deque[tuple[str, float, str]] = deque(maxlen=_POOL)
        self._http = httpcore.AsyncConnectionPool(ssl_context=context, max_connections=32, keepalive_expiry=30.0)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def catalogue(self) -> list[dict[str, Any]]:
        """Return the servers that this agent may know (wire.md 4.2).

        Raises:
            Refused, Unavailable: as :meth:`token`.
        """
        answer = _document(await self._retried(lambda: self._signed("GET", "/catalogue", b"")))
        servers = answer.get("servers")
        if not isinstance(servers, list) or not all(isinstance(one, dict) for one in servers):
            raise Unavailable("decide.unavailable", "the catalogue cannot be read")
        return servers

    async def token(self, call: Call) -> Grant:
        """Ask whether ``call`` may happen; return its token.

        Raises:
            Refused: the front door said no; its code and decision.
            Unavailable: it did not answer, or there is no identity to ask with.
        """
        form = urlencode(
            {
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                "subject_token_type": "urn:countersign:token-type:task",
                "subject_token": "current",
                "resource": call.audience,
                "authorization_details": json.dumps(
                    [
                        {
                            "type": "countersign_call",
                            "protocol": call.protocol,
                            "method": call.method,
                            "tool": call.tool,
                            "arguments": call.arguments,
                        }
                    ],
                    separators=(",", ":"),
                    ensure_ascii=False,
                ),
            }
        ).encode("ascii")
        return _grant(_document(await self._retried(lambda: self._signed("POST", "/token", form))))

    async def _retried(self, send: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Send; send again once where wire.md says that the refusal certainly preceded everything else."""
        allowed = {"nonce", "store", "stale"}
        while True:
            answer = await send()
            if answer.status == _OK:
                return answer
            refused = read_refusal(answer.status, answer.body, answer.headers.get("retry-after"))
            again = _again(refused)
            if again == "lag" and self._is_new():
                await asyncio.sleep(0.25)
            elif again in allowed:
                allowed.discard(again)
                await self._prepare(again)
            else:
                raise refused

    async def _prepare(self, again: str) -> None:
        if again == "store":
            self._nonces.clear()
            await asyncio.sleep(1.0)
        elif again == "stale":
            before = self._keyring.renewals
            self._keyring.reattest()
            for _ in range(50):
                if self._keyring.renewals != before:
                    return
                await asyncio.sleep(0.1)

    def _is_new(self) -> bool:
        """Tell whether the certificate is so new that the front door's cache may not know it yet."""
        age = (self._clock.now() - self._keyring.current().obtained_at).total_seconds()
        return 0 <= age < _NEW_CERTIFICATE_SECONDS

    async def _signed(self, method: str, path: str, body: bytes) -> _Answer:
        identity = self._keyring.current()
        headers = [("host", self._origin.host.decode()), ("countersign-chain", identity.chain)]
        if body:
            headers += [("content-type", _FORM), ("content-length", str(len(body)))]
        message = Message.build(method, path, headers, body, max_body=_MAX_ANSWER)
        signed = await sign_request(
            message,
            identity.key,
            audience=self._issuer + path,
            nonce=await self._nonce(identity),
            created=int(self._clock.now().timestamp()),
        )
        answer = await self._send(signed)
        fresh = answer.headers.get("countersign-nonce")
        if fresh:
            self._nonces.append((fresh, self._clock.monotonic(), identity.key.jkt))
        return answer

    async def _nonce(self, identity: Identity) -> str:
        """Take a nonce of the pool that is for this key and young enough, or ask for some."""
        jkt = identity.key.jkt
        while self._nonces:
            nonce, since, owner = self._nonces.popleft()
            if owner == jkt and self._clock.monotonic() - since < _NONCE_SECONDS:
                return nonce
        now = self._clock.monotonic()
        answer = await self._send(Message("GET", f"/nonce?jkt={jkt}&count={_POOL}", (), b""))
        if answer.status != _OK:
            raise read_refusal(answer.status, answer.body, answer.headers.get("retry-after"))
        nonces = _document(answer).get("nonces")
        if not isinstance(nonces, list) or not nonces or not all(isinstance(one, str) for one in nonces):
            raise Unavailable("decide.unavailable", "the front door gave no nonce")
        self._nonces.extend((one, now, jkt) for one in nonces[1:])
        first: str = nonces[0]
        return first

    async def _send(self, message: Message) -> _Answer:
        origin = self._origin
        url = httpcore.URL(
            scheme=origin.scheme, host=origin.host, port=origin.port, target=message.target.encode("ascii")
        )
        host = origin.host + (b":%d" % origin.port if origin.port else b"")
        headers = [(b"host", host)]
        headers += [(name.encode(), value.encode("latin-1")) for name, value in message.headers if name != "host"]
        try:
            async with self._http.stream(
                message.method, url, headers=headers, content=message.body, extensions=_TIMEOUT
            ) as answer:
                body = await _bounded(answer)
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            detail = f"the front door did not answer ({type(error).__name__})"
            raise Unavailable("decide.unavailable", detail, retry_after=1) from error
        fields = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
        return _Answer(answer.status, fields, body)


async def _bounded(answer: httpcore.Response) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in answer.aiter_stream():
        size += len(part)
        if size > _MAX_ANSWER:
            raise Unavailable("decide.unavailable", "the front door's answer is too long")
        parts.append(part)
    return b"".join(parts)


def _again(refused: Refused) -> str | None:
    """Name the retry that a refusal allows, if any (wire.md section 4, "Retries" and the table of errors)."""
    if refused.code.startswith("nonce."):
        return "nonce"
    return {
        "replay.store_reset": "store",
        "environment.attestation_stale": "stale",
        "instance.unknown": "lag",
    }.get(refused.code)


def _document(answer: _Answer) -> dict[str, Any]:
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise Unavailable("decide.unavailable", "the front door's answer is no JSON") from error
    if not isinstance(value, dict):
        raise Unavailable("decide.unavailable", "the front door's answer is no object")
    return value


def _grant(answer: dict[str, Any]) -> Grant:
    """Read a 200 of ``/token``; the claims are the verifier's to check, the signer needs the ``jti`` alone."""
    try:
        token = answer["access_token"]
        if answer["token_type"] != "Countersign" or not isinstance(token, str):  # noqa: S105 - a type, not a secret
            raise Denied("token.scheme", "the front door gave another kind of token")
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        tools = frozenset(one for one in answer.get("tools", []) if isinstance(one, str))
        return Grant(token, str(claims["jti"]), str(answer.get("decision", "")), tools)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Unavailable("decide.unavailable", "the front door's token cannot be read") from error
