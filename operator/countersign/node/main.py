"""``countersign node``: put the parts together, and serve kubelet until told to stop."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import structlog
import typer
from pydantic import ValidationError

from countersign import log
from countersign.node.settings import load

if TYPE_CHECKING:
    from countersign.node.context import ProcessContext
    from countersign.node.settings import NodeSettings

__all__ = ["command", "serve"]

_log = structlog.get_logger("countersign.node")


def command(
    config: Annotated[Path | None, typer.Option(help="Settings, as YAML; the environment wins over it.")] = None,
    socket_dir: Annotated[
        Path | None,
        typer.Option(help="Folders of TPM simulators, one a slot; without it the node's chip is handed out."),
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error")] = "",
) -> None:
    """Hand this node's TPM to signers as countersign.dev/tpm, and propose it as a Device.

    Each setting can also be given as COUNTERSIGN_NODE_<NAME>, nested by two underscores: kubeconfig, plugin_dir, socket_dir,
    device, slots, trust_dir, token_file, look, facts, health (host, port), log_level.

    Example:  countersign node --config /etc/countersign/node.yaml
    """
    from countersign.kube import KubeError  # noqa: PLC0415 - --help needs no client

    given: dict[str, Any] = {"socket_dir": socket_dir} if socket_dir is not None else {}
    if log_level:
        given["log_level"] = log_level
    try:
        settings = load(config, **given)
    except (ValidationError, OSError) as error:
        typer.echo(f"countersign node: {error}", err=True)
        raise typer.Exit(2) from error
    log.configure(settings.log_level, process="node")
    try:
        asyncio.run(_main(settings))
    except (KubeError, OSError) as error:
        _log.error("stopped", error=str(error))
        raise typer.Exit(1) from error


async def _main(settings: NodeSettings) -> None:
    from countersign.node.context import ProcessContext  # noqa: PLC0415 - --help needs neither gRPC nor a client

    context = await ProcessContext.from_settings(settings)
    try:
        stop = asyncio.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, stop.set)
        await serve(context, stop)
    finally:
        await context.aclose()


async def serve(context: ProcessContext, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set: then kubelet sees the slots go, and what pods hold already stays theirs.

    Raises what ended a part that should run for ever.
    """
    from countersign.node.health import serve_health  # noqa: PLC0415 - --help needs no server

    look = context.settings.look.total_seconds()
    await context.board.look()
    health = await serve_health(context)
    stopping = asyncio.create_task(stop.wait())
    parts = [
        asyncio.create_task(context.board.run(look), name="board"),
        asyncio.create_task(context.registration.run(), name="registration"),
        asyncio.create_task(context.proposing.run(look), name="proposing"),
    ]
    try:
        done, _ = await asyncio.wait({stopping, *parts}, return_when=asyncio.FIRST_COMPLETED)
        for part in done - {stopping}:
            part.result()
    finally:
        for task in (stopping, *parts):
            task.cancel()
        await asyncio.gather(stopping, *parts, return_exceptions=True)
        await health.cleanup()
    _log.info("stopped")
