"""The health port of several workers: ready if all are, and the metrics of each with the label ``worker``."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from countersign_webhook.absent import no_such_route

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["merged", "workers_app"]

_SECONDS: Final = 2.0
_OK: Final = 200


def workers_app(ports: Mapping[str, int]) -> FastAPI:
    """Return the application; ``ports`` says on which of loopback's ports each worker answers for itself."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_exception_handler(HTTPException, no_such_route)

    async def asked(path: str) -> dict[str, tuple[int, bytes]]:
        answers = await asyncio.gather(*(_ask(port, path) for port in ports.values()))
        return dict(zip(ports, answers, strict=True))

    @app.get("/healthz")
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> Response:
        faults = [
            f"worker {worker}: {what}"
            for worker, (status, body) in (await asked("/readyz")).items()
            for what in _missing(status, body)
        ]
        return JSONResponse({"ready": not faults, "missing": faults}, 503 if faults else 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        texts = {
            worker: body.decode() if status == _OK else None
            for worker, (status, body) in (await asked("/metrics")).items()
        }
        return Response(merged(texts), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


def merged(texts: Mapping[str, str | None]) -> bytes:
    """Return the metrics of all workers as one text; None is one that did not answer, and is said not to be up."""
    up = GaugeMetricFamily("countersign_webhook_worker_up", "1 if the worker answers, else 0.", labels=["worker"])
    families: dict[str, Metric] = {up.name: up}
    for worker, text in texts.items():
        up.add_metric([worker], 0 if text is None else 1)
        for family in text_string_to_metric_families(text or ""):
            into = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            into.samples += [
                sample._replace(labels={**sample.labels, "worker": worker})  # a named tuple's own method
                for sample in family.samples
            ]
    registry = CollectorRegistry()
    registry.register(_Collected(families.values()))
    return generate_latest(registry)


class _Collected:
    """What was read, as a collector."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _missing(status: int, body: bytes) -> list[str]:
    if status == _OK:
        return []
    try:
        missing: Any = json.loads(body)["missing"]
    except (ValueError, TypeError, KeyError):
        missing = None
    return [str(one) for one in missing] if isinstance(missing, list) and missing else ["an answer"]


async def _ask(port: int, path: str) -> tuple[int, bytes]:
    """Return status and body; 0 for a worker that does not answer."""
    writer = None
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nhost: worker\r\nconnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            return int(head.split(b" ", 2)[1]), body
    except (OSError, TimeoutError, ValueError, IndexError):
        return 0, b""
    finally:
        if writer is not None:
            writer.close()
