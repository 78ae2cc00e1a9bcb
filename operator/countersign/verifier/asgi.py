"""The verifier as ASGI middleware: bytes in, and either a refusal or the application with a request that was checked."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from countersign.clock import SystemClock
from countersign.errors import CountersignError, Denied, Invalid, Unavailable
from countersign.verifier.jwks import jwks_of
from countersign.verifier.refusal import Refusal, log_refusal
from countersign.verifier.replay import replay_of
from countersign.verifier.settings import VerifierSettings
from countersign.verifier.verify import LegC, verify_call
from countersign.wire import Message, problem, travels

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from countersign.clock import Clock
    from countersign.verifier.jwks import Jwks
    from countersign.verifier.verify import VerifiedCall
    from countersign.wire import ReplayCache

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = ["STATE", "CountersignVerifier"]

STATE: Final = "countersign"
"""The name in ``scope["state"]``, so ``request.state.countersign``, of the :class:`VerifiedCall`."""

_log: Final = logging.getLogger("countersign.verifier")
_DIGITS: Final = 12


class _Gone(Exception):
    """The client closed the connection: there is nobody to answer."""


class CountersignVerifier:
    """Put this before the application, outermost of all that reads the body or could answer.

    Without ``settings`` they are read from the environment, at once, so that a server that is not configured does not
    start. ``replay`` must be shared by every process that accepts the same audience; the default is for one process
    alone, and refuses tokens from before its start, unless the settings name a store that they share. ``on_refusal`` is told of each refusal.
    """

    def __init__(
        self,
        app: App,
        settings: VerifierSettings | None = None,
        *,
        replay: ReplayCache | None = None,
        jwks: Jwks | None = None,
        input_schemas: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
        on_refusal: Callable[[Refusal], None] = log_refusal,
    ) -> None:
        """Keep the parts; nothing is fetched before the first request."""
        self._app = app
        self._settings = VerifierSettings.from_environment() if settings is None else settings
        self._clock = SystemClock() if clock is None else clock
        # Asked so: an empty store may be false.
        self._replay = replay_of(self._settings, self._clock) if replay is None else replay
        self._jwks = jwks_of(self._settings, self._clock) if jwks is None else jwks
        self._schemas = input_schemas
        self._on_refusal = on_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; life-span events pass, and every other kind of connection is closed."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            msg = f"the verifier knows no connection of type {scope['type']}"
            raise RuntimeError(msg)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            message = await self._read(scope, receive)
            caller = await verify_call(message, self._leg())
        except _Gone:
            return
        except CountersignError as error:
            await self._refuse(Refusal.of(error), send)
            return
        except Exception:  # noqa: BLE001 - whatever a request does to us, its sender gets a no
            _log.exception("verification failed")
            await self._refuse(Refusal("decide.failed", "see the tool server's log", retry_after=1), send)
            return
        await self._app(_checked(scope, message, caller), _once(message.body, receive), send)

    def _leg(self) -> LegC:
        settings = self._settings
        return LegC(
            issuer=settings.issuer,
            audience=settings.audience,
            now=int(self._clock.now().timestamp()),
            keys=self._jwks.find,
            replay=self._replay,
            skew=settings.skew_seconds,
            window=settings.proof_seconds,
            max_body=settings.body_bytes,
            path=settings.path,
            input_schemas=self._schemas,
            min_key_tier=settings.min_key_tier,
            min_assurance=settings.min_assurance,
            max_attestation_age=settings.max_attestation_age_seconds,
        )

    async def _read(self, scope: Scope, receive: Receive) -> Message:
        """Read the request whole, bounded in size and time; what cannot become a call is not read to its end."""
        if not any(name.lower() == b"authorization" for name, _ in scope["headers"]):
            raise Denied("token.missing", "no Authorization")
        target = _target(scope)
        body = await self._body(scope, receive)
        return Message.build(scope["method"], target, scope["headers"], body, max_body=self._settings.body_bytes)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        limit = self._settings.body_bytes
        announced = next((value for name, value in scope["headers"] if name.lower() == b"content-length"), b"0")
        if not announced.isdigit() or len(announced) > _DIGITS or int(announced) > limit:
            raise Invalid("parse.size", f"at most {limit} bytes")
        parts: list[bytes] = []
        size, more = 0, True
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                while more:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        raise _Gone
                    parts.append(event.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise Invalid("parse.size", f"at most {limit} bytes")
                    more = event.get("more_body", False)
        except TimeoutError as error:
            raise Invalid("parse.size", "the body did not arrive in time") from error
        return b"".join(parts)

    async def _refuse(self, refusal: Refusal, send: Send) -> None:
        try:
            self._on_refusal(refusal)
        except Exception:  # noqa: BLE001 - the hook is a stranger's code, and the refusal stands
            _log.exception("the refusal hook failed")
        status, headers, body = problem(
            refusal.code, detail=refusal.detail, decision=refusal.txn, retry_after=refusal.retry_after
        )
        fields = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
        # The body may not have been read to its end, so nothing can follow on this connection.
        fields += [(b"content-length", str(len(body)).encode("ascii")), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": body})


def _target(scope: Scope) -> str:
    """Return the target as received; a server that has decoded it cannot be asked what was signed."""
    raw: bytes | None = scope.get("raw_path")
    if not raw:
        raise Unavailable("decide.failed", "this server gives no raw_path, so that no signature can be checked")
    query: bytes = scope.get("query_string", b"")
    return (raw + (b"?" + query if query else b"")).decode("latin-1")


def _checked(scope: Scope, message: Message, caller: VerifiedCall) -> Scope:
    """Return the scope that the application gets: the fields that travel (wire.md 2.2), and who calls."""
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in message.headers if travels(name)]
    if message.get("content-length") is None:
        headers.append((b"content-length", str(len(message.body)).encode("ascii")))
    return {**scope, "headers": headers, "state": {**scope.get("state", {}), STATE: caller}}


def _once(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that hands the body on once and then asks the server: disconnects still arrive."""
    pending: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> MutableMapping[str, Any]:
        return pending.pop() if pending else await receive()

    return again
