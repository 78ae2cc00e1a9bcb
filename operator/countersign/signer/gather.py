"""Connections that send a request in one piece: head and body are written separately, and the other side would wake up twice."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import httpcore

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

__all__ = ["Gathering"]

_MOST: Final = 64 * 1024


class Gathering(httpcore.AsyncNetworkBackend):
    """Opens sockets as ``inner`` does."""

    def __init__(self, inner: httpcore.AsyncNetworkBackend | None = None) -> None:
        """Use asyncio's, through AnyIO, unless told otherwise."""
        self._inner = inner or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect."""
        return _Stream(
            await self._inner.connect_tcp(
                host, port, timeout=timeout, local_address=local_address, socket_options=socket_options
            )
        )

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect."""
        return _Stream(await self._inner.connect_unix_socket(path, timeout=timeout, socket_options=socket_options))

    async def sleep(self, seconds: float) -> None:
        """Wait, before another try to connect."""
        await self._inner.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """Keeps what is written until an answer is read: a client of HTTP/1.1 does so after each whole request."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self._kept = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's signature
        # As httpcore does itself: who closed early may have answered before.
        with contextlib.suppress(httpcore.WriteError):
            await self._send(timeout)
        return await self._inner.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's signature
        self._kept += buffer
        if len(self._kept) > _MOST:
            await self._send(timeout)

    async def aclose(self) -> None:
        self._kept = b""  # nobody waits for its answer
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._inner.start_tls(ssl_context, server_hostname=server_hostname, timeout=timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    async def _send(self, timeout: float | None) -> None:  # noqa: ASYNC109 - httpcore's
        kept, self._kept = self._kept, b""
        if kept:
            await self._inner.write(kept, timeout)
