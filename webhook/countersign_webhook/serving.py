"""A port of this process: uvicorn with its signal handling, access log and process exits taken away.

Several processes may share an address: the kernel then gives each new connection to one of them (``SO_REUSEPORT``).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from countersign_webhook.protocol import BoundedProtocol

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

__all__ = ["Port", "reserve"]

_KEEP_ALIVE_SECONDS: Final = 75
_GRACE_SECONDS: Final = 5


class _Server(uvicorn.Server):
    """A server among several: signals belong to the process, and who starts it is told when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        """Listen to nothing yet."""
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def reserve(host: str, port: int) -> socket.socket:
    """Return a socket that has the address and takes no connection: only processes of this user can share it from now on.

    Raises OSError if another one has it.
    """
    kept = socket.socket(_family(host))
    try:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.bind((host, port))
    except OSError:
        kept.close()
        raise
    return kept


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


class Port:
    """One listening socket and its application."""

    def __init__(
        self,
        app: Any,
        *,
        host: str,
        port: int,
        tls: ssl.SSLContext | None = None,
        connections: int | None = None,
        listener: socket.socket | None = None,
        shared: bool = False,
    ) -> None:
        """Say what will be served; nothing is opened yet. ``listener`` is a socket that listens already.

        With ``shared`` other processes of this user may listen on the same address.
        """
        self._address, self._listener, self._shared = (host, port), listener, shared
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            limit_concurrency=connections,
            ssl_context_factory=None if tls is None else lambda _config, _default: tls,
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None
        self.number = port

    async def start(self) -> None:
        """Listen; raises OSError if the address is taken."""
        listener = self._listener or socket.create_server(
            self._address, family=_family(self._address[0]), backlog=2048, reuse_port=self._shared
        )
        self.number = listener.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait({listening, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not listening.done():
            listening.cancel()
            await self._task

    async def aclose(self) -> None:
        """Take no new connection, answer what runs, then close."""
        if self._task is not None:
            self._server.should_exit = True
            await self._task
