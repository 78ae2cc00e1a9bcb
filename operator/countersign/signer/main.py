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

from countersign import log
from countersign.attest.tpm import TpmDevice
from countersign.clock import SystemClock
from countersign.errors import CountersignError
from countersign.signer.catalogue import Catalogue
from countersign.signer.enrol import Enroller
from countersign.signer.forward import Forwarder
from countersign.signer.front import FrontDoor
from countersign.signer.health import Health
from countersign.signer.keyring import Keyring
from countersign.signer.metrics import SignerMetrics
from countersign.signer.proxy import Proxy
from countersign.signer.settings import SignerSettings
from countersign.signer.trust import client_context, read_trust

if TYPE_CHECKING:
    from countersign.attest import AttestationDevice
    from countersign.signer.trust import Trust

__all__ = ["command", "serve"]

_SWITCH_SECONDS = 5e-4
"""Python's default of 5 ms between threads would be added to each signature that waits for the TPM's thread."""


def command(
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error")] = "",
) -> None:
    """Hold the TPM's handle, enrol, and countersign the tool calls of the agent beside this process.

    All settings are environment variables: COUNTERSIGN_SIGNER_TRUST_DIR (the mounted ConfigMap countersign-trust),
    COUNTERSIGN_SIGNER_TOKEN_FILE (the projected ServiceAccount token), TCTI (where the TPM is), and
    COUNTERSIGN_SIGNER_PORT (loopback; health and metrics are on the next port).

    Example:  TCTI=swtpm:path=/run/countersign/tpm/tpm.sock countersign signer
    """
    settings = SignerSettings()
    log.configure(log_level or settings.log_level, process="signer")
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
    keyring = Keyring(device, enroller, trust_dir=settings.trust_dir, clock=clock)
    trust = await _trust(settings, stop)
    if trust is None:
        return
    front = FrontDoor(trust.webhook_url, client_context(trust.ca), keyring, clock)
    catalogue = Catalogue(front, clock)
    forwarder = Forwarder(clock)
    proxy = Proxy(
        port=settings.port,
        keyring=keyring,
        front=front,
        catalogue=catalogue,
        forwarder=forwarder,
        metrics=metrics,
        body_bytes=settings.body_bytes,
    )
    health = Health(keyring, front, catalogue, metrics)
    servers = [_server(proxy, "127.0.0.1", settings.port), _server(health, settings.health_host, settings.port + 1)]
    tasks = [asyncio.create_task(work) for work in (keyring.run(), health.watch(), *(one.serve() for one in servers))]
    try:
        stopped = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for one in servers:
            one.should_exit = True
        await asyncio.wait(tasks[2:], timeout=10.0)
        for task in done - {stopped}:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
        await front.aclose()
        await forwarder.aclose()


async def _trust(settings: SignerSettings, stop: asyncio.Event) -> Trust | None:
    """Wait until the trust ConfigMap is there: kubelet mounts it before the operator has filled it."""
    while not stop.is_set():
        try:
            return read_trust(settings.trust_dir)
        except CountersignError as error:
            structlog.get_logger("signer").warning("trust.missing", code=error.code, detail=error.detail)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await stop.wait()
    return None


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
        http="httptools",
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=8,
    )
    return _Server(config)
