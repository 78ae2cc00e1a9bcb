"""The health port: ``/healthz`` (the process answers), ``/readyz`` (kubelet can hand out a TPM) and ``/metrics``, in clear."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import generate_latest

if TYPE_CHECKING:
    from countersign.node.context import ProcessContext

__all__ = ["health_app", "serve_health"]


def health_app(context: ProcessContext) -> web.Application:
    """Return the application of the health port."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_request: web.Request) -> web.Response:
        missing = context.faults()
        devices = [
            {"tpm": tpm, "device": name, "state": state}
            for tpm, (name, state) in sorted(context.proposing.devices.items())
        ]
        problems = dict(sorted(context.proposing.problems.items()))
        body = {"ready": not missing, "missing": missing, "devices": devices, "problems": problems}
        return web.json_response(body, status=503 if missing else 200)

    async def metrics(_request: web.Request) -> web.Response:
        context.metrics.ready.set(not context.faults())
        body = generate_latest(context.metrics.registry)
        return web.Response(body=body, content_type="text/plain", charset="utf-8")

    app = web.Application(client_max_size=1024)
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return app


async def serve_health(context: ProcessContext) -> web.AppRunner:
    """Listen; ``cleanup()`` of what is returned stops it. Raises OSError if the port is taken."""
    runner = web.AppRunner(health_app(context), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, context.settings.health.host, context.settings.health.port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner
