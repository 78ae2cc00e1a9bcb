"""Several processes on the same ports: this one starts them, starts them again, and answers for all on the health port.

Each worker is a whole front door with its own watches and its own audit log. What was used once is known to all of them by
the replay store that they share; without one, ``settings`` refuses more than one worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from countersign_webhook.serving import Port, reserve
from countersign_webhook.workers_health import workers_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from countersign_webhook.settings import WebhookSettings

__all__ = ["Workers"]

_AGAIN_SECONDS: Final = 1.0
_LOCAL: Final = "127.0.0.1"
_COMMAND: Final = (sys.executable, "-c", "from countersign.cli import main; main()", "webhook")
_log = structlog.get_logger("countersign.webhook.workers")


@dataclass
class _Worker:
    """One process. ``health`` listens for it, so that it can be asked from its first moment on."""

    number: int
    health: socket.socket
    process: asyncio.subprocess.Process | None = field(default=None, repr=False)

    @property
    def port(self) -> int:
        """Where its health is asked for, on loopback."""
        return int(self.health.getsockname()[1])


class Workers:
    """As many workers as the settings say, until told to stop."""

    def __init__(self, settings: WebhookSettings, options: Sequence[str]) -> None:
        """Take the ports; raises OSError if another process has one. ``options`` are those of this process's command."""
        self._options = options
        kept = {name: getattr(settings, name) for name in ("admission", "calls")}
        self._reserved = {name: reserve(port.host, port.port) for name, port in kept.items()}
        self.numbers = {name: int(one.getsockname()[1]) for name, one in self._reserved.items()}
        self._workers = [_Worker(number, socket.create_server((_LOCAL, 0))) for number in range(settings.workers)]
        app = workers_app({str(worker.number): worker.port for worker in self._workers})
        self.health = Port(app, host=settings.health.host, port=settings.health.port)

    async def run(self, stop: asyncio.Event) -> None:
        """Keep all of them running; after ``stop`` is set let them answer what runs, and wait for their end."""
        await self.health.start()
        _log.info("workers", count=len(self._workers), health=self.health.number, **self.numbers)
        keeping = [asyncio.create_task(self._keep(worker, stop)) for worker in self._workers]
        try:
            await stop.wait()
        finally:
            stop.set()
            for worker in self._workers:
                _end(worker)
            await asyncio.gather(*keeping)
            await self.health.aclose()
            for kept in (*self._reserved.values(), *(worker.health for worker in self._workers)):
                kept.close()

    async def _keep(self, worker: _Worker, stop: asyncio.Event) -> None:
        """Start a worker, and again after each end that nobody asked for."""
        while not stop.is_set():
            worker.process = await self._start(worker)
            if stop.is_set():  # it was set while this one was started
                _end(worker)
            status = await worker.process.wait()
            if stop.is_set():
                return
            _log.error("a worker ended", worker=worker.number, status=status, again_seconds=_AGAIN_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _AGAIN_SECONDS)

    async def _start(self, worker: _Worker) -> asyncio.subprocess.Process:
        """Start one. Its standard input ends with this process, and with that the worker."""
        descriptor = worker.health.fileno()
        ports = {f"COUNTERSIGN_WEBHOOK_{name.upper()}__PORT": str(number) for name, number in self.numbers.items()}
        return await asyncio.create_subprocess_exec(
            *_COMMAND,
            *self._options,
            *("--worker", f"{worker.number}:{descriptor}"),
            stdin=asyncio.subprocess.PIPE,
            pass_fds=(descriptor,),
            env={**os.environ, **ports},
        )


def _end(worker: _Worker) -> None:
    if worker.process is not None and worker.process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            worker.process.terminate()
