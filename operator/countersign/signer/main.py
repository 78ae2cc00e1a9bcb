"""``countersign signer``: wire the parts, serve until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any

import structlog
import typer
import uvicorn
import uvloop
from pydantic import ValidationError

from countersign import log
from countersign.attest.tpm import TpmDevice
from countersign.clock import SystemClock
from countersign.errors import CountersignError
from countersign.signer.catalogue import Catalogue
from countersign.signer.door import Door
from countersign.signer.enrol import Enroller
from countersign.signer.exchange import BodyLimits
from countersign.signer.forward import Forwarder
from countersign.signer.front import FrontDoor
from countersign.signer.health import Health
from countersign.signer.keyring import Keyring
from countersign.signer.metrics import SignerMetrics
from countersign.signer.proxy import Proxy
from countersign.signer.settings import SignerSettings

if TYPE_CHECKING:
    from countersign.attest import AttestationDevice

__all__ = ["command", "serve"]

_SWITCH_SECONDS = 5e-4
"""Python's default of 5 ms between threads would be added to each signature that waits for the TPM's thread."""

_HEAD_BYTES = 32 * 1024


def command(
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error")] = "",
) -> None:
    """Hold the TPM's handle, enrol, and countersign the tool calls of the agent beside this process.

    All settings are environment variables: COUNTERSIGN_SIGNER_TRUST_DIR (the mounted ConfigMap countersign-trust),
    COUNTERSIGN_SIGNER_TOKEN_FILE (the projected ServiceAccount token), TCTI (where the TPM is), and
    COUNTERSIGN_SIGNER_PORT (loopback; health and metrics are on the next port).

    Example:  TCTI=swtpm:path=/run/countersign/tpm/tpm.sock countersign signer
    """
    try:
        settings = SignerSettings()
        if log_level:
            settings = SignerSettings.model_validate({**settings.model_dump(), "log_level": log_level})
    except ValidationError as error:
        typer.echo(f"countersign signer: {error}", err=True)
        raise typer.Exit(2) from error
    log.configure(settings.log_level, process="signer")
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_main(settings))
    except CountersignError as error:
        structlog.get_logger("signer").error("stopped", code=error.code, detail=error.detail)
        raise typer.Exit(1) from error


async def _main(settings: SignerSettings) -> None:
    device = await TpmDevice.open(settings.tcti)
    try:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stop.set)
        await serve(settings, device, stop)
    finally:
        await device.aclose()


async def serve(settings: SignerSettings, device: AttestationDevice, stop: asyncio.Event) -> None:
    """Run a signer on ``device`` until ``stop`` is set; calls under way are answered first."""
    clock = SystemClock()
    metrics = SignerMetrics()
    enroller = Enroller(device, token_file=settings.token_file)
    keyring = Keyring(device, enroller, trust_dir=settings.trust_dir, clock=clock, metrics=metrics)
    door = Door(settings.trust_dir, clock)
    front = FrontDoor(door, keyring, clock, metrics)
    forwarder = Forwarder(clock)
    proxy = Proxy(
        port=settings.port,
        keyring=keyring,
        front=front,
        catalogue=Catalogue(front, clock),
        forwarder=forwarder,
        metrics=metrics,
        limits=BodyLimits(settings.body_bytes),
    )
    health = Health(keyring, front, metrics)
    servers = [_server(proxy, "127.0.0.1", settings.port), _server(health, settings.health_host, settings.port + 1)]
    tasks = [asyncio.create_task(work) for work in (keyring.run(), health.watch(), *(one.serve() for one in servers))]
    stopped = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for one in servers:
            one.should_exit = True
        await asyncio.wait(tasks[2:], timeout=10.0)
        for task in done - {stopped}:
            task.result()
    finally:
        for task in (stopped, *tasks):
            task.cancel()
        await asyncio.gather(stopped, *tasks, return_exceptions=True)
        await door.aclose()
        await forwarder.aclose()


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to this process, which has two of them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


def _server(app: Any, host: str, port: int) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        access_log=False,
        log_config=None,
        lifespan="off",
        ws="none",
        http="h11",  # it bounds a request's head, and refuses what is outside the grammar
        h11_max_incomplete_event_size=_HEAD_BYTES,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=8,
    )
    return _Server(config)
