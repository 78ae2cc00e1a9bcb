"""``countersign operator``: put the parts together, watch, lead when it is our turn, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import structlog
import typer
from pydantic import ValidationError

from countersign import log
from countersign.controller.settings import load

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from countersign.controller.context import ProcessContext
    from countersign.controller.settings import OperatorSettings

__all__ = ["command", "serve"]

_log = structlog.get_logger("countersign.operator")


def command(
    config: Annotated[Path | None, typer.Option(help="Settings, as YAML; the environment wins over it.")] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error")] = "",
) -> None:
    """Keep the status of our kinds true, revoke what must end, and make the certificates and keys of the other processes.

    Each setting can also be given as COUNTERSIGN_OPERATOR_<NAME>, nested by two underscores.

    Example:  countersign operator --config /etc/countersign/operator.yaml
    """
    from countersign.kube import KubeError  # noqa: PLC0415 - --help needs no client

    try:
        settings = load(config)
    except (ValidationError, OSError) as error:
        typer.echo(f"countersign operator: {error}", err=True)
        raise typer.Exit(2) from error
    log.configure(log_level or settings.log_level, process="operator")
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # it tells of each event that a handler took it
    try:
        asyncio.run(_main(settings))
    except (KubeError, OSError) as error:
        _log.error("stopped", error=str(error))
        raise typer.Exit(1) from error


async def _main(settings: OperatorSettings) -> None:
    from countersign.controller.context import ProcessContext  # noqa: PLC0415 - --help needs no client

    context = await ProcessContext.from_settings(settings)
    try:
        await serve(context, asyncio.Event())
    finally:
        await context.aclose()


async def serve(context: ProcessContext, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set or SIGTERM comes; then give the Lease back first, and stop watching last.

    Raises what ended a part that should run for ever.
    """
    from countersign.controller.health import serve_health  # noqa: PLC0415 - --help needs no client
    from countersign.kube import KubeError  # noqa: PLC0415

    _stop_on_signals(stop)
    async with contextlib.AsyncExitStack() as stack:
        health = await serve_health(context)
        stack.push_async_callback(health.cleanup)
        stopping = await _background(stack, stop.wait())
        listing = await _background(stack, context.resync())
        complete = await _background(stack, context.complete.wait())
        await asyncio.wait({stopping, listing, complete}, return_when=asyncio.FIRST_COMPLETED)
        parts = {stopping, listing}
        if not parts & {one for one in parts if one.done()}:
            # kopf starts when every kind is there: it does not look for those that come later.
            parts.add(await _watch(stack, context, stop))
            parts.add(await _background(stack, context.lead()))
            _log.info("watching", health=context.settings.health.port)
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        ended = [one for one in parts if one.done() and one is not stopping]
    for one in ended:
        if not one.cancelled():  # kopf cancels what runs beside it when it fails
            one.result()
    if ended and not stop.is_set():
        raise KubeError("watching ended by itself; see the log above")
    _log.info("stopped")


async def _watch(stack: contextlib.AsyncExitStack, context: ProcessContext, stop: asyncio.Event) -> asyncio.Task[None]:
    """Start kopf in this loop; at the end it is asked to stop and waited for."""
    import kopf  # noqa: PLC0415 - --help needs no kopf

    from countersign.controller.watch import kopf_registry, kopf_settings  # noqa: PLC0415

    halt = asyncio.Event()
    ours = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=kopf_registry(context.settings.kubeconfig),
        settings=kopf_settings(),
        memo=context,
        identity=socket.gethostname(),  # else kopf asks who the user is, and a container's uid has no name
        standalone=True,
        clusterwide=True,
        stop_flag=halt,
    )
    _stop_on_signals(stop)  # kopf has just taken the signals
    running = asyncio.create_task(kopf.run_tasks(tasks, ignored=ours), name="kopf")

    async def end() -> None:
        halt.set()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await running

    stack.push_async_callback(end)
    return running


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def _background(stack: contextlib.AsyncExitStack, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        await asyncio.wait({task})

    stack.push_async_callback(end)
    return task
