"""Which tool servers can be reached, and by which path (wire.md 4.2). Nothing else is reachable through the signer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from countersign.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from countersign.clock import Clock
    from countersign.signer.front import FrontDoor

__all__ = ["Catalogue", "Server"]

_FRESH_SECONDS: Final = 10.0
_LOCAL: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class Server:
    """One entry of the catalogue. ``endpoint`` is where to connect, ``audience`` what tokens and signatures name."""

    name: str
    namespace: str
    audience: str
    endpoint: str
    protocol: str
    enforcement: str
    ca_bundle: str | None
    pinned: Mapping[str, str] = field(default_factory=dict)
    schemas: Mapping[str, Any] = field(default_factory=dict)


class Catalogue:
    """The catalogue as it was at most 10 s ago; asked for again when a path is not in it."""

    def __init__(self, front: FrontDoor, clock: Clock) -> None:
        """Keep where to ask; nothing is asked yet."""
        self._front = front
        self._clock = clock
        self._servers: list[Server] = []
        self._namespace: str | None = None
        self._asked: float | None = None
        self._lock = asyncio.Lock()

    async def find(self, segment: str, instance: str) -> Server | None:
        """Return the server behind ``/<name>`` (the agent's own namespace) or ``/<namespace>.<name>``, or None.

        Raises:
            Refused, Unavailable: the front door does not say.
        """
        namespace, _, name = segment.rpartition(".")
        wanted = (namespace or instance.partition("/")[0], name)
        for server in await self.servers():
            if (server.namespace, server.name) == wanted:
                return server
        return None

    async def servers(self) -> list[Server]:
        """Return what is there now.

        Raises:
            Refused, Unavailable: the front door does not say.
        """
        async with self._lock:
            now = self._clock.monotonic()
            if self._asked is None or now - self._asked > _FRESH_SECONDS:
                self._servers = [_server(one) for one in await self._front.catalogue()]
                self._asked = now
            return self._servers


def _server(entry: dict[str, Any]) -> Server:
    try:
        tools = [one for one in entry["tools"] if isinstance(one, dict)]
        server = Server(
            name=str(entry["name"]),
            namespace=str(entry["namespace"]),
            audience=str(entry["audience"]),
            endpoint=str(entry.get("endpoint") or entry["audience"]),
            protocol=str(entry["protocol"]),
            enforcement=str(entry["enforcement"]),
            ca_bundle=entry.get("ca_bundle") or None,
            pinned={one["name"]: one["definition"] for one in tools if one.get("definition")},
            schemas={one["name"]: _schema(one.get("header_arguments")) for one in tools},
        )
    except (KeyError, TypeError) as error:
        raise Unavailable("decide.unavailable", "the catalogue cannot be read") from error
    parts = urlsplit(server.endpoint)
    host = parts.hostname or ""
    plain = host in _LOCAL or host.endswith((".svc", ".svc.cluster.local"))
    if parts.scheme != "https" and not (parts.scheme == "http" and plain):
        raise Unavailable("decide.unavailable", "the catalogue names an endpoint without TLS")
    return server


def _schema(header_arguments: Any) -> dict[str, Any]:
    """Return a schema that marks what the catalogue says is mirrored in headers: ``{pointer: header name}``."""
    root: dict[str, Any] = {"type": "object", "properties": {}}
    for pointer, header in (header_arguments or {}).items():
        node = root
        for segment in str(pointer).split("/")[1:]:
            key = segment.replace("~1", "/").replace("~0", "~")
            node = node.setdefault("properties", {}).setdefault(key, {})
        node["x-mcp-header"] = header
    return root
