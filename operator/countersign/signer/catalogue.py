"""Which tool servers can be reached, and by which path (wire.md 4.2). Nothing else is reachable through the signer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from countersign.clock import Clock
    from countersign.signer.front import FrontDoor

__all__ = ["Catalogue", "Server"]

_FRESH_SECONDS: Final = 10.0
_AGAIN_SECONDS: Final = 1.0
"""A path that is not there makes the signer ask again, but not more often than this."""
_LOCAL: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_log = structlog.get_logger("signer")


@dataclass(frozen=True)
class Server:
    """One entry of the catalogue. ``endpoint`` is where to connect, ``audience`` what tokens and signatures name.

    ``pinned`` has the definition digest of each tool that has one, ``schemas`` for each tool a JSON Schema that marks
    which arguments are mirrored in headers.
    """

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
    """The catalogue as it was at most 10 s ago; asked for again, once a second at most, when a path is not in it."""

    def __init__(self, front: FrontDoor, clock: Clock) -> None:
        """Keep where to ask; nothing is asked yet."""
        self._front = front
        self._clock = clock
        self._servers: list[Server] = []
        self._asked: float | None = None
        self._lock = asyncio.Lock()

    async def find(self, segment: str, instance: str) -> Server | None:
        """Return the server behind ``/<name>`` (the agent's own namespace) or ``/<namespace>.<name>``, or None.

        Raises:
            Refused, Unavailable: the front door does not say.
        """
        namespace, dot, name = segment.partition(".")  # a namespace has no dot
        wanted = (namespace, name) if dot else (instance.partition("/")[0], segment)
        found = _named(await self.servers(), wanted)
        return found or _named(await self.servers(max_age=_AGAIN_SECONDS), wanted)

    async def servers(self, *, max_age: float = _FRESH_SECONDS) -> list[Server]:
        """Return what was there at most ``max_age`` seconds ago.

        Raises:
            Refused, Unavailable: the front door does not say.
        """
        async with self._lock:
            now = self._clock.monotonic()
            if self._asked is None or now - self._asked > max_age:
                self._servers = [one for entry in await self._front.catalogue() if (one := _server(entry)) is not None]
                self._asked = now
            return self._servers


def _named(servers: list[Server], wanted: tuple[str, str]) -> Server | None:
    return next((one for one in servers if (one.namespace, one.name) == wanted), None)


def _server(entry: dict[str, Any]) -> Server | None:
    """Read one entry; what cannot be read is left out, so that one team's server does not hide another's."""
    try:
        server = _read(entry)
        _check_endpoint(server.endpoint)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        _log.warning("catalogue.entry", name=str(entry.get("name"))[:64], reason=str(error)[:128])
        return None
    return server


def _read(entry: dict[str, Any]) -> Server:
    tools = entry["tools"]
    return Server(
        name=_text(entry["name"]),
        namespace=_text(entry["namespace"]),
        audience=_text(entry["audience"]),
        endpoint=_text(entry.get("endpoint") or entry["audience"]),
        protocol=_text(entry["protocol"]),
        enforcement=_text(entry["enforcement"]),
        ca_bundle=_text(entry["ca_bundle"]) if entry.get("ca_bundle") else None,
        pinned={_text(one["name"]): _text(one["definition"]) for one in tools if one.get("definition")},
        schemas={_text(one["name"]): _schema(one.get("header_arguments") or {}) for one in tools},
    )


def _check_endpoint(endpoint: str) -> None:
    """Refuse where no call may go: without TLS only loopback and a cluster's Service; nothing beside the path (D19)."""
    parts = urlsplit(endpoint)
    host, _port = parts.hostname or "", parts.port
    plain = host in _LOCAL or host.endswith((".svc", ".svc.cluster.local"))
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and plain)):
        msg = "an endpoint without TLS"
        raise ValueError(msg)
    if parts.query or parts.fragment or "@" in parts.netloc or not endpoint.isascii():
        msg = "an endpoint with more than host and path"
        raise ValueError(msg)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        msg = "a member is no text"
        raise TypeError(msg)
    return value


def _schema(header_arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema that marks what the catalogue says is mirrored in headers: ``{pointer: header name}``."""
    root: dict[str, Any] = {"type": "object", "properties": {}}
    for pointer, header in header_arguments.items():
        node = root
        for segment in str(pointer).split("/")[1:]:
            key = segment.replace("~1", "/").replace("~0", "~")
            node = node.setdefault("properties", {}).setdefault(key, {})
        node["x-mcp-header"] = header
    return root
