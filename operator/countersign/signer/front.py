"""The signer's side of leg T: nonces, ``/catalogue``, ``/token`` (wire.md 3.3, 4, 4.2), with the retries it allows."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from countersign.errors import Unavailable
from countersign.signer.refusal import Refused, read_refusal
from countersign.signer.skew import explained
from countersign.wire import Message, sign_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from countersign.clock import Clock
    from countersign.signer.door import Answer, Door
    from countersign.signer.keyring import Identity, Keyring
    from countersign.signer.metrics import SignerMetrics
    from countersign.wire import Call

__all__ = ["FrontDoor", "Grant"]

_OK: Final = 200
_POOL: Final = 16
_NONCE_SECONDS: Final = 45.0
"""A nonce lives 60 s at the webhook; an older one of the pool is not worth the round trip."""
_MAX_REQUEST: Final = 4 * 1024 * 1024
_MAX_TOKEN: Final = 8 * 1024
_NEW_CERTIFICATE_SECONDS: Final = 10.0
_LAG_SECONDS: Final = 0.25
_STORE_RESET_SECONDS: Final = 1.0
_FORM: Final = "application/x-www-form-urlencoded"
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{22,256}")


@dataclass(frozen=True)
class Grant:
    """An allowed call: its token (single use), the token's ``jti``, the decision's id, and tools for ``tools/list``."""

    token: str
    jti: str
    decision: str
    tools: frozenset[str]


class FrontDoor:
    """Speaks leg T as the identity of ``keyring``; one per signer."""

    def __init__(
        self,
        door: Door,
        keyring: Keyring,
        clock: Clock,
        metrics: SignerMetrics,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Keep the parts; ``sleep`` is where all waiting before a retry happens."""
        self._metrics = metrics
        self._door = door
        self._keyring = keyring
        self._clock = clock
        self._sleep = sleep
        self._nonces: deque[tuple[str, float, str]] = deque(maxlen=_POOL)

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
        form = _form(call)
        return _grant(_document(await self._retried(lambda: self._signed("POST", "/token", form))))

    async def _retried(self, send: Callable[[], Awaitable[Answer]]) -> Answer:
        """Send; send again once where wire.md says that the refusal certainly preceded everything else."""
        allowed = {"nonce", "store", "stale"}
        while True:
            answer = await send()
            if answer.status == _OK:
                return answer
            refused = read_refusal(answer.status, answer.body, answer.headers.get("retry-after"))
            date = answer.headers.get("date")
            refused = explained(refused, date, self._clock.now(), self._metrics, by="front_door")
            again = _again(refused)
            if again == "lag" and self._is_new():
                await self._sleep(_LAG_SECONDS)
            elif again in allowed:
                allowed.discard(again)
                await self._prepare(again, answer)
            else:
                raise refused
            self._metrics.retries.labels(code=refused.code).inc()

    async def _prepare(self, again: str, answer: Answer) -> None:
        if again == "stale":
            await self._keyring.reattest()
            return
        self._nonces.clear()  # they are of the same making as the one that was refused
        if again == "store":
            await self._sleep(_STORE_RESET_SECONDS)
        else:
            self._keep_nonce(answer, self._keyring.current())

    def _is_new(self) -> bool:
        """Tell whether the certificate is so new that the front door's cache may not know it yet."""
        age = (self._clock.now() - self._keyring.current().obtained_at).total_seconds()
        return 0 <= age < _NEW_CERTIFICATE_SECONDS

    async def _signed(self, method: str, path: str, body: bytes) -> Answer:
        identity = self._keyring.current()
        issuer = self._door.issuer()
        headers = [("countersign-chain", identity.chain)]
        if body:
            headers += [("content-type", _FORM), ("content-length", str(len(body)))]
        signed = await sign_request(
            Message.build(method, path, headers, body, max_body=_MAX_REQUEST),
            identity.key,
            audience=issuer + path,
            nonce=await self._nonce(identity),
            created=int(self._clock.now().timestamp()),
        )
        answer = await self._door.send(signed)
        self._keep_nonce(answer, identity)
        return answer

    def _keep_nonce(self, answer: Answer, identity: Identity) -> None:
        fresh = answer.headers.get("countersign-nonce", "")
        if _NONCE.fullmatch(fresh):
            self._nonces.append((fresh, self._clock.monotonic(), identity.key.jkt))

    async def _nonce(self, identity: Identity) -> str:
        """Take a nonce of the pool that is for this key and young enough, or ask for some."""
        jkt = identity.key.jkt
        while self._nonces:
            nonce, since, owner = self._nonces.popleft()
            if owner == jkt and self._clock.monotonic() - since < _NONCE_SECONDS:
                return nonce
        now = self._clock.monotonic()
        answer = await self._door.send(Message("GET", f"/nonce?jkt={jkt}&count={_POOL}", (), b""))
        if answer.status != _OK:
            raise read_refusal(answer.status, answer.body, answer.headers.get("retry-after"))
        nonces = _document(answer).get("nonces")
        if not isinstance(nonces, list) or not nonces or not all(_is_nonce(one) for one in nonces):
            raise Unavailable("decide.unavailable", "the front door gave no nonce")
        self._nonces.extend((one, now, jkt) for one in nonces[1:])
        first: str = nonces[0]
        return first


def _form(call: Call) -> bytes:
    details = {
        "type": "countersign_call",
        "protocol": call.protocol,
        "method": call.method,
        "tool": call.tool,
        "arguments": call.arguments,
    }
    parameters = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token_type": "urn:countersign:token-type:task",
        "subject_token": "current",
        "resource": call.audience,
        "authorization_details": json.dumps([details], separators=(",", ":"), ensure_ascii=False),
    }
    return urlencode(parameters).encode("ascii")


def _again(refused: Refused) -> str | None:
    """Name the retry that a refusal allows, if any (wire.md section 4, "Retries" and the table of errors)."""
    if refused.code.startswith("nonce."):
        return "nonce"
    return {
        "replay.store_reset": "store",
        "environment.attestation_stale": "stale",
        "instance.unknown": "lag",
    }.get(refused.code)


def _document(answer: Answer) -> dict[str, Any]:
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise Unavailable("decide.unavailable", "the front door's answer is no JSON") from error
    if not isinstance(value, dict):
        raise Unavailable("decide.unavailable", "the front door's answer is no object")
    return value


def _is_nonce(value: Any) -> bool:
    return isinstance(value, str) and _NONCE.fullmatch(value) is not None


def _grant(answer: dict[str, Any]) -> Grant:
    """Read a 200 of ``/token``; the claims are the verifier's to check, the signer needs the ``jti`` alone."""
    token, kind, tools = answer.get("access_token"), answer.get("token_type"), answer.get("tools", [])
    parts = _TOKEN.fullmatch(token) if isinstance(token, str) and len(token) <= _MAX_TOKEN else None
    if parts is None or kind != "Countersign" or not isinstance(tools, list):
        raise Unavailable("decide.unavailable", "the front door's answer holds no call token")
    try:
        payload = parts[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        jti = claims["jti"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise Unavailable("decide.unavailable", "the front door's token cannot be read") from error
    if not _is_nonce(jti):
        raise Unavailable("decide.unavailable", "the front door's token has no jti")
    named = frozenset(one for one in tools if isinstance(one, str))
    return Grant(parts[0], jti, str(answer.get("decision", "")), named)
