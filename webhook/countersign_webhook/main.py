"""``countersign webhook``: put the parts together, listen on three ports, serve until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import structlog
import typer
import uvloop
from pydantic import ValidationError

from countersign import log
from countersign.errors import CountersignError
from countersign_webhook.admission import admission_app
from countersign_webhook.app import CallsApp
from countersign_webhook.context import WebhookContext
from countersign_webhook.files import TlsFiles, follow
from countersign_webhook.health import health_app
from countersign_webhook.serving import Port
from countersign_webhook.settings import load

if TYPE_CHECKING:
    from countersign_webhook.settings import WebhookSettings

__all__ = ["Ports", "command", "serve"]

_log = structlog.get_logger("countersign.webhook")


def command(
    config: Annotated[Path | None, typer.Option(help="Settings, as YAML; the environment wins over it.")] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error")] = "",
) -> None:
    """Inject and validate for the API server, decide tool calls for signers, publish the keys of call tokens.

    Each setting can also be given as COUNTERSIGN_WEBHOOK_<NAME>, nested by two underscores.

    Examples:  countersign webhook --config webhook.yaml   ·   COUNTERSIGN_WEBHOOK_CALLS__PORT=9000 countersign webhook --config webhook.yaml
    """
    try:
        settings = load(config)
    except (ValidationError, OSError) as error:
        typer.echo(f"countersign webhook: {error}", err=True)
        raise typer.Exit(2) from error
    log.configure(log_level or settings.log_level, process="webhook")
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # it warns of each line that a stranger sends
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_main(settings))
    except (CountersignError, OSError) as error:
        _log.error("stopped", error=str(error))
        raise typer.Exit(1) from error


async def _main(settings: WebhookSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    context = await WebhookContext.from_settings(settings)
    try:
        await serve(context, stop)
    finally:
        await context.aclose()


class Ports:
    """The three listening sockets, and the files that they follow. Calls close first, health last."""

    def __init__(self, context: WebhookContext) -> None:
        """Read the certificates; raises OSError if that fails."""
        settings = context.settings
        admission, calls, limit = settings.admission, settings.calls, settings.limits.connections
        self.files = [
            TlsFiles(admission.tls_cert, admission.tls_key, admission.client_ca),
            TlsFiles(calls.tls_cert, calls.tls_key, calls.client_ca, optional=True),
        ]
        tls = [file.context for file in self.files]
        self.calls = Port(CallsApp(context), host=calls.host, port=calls.port, tls=tls[1], connections=limit)
        self.admission = Port(
            admission_app(context), host=admission.host, port=admission.port, tls=tls[0], connections=limit
        )
        self.health = Port(health_app(context), host=settings.health.host, port=settings.health.port, connections=limit)

    async def start(self) -> None:
        """Listen."""
        for port in (self.health, self.calls, self.admission):
            await port.start()

    async def aclose(self) -> None:
        """Answer what runs, then stop."""
        await asyncio.gather(self.calls.aclose(), self.admission.aclose())
        await self.health.aclose()


async def serve(context: WebhookContext, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set; then be not ready first, and answer what is under way."""
    with contextlib.suppress(OSError, ValueError):  # not there yet: not ready, and looked for every second
        context.keys.refresh()
    ports = Ports(context)
    async with contextlib.AsyncExitStack() as stack:
        works = [follow([*ports.files, context.keys]), context.notices.run(), context.book.run()]
        if context.heads is not None:
            works.append(context.heads.run())
        for work in works:
            stack.push_async_callback(_cancelled, asyncio.create_task(work))
        stack.push_async_callback(ports.aclose)
        await ports.start()
        _log.info("listening", admission=ports.admission.number, calls=ports.calls.number, health=ports.health.number)
        await stop.wait()
        context.stopping.set()
        _log.info("stopping", drain_seconds=context.settings.drain_seconds)
        await asyncio.sleep(context.settings.drain_seconds)
    _log.info("stopped")


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
