"""Known to kubelet, and known again after it restarts.

kubelet forgets every plugin when it starts: it removes their sockets and makes its own anew. So both are looked at, and when
one is another than at our registration, everything begins again.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio
import structlog

from countersign.node.messages import REGISTER, register_request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from countersign.node.metrics import NodeMetrics
    from countersign.node.plugin import DevicePlugin

__all__ = ["ENDPOINT", "RESOURCE", "Registration"]

RESOURCE: Final = "countersign.dev/tpm"
ENDPOINT: Final = "countersign.sock"
_KUBELET: Final = "kubelet.sock"
_REGISTER_SECONDS: Final = 5.0
_GRACE: Final = 2.0
_MAX_MESSAGE: Final = 1024 * 1024
_OPTIONS: Final = (("grpc.max_receive_message_length", _MAX_MESSAGE), ("grpc.so_reuseport", 0))
_CHANNEL_OPTIONS: Final = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
_log = structlog.get_logger("countersign.node")


class Registration:
    """Serves in kubelet's directory and stays registered; :meth:`run` until cancelled."""

    def __init__(
        self, directory: Path, plugin: Callable[[], DevicePlugin], metrics: NodeMetrics, *, look_seconds: float
    ) -> None:
        """Serve in ``directory``, with a new plugin for each registration."""
        self._directory = directory
        self._plugin = plugin
        self._metrics = metrics
        self._seconds = look_seconds
        self._problem = ""
        self.registered = False

    async def run(self) -> None:
        """Register, serve until kubelet restarts, and begin again; what fails is tried again at the next look."""
        while True:
            if (kubelet := _mark(self._directory / _KUBELET)) is not None:
                try:
                    await self._serve(kubelet)
                except (OSError, RuntimeError, grpc.aio.AioRpcError) as error:
                    self._failed(_reason(error))
            await asyncio.sleep(self._seconds)

    async def _serve(self, kubelet: tuple[int, int]) -> None:
        """Serve until kubelet's socket or ours is another."""
        path, plugin = self._directory / ENDPOINT, self._plugin()
        path.unlink(missing_ok=True)
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((plugin.handler(),))
        server.add_insecure_port(f"unix://{path}")
        await server.start()
        mine = _mark(path)
        try:
            await self._register()
            self._tell(registered=True)
            while (_mark(self._directory / _KUBELET), _mark(path)) == (kubelet, mine):  # noqa: ASYNC110 - files tell nobody that they changed
                await asyncio.sleep(self._seconds)
            _log.info("kubelet restarted")
        finally:
            self._tell(registered=False)
            plugin.end()
            if mine is not None and _mark(path) == mine:
                path.unlink(missing_ok=True)
            await server.stop(_GRACE)

    async def _register(self) -> None:
        address = f"unix://{self._directory / _KUBELET}"
        async with grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS) as channel:
            await channel.unary_unary(REGISTER)(register_request(ENDPOINT, RESOURCE), timeout=_REGISTER_SECONDS)
        self._problem = ""
        self._metrics.registrations.labels("done").inc()
        _log.info("registered with kubelet", resource=RESOURCE)

    def _failed(self, reason: str) -> None:
        """Count each failure, and log the first of its kind."""
        self._metrics.registrations.labels("failed").inc()
        if reason != self._problem:
            _log.warning("not registered with kubelet", reason=reason)
        self._problem = reason

    def _tell(self, *, registered: bool) -> None:
        self.registered = registered
        self._metrics.registered.set(registered)


def _mark(path: Path) -> tuple[int, int] | None:
    """Return what tells a socket from a later one of its name, or None if there is none."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_ino, found.st_ctime_ns
    return None


def _reason(error: Exception) -> str:
    return error.code().name if isinstance(error, grpc.aio.AioRpcError) else f"{type(error).__name__}: {error}"
