"""``countersign webhook``: put the parts together, listen on three ports, serve until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Final

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
from countersign_webhook.workers import Workers

if TYPE_CHECKING:
    from countersign_webhook.settings import WebhookSettings

__all__ = ["Ports", "command", "serve"]

_SETTLE_SECONDS: Final = 1.0
_log = structlog.get_logger("countersign.webhook")


def command(
    config: Annotated[Path | None, typer.Option(help="Settings, as YAML; the environment wins over it.")] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error")] = "",
    workers: Annotated[int, typer.Option(help="Processes on the same ports; they need a replay store.")] = 0,
    worker: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Inject and validate for the API server, decide tool calls for signers, publish the keys of call tokens.

    Each setting can also be given as COUNTERSIGN_WEBHOOK_<NAME>, nested by two underscores.

    Examples:  countersign webhook --config webhook.yaml   ·   COUNTERSIGN_WEBHOOK_CALLS__PORT=9000 countersign webhook --config webhook.yaml
    """
    if workers:
        os.environ["COUNTERSIGN_WEBHOOK_WORKERS"] = str(workers)
    try:
        settings = load(config)
    except (ValidationError, OSError) as error:
        typer.echo(f"countersign webhook: {error}", err=True)
        raise typer.Exit(2) from error
    place = Place.of(worker)
    log.configure(log_level or settings.log_level, process=place.process)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # it warns of each line that a stranger sends
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            if settings.workers > 1 and not place.listener:
                options = [
                    word
                    for name, value in (("--config", config), ("--log-level", log_level))
                    if value
                    for word in (name, str(value))
                ]
                runner.run(_many(settings, options))
            else:
                runner.run(_main(settings, place))
    except (CountersignError, OSError) as error:
        _log.error("stopped", error=str(error))
        raise typer.Exit(1) from error


@dataclass(frozen=True)
class Place:
    """Where a process stands: alone, or one of several workers, whose health is asked for at ``listener``."""

    process: str = "webhook"
    listener: socket.socket | None = None

    @classmethod
    def of(cls, worker: str) -> Place:
        """Read ``--worker``: its number and the descriptor of a listening socket."""
        if not worker:
            return cls()
        number, _, descriptor = worker.partition(":")
        return cls(f"webhook-{number}", socket.socket(fileno=int(descriptor)))


async def _main(settings: WebhookSettings, place: Place) -> None:
    stop = _stop()
    if place.listener is not None:
        _stop_with_standard_input(stop)
    context = await WebhookContext.from_settings(settings)
    try:
        await serve(context, stop, place)
    finally:
        await context.aclose()


def _stop_with_standard_input(stop: asyncio.Event) -> None:
    """End as the process does that started this worker: it holds the other end of the pipe, and never writes."""
    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()

    def ended() -> None:
        loop.remove_reader(descriptor)
        stop.set()

    loop.add_reader(descriptor, ended)


async def _many(settings: WebhookSettings, options: list[str]) -> None:
    await Workers(settings, options).run(_stop())


def _stop() -> asyncio.Event:
    """Return what a signal sets."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


class Ports:
    """The three listening sockets, and the files that they follow. Calls close first, health last."""

    def __init__(self, context: WebhookContext, place: Place | None = None) -> None:
        """Read the certificates; raises OSError if that fails."""
        listener = None if place is None else place.listener
        shared = listener is not None
        settings = context.settings
        admission, calls, limit = settings.admission, settings.calls, settings.limits.connections
        self.files = [
            TlsFiles(admission.tls_cert, admission.tls_key, admission.client_ca),
            TlsFiles(calls.tls_cert, calls.tls_key, calls.client_ca, optional=True),
        ]
        tls = [file.context for file in self.files]
        self.calls = Port(
            CallsApp(context), host=calls.host, port=calls.port, tls=tls[1], connections=limit, shared=shared
        )
        self.admission = Port(
            admission_app(context),
            host=admission.host,
            port=admission.port,
            tls=tls[0],
            connections=limit,
            shared=shared,
        )
        health = settings.health
        self.health = Port(
            health_app(context), host=health.host, port=health.port, connections=limit, listener=listener
        )

    async def start(self) -> None:
        """Listen."""
        for port in (self.health, self.calls, self.admission):
            await port.start()

    async def aclose(self) -> None:
        """Answer what runs, then stop."""
        await asyncio.gather(self.calls.aclose(), self.admission.aclose())
        await self.health.aclose()


async def serve(context: WebhookContext, stop: asyncio.Event, place: Place | None = None) -> None:
    """Serve until ``stop`` is set; then be not ready first, and answer what is under way."""
    with contextlib.suppress(OSError, ValueError):  # not there yet: not ready, and looked for every second
        context.keys.refresh()
    ports = Ports(context, place)
    async with contextlib.AsyncExitStack() as stack:
        works = [follow([*ports.files, context.keys]), context.notices.run(), context.book.run(), _settle(context)]
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


async def _settle(context: WebhookContext) -> None:
    """Once all is there, leave it out of the collection of cycles: thousands of rules take it a while, and everything else waits."""
    while context.faults():  # noqa: ASYNC110 - nobody tells when the last of it is there
        await asyncio.sleep(_SETTLE_SECONDS)
    gc.collect()
    gc.freeze()


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
