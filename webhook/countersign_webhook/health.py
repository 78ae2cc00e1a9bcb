"""The health port: ``/healthz`` (the process answers), ``/readyz`` (it can decide) and ``/metrics``, in clear."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from countersign_webhook.absent import no_such_route

if TYPE_CHECKING:
    from countersign_webhook.context import WebhookContext

__all__ = ["health_app"]


def health_app(context: WebhookContext) -> FastAPI:
    """Return the application of the health port."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_exception_handler(HTTPException, no_such_route)

    @app.get("/healthz")
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> Response:
        faults = context.faults()
        context.metrics.ready.set(not faults)
        body: dict[str, object] = {"ready": not faults, "missing": faults}
        if (fault := context.skew.look()) is not None:  # whoever is right, the proofs' windows decide: this only tells
            body["warning"] = fault
        return JSONResponse(body, 503 if faults else 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        context.metrics.ready.set(not context.faults())
        context.skew.look()
        return Response(context.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app
