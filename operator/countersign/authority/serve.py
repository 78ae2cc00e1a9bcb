"""Serve two applications from one loop: the authority over TLS 1.3, and health in clear."""

from __future__ import annotations

import asyncio
import signal
import ssl
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from countersign.authority.patience import PatientProtocol
from countersign.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from prometheus_client import CollectorRegistry
    from starlette.requests import Request

    from countersign.authority.settings import AuthoritySettings

__all__ = ["health_app", "serve", "tls_config"]

_RELOAD: Final = 10.0
_GRACE: Final = 10
_MAX_CONNECTIONS: Final = 512
_LOG: Final = structlog.get_logger(__name__)


class _Server(uvicorn.Server):
    """A server that leaves the signals to :func:`serve`, which has two of them to stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signals."""
        yield


def health_app(faults: Callable[[], list[str]], registry: CollectorRegistry) -> Starlette:
    """Return ``/healthz`` (the process lives), ``/readyz`` (it can answer) and ``/metrics``."""

    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_request: Request) -> Response:
        found = faults()
        return JSONResponse(
            {"status": "not ready" if found else "ok", "faults": found}, status_code=503 if found else 200
        )

    async def metrics(_request: Request) -> Response:
        faults()  # sets the gauge
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)])


def tls_config(app: Any, settings: AuthoritySettings) -> uvicorn.Config:
    """Return how ``app`` is served: TLS 1.3 and nothing else, bounded connections.

    :raises Unavailable: ``attest.unavailable`` if certificate or key cannot be read.
    """
    config = uvicorn.Config(
        app,
        host=settings.listen.host,
        port=settings.listen.port,
        ssl_certfile=settings.listen.tls_cert,
        ssl_keyfile=settings.listen.tls_key,
        limit_concurrency=_MAX_CONNECTIONS,
        **_common(settings),
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise Unavailable("attest.unavailable", "the serving certificate or its key cannot be read") from error
    assert config.ssl is not None, "a certificate is a required setting"
    config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
    return config


async def serve(app: Any, health: Any, settings: AuthoritySettings, *, stopping: asyncio.Event) -> None:
    """Serve until SIGTERM or SIGINT sets ``stopping``; running requests get a while to end, and health is closed last."""
    listen = settings.listen
    main = tls_config(app, settings)
    side = uvicorn.Config(health, host=settings.health.host, port=settings.health.port, **_common(settings))
    front, watched = _Server(main), _Server(side)
    _set_on_signal(stopping)
    assert main.ssl is not None, "tls_config sees to it"
    reload = asyncio.create_task(_follow(main.ssl, listen.tls_cert, listen.tls_key), name="tls")
    tasks = [asyncio.create_task(server.serve()) for server in (front, watched)]
    stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({stop, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for server, task in zip((front, watched), tasks, strict=True):
            server.should_exit = True
            await task
    finally:
        reload.cancel()
        stop.cancel()
        await asyncio.gather(reload, stop, return_exceptions=True)


def _common(settings: AuthoritySettings) -> dict[str, Any]:
    return {
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "http": partial(PatientProtocol, head_seconds=settings.limits.head_seconds),
        "ws": "none",
        "proxy_headers": False,
        "lifespan": "off",
        "timeout_keep_alive": 10,
        "timeout_graceful_shutdown": _GRACE,
    }


def _set_on_signal(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)


async def _follow(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Take a rotated serving certificate for the next handshakes, without a restart.

    The pair is tried in a context of its own first: half a rotation must not take the key away.
    """
    seen = _version(certificate, key)
    while True:
        await asyncio.sleep(_RELOAD)
        now = _version(certificate, key)
        if now == seen or now is None:
            continue
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            _LOG.warning("the serving certificate cannot be read yet", error=str(error))
            continue
        seen = now
        _LOG.info("the serving certificate was renewed")


def _version(*paths: Path) -> tuple[int, ...] | None:
    try:
        return tuple(path.stat().st_mtime_ns for path in paths)
    except OSError:
        return None
