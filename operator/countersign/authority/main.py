"""The command ``countersign authority``."""

from __future__ import annotations

import asyncio
from pathlib import Path  # noqa: TC003 - typer reads the annotation
from typing import Annotated

import typer
from pydantic import ValidationError

from countersign import log
from countersign.authority.settings import AuthoritySettings, load
from countersign.errors import Unavailable

__all__ = ["command"]

_EPILOG = "Example:  countersign authority --config /etc/countersign/authority.yaml"

command = typer.Typer(
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@command.callback(invoke_without_command=True)
def run(
    config: Annotated[
        Path | None, typer.Option(help="YAML settings; the environment (COUNTERSIGN_AUTHORITY_…) wins over it.")
    ] = None,
) -> None:
    """Serve the attestation CA and the ACME CA until SIGTERM.

    Settings: kubeconfig, namespace, cluster, url, listen (host, port, tls_cert, tls_key), health (host, port),
    database_url, token_audience, audit (directory), injection (image, version).
    """
    try:
        settings = load(config)
    except (ValidationError, OSError) as error:
        typer.echo(f"countersign authority: {error}", err=True)
        raise typer.Exit(2) from error
    log.configure(settings.log_level, process="authority")
    try:
        asyncio.run(_serve(settings))
    except Unavailable as error:
        typer.echo(f"countersign authority: {error}", err=True)
        raise typer.Exit(1) from error


async def _serve(settings: AuthoritySettings) -> None:
    from countersign.authority.context import ProcessContext  # noqa: PLC0415 - --help needs no database
    from countersign.authority.serve import health_app, serve  # noqa: PLC0415

    context = await ProcessContext.from_settings(settings)
    try:
        health = health_app(context.faults, context.metrics.registry)
        await serve(context.app(), health, settings, stopping=context.stopping)
    finally:
        await context.aclose()
