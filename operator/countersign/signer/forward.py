"""Leg C: the agent's very bytes go to the tool server, with the token and a signature over this request (wire.md 6).

Connections are per CA bundle, redirects are never followed, and only the fields of wire.md 2.2 travel.
"""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import httpcore

from countersign.errors import CountersignError
from countersign.signer.gather import Gathering
from countersign.signer.trust import client_context
from countersign.wire import Message, sign_request, travels

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from countersign.clock import Clock
    from countersign.signer.catalogue import Server
    from countersign.signer.front import Grant
    from countersign.signer.keyring import Identity

__all__ = ["Forwarder", "Unreachable"]

_REPLACED: Final = frozenset({"host", "content-length"})
_TIMEOUT: Final = {"timeout": {"connect": 5.0, "read": 300.0, "write": 30.0, "pool": 5.0}}


class Unreachable(Exception):
    """The tool server gave no answer that can be passed on: no code of wire.md, for nobody refused anything.

    The text is for the agent; what lies behind it is the cause, for the log.
    """


class Forwarder:
    """Opens connections to tool servers and keeps them while they are used."""

    def __init__(self, clock: Clock, *, network: httpcore.AsyncNetworkBackend | None = None) -> None:
        """Start with none. ``network`` is how sockets are opened, for tests."""
        self.clock = clock
        self._network = network
        self._pools: dict[str | None, httpcore.AsyncConnectionPool] = {}

    async def aclose(self) -> None:
        """Close them all."""
        for pool in self._pools.values():
            await pool.aclose()

    @asynccontextmanager
    async def send(
        self, message: Message, server: Server, grant: Grant, identity: Identity
    ) -> AsyncIterator[httpcore.Response]:
        """Send ``message`` to ``server`` under ``grant``; yield the answer, its body still to be streamed.

        Raises:
            Unreachable: no connection, or it broke before the answer ended.
        """
        parts = urlsplit(server.endpoint)
        target = parts.path or "/"
        headers = [("host", parts.netloc), ("authorization", f"Countersign {grant.token}")]
        headers += [(name, value) for name, value in message.headers if travels(name) and name not in _REPLACED]
        headers.append(("content-length", str(len(message.body))))
        signed = await sign_request(
            Message(message.method, target, tuple(headers), message.body),
            identity.key,
            audience=server.audience,
            nonce=grant.jti,
            created=int(self.clock.now().timestamp()),
        )
        url = httpcore.URL(
            scheme=parts.scheme.encode(), host=(parts.hostname or "").encode(), port=parts.port, target=target.encode()
        )
        fields = [(name.encode("ascii"), value.encode("latin-1")) for name, value in signed.headers]
        try:
            async with self._pool(server.ca_bundle).stream(
                signed.method, url, headers=fields, content=signed.body, extensions=_TIMEOUT
            ) as answer:
                yield answer
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            raise Unreachable("The tool server did not answer") from error

    def _pool(self, ca_bundle: str | None) -> httpcore.AsyncConnectionPool:
        pool = self._pools.get(ca_bundle)
        if pool is None:
            try:
                context = client_context(ca_bundle, minimum=ssl.TLSVersion.TLSv1_2)
            except CountersignError as error:
                raise Unreachable("The tool server's CA bundle cannot be read") from error
            pool = httpcore.AsyncConnectionPool(
                ssl_context=context, max_connections=64, keepalive_expiry=30.0, network_backend=Gathering(self._network)
            )
            self._pools[ca_bundle] = pool
        return pool
