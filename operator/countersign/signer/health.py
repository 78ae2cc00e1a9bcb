"""Is this signer ready, and if not, why? Health and metrics, on the port after the proxy's: kubelet probes no loopback."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from countersign.errors import CountersignError
from countersign.signer.refusal import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from countersign.signer.front import FrontDoor
    from countersign.signer.keyring import Keyring
    from countersign.signer.metrics import SignerMetrics

__all__ = ["Health"]

_CHECK_SECONDS: Final = 0.25
_log = structlog.get_logger("signer")


class Health:
    """Ready means: with the certificate in use, a signed ``/catalogue`` was answered 200 (wire.md section 4)."""

    def __init__(
        self,
        keyring: Keyring,
        front: FrontDoor,
        metrics: SignerMetrics,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Keep what is looked at."""
        self._keyring = keyring
        self._front = front
        self._metrics = metrics
        self._sleep = sleep
        self._proved = 0
        self._refused: tuple[str, str] = ("decide.unavailable", "the front door was not asked yet")

    async def watch(self) -> None:
        """Prove each new certificate with one signed request; runs until cancelled."""
        while True:
            if self._proved != self._keyring.renewals:
                await self._prove()
            self._metrics.ready.set(0 if self.problem() else 1)
            await self._sleep(_CHECK_SECONDS)

    def problem(self) -> tuple[str, str] | None:
        """Return code and detail of what keeps this signer from being ready, or None."""
        try:
            self._keyring.current()
        except CountersignError as error:
            return error.code, error.detail
        return None if self._proved == self._keyring.renewals else self._refused

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Serve ``/healthz``, ``/readyz`` and ``/metrics`` to GET and HEAD."""
        del receive
        if scope["type"] != "http":
            return
        status, kind, body = self._answer(scope["method"], scope["path"])
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _answer(self, method: str, path: str) -> tuple[int, str, bytes]:
        if method not in {"GET", "HEAD"}:
            return 405, "text/plain", b"GET only\n"
        if path == "/healthz":
            return 200, "text/plain", b"ok\n"
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest(self._metrics.registry)
        if path == "/readyz":
            problem, renewal = self.problem(), self._keyring.problem
            code, detail = problem or (None, None)
            document = {"ready": problem is None, "code": code, "detail": detail, "renewal": renewal and renewal.code}
            return (200 if problem is None else 503), "application/json", json.dumps(document).encode() + b"\n"
        return 404, "text/plain", b"not found\n"

    async def _prove(self) -> None:
        renewals = self._keyring.renewals
        try:
            identity = self._keyring.current()
            await self._front.catalogue()
        except (Refused, CountersignError) as problem:
            if self._refused[0] != problem.code:
                _log.warning("ready.refused", code=problem.code, detail=problem.detail)
            self._refused = problem.code, problem.detail
        else:
            self._proved = renewals
            self._metrics.certificate_expiry.set(identity.not_after.timestamp())
            _log.info("ready", instance=identity.instance, not_after=identity.not_after.isoformat())
