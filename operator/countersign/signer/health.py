"""Health and metrics, on the port after the proxy's: kubelet cannot probe loopback."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from countersign.errors import CountersignError
from countersign.signer.refusal import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from countersign.signer.catalogue import Catalogue
    from countersign.signer.front import FrontDoor
    from countersign.signer.keyring import Keyring
    from countersign.signer.metrics import SignerMetrics

__all__ = ["Health"]

_CHECK_SECONDS = 1.0
_log = structlog.get_logger("signer")


class Health:
    """Ready means: with the certificate in use, a signed ``/catalogue`` was answered 200 (wire.md section 4)."""

    def __init__(self, keyring: Keyring, front: FrontDoor, catalogue: Catalogue, metrics: SignerMetrics) -> None:
        """Keep what is looked at."""
        self._keyring = keyring
        self._front = front
        self._catalogue = catalogue
        self._metrics = metrics
        self._proved = 0
        self._problem: str = "attest.unavailable"

    async def watch(self) -> None:
        """Prove each new certificate with one signed request; runs until cancelled."""
        while True:
            if self._proved != self._keyring.renewals:
                await self._prove()
            ready = self.problem() is None
            self._metrics.ready.set(1 if ready else 0)
            await asyncio.sleep(_CHECK_SECONDS if ready else _CHECK_SECONDS / 4)

    def problem(self) -> str | None:
        """Return the code of what keeps this signer from being ready, or None."""
        try:
            self._keyring.current()
        except CountersignError as error:
            return error.code
        return None if self._proved else self._problem

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
            problem = self.problem()
            last = self._keyring.problem
            detail = last.detail if last is not None else ""
            document = {"ready": problem is None, "code": problem, "detail": detail}
            return (200 if problem is None else 503), "application/json", json.dumps(document).encode() + b"\n"
        return 404, "text/plain", b"not found\n"

    async def _prove(self) -> None:
        renewals = self._keyring.renewals
        try:
            identity = self._keyring.current()
            await self._front.catalogue()
        except Refused as refused:
            self._problem = refused.code
            _log.warning("ready.refused", code=refused.code)
        except CountersignError as error:
            self._problem = error.code
        else:
            self._proved = renewals
            self._metrics.certificate_expiry.set(identity.not_after.timestamp())
            _log.info("ready", instance=identity.instance, not_after=identity.not_after.isoformat())
