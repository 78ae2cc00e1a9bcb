"""How does the signer reach the front door? By the URL and the CA that the trust files name now, over TLS, no redirect."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import httpcore

from countersign.errors import CountersignError, Unavailable
from countersign.signer.gather import Gathering
from countersign.signer.trust import Trust, client_context, read_trust, tls_fault

if TYPE_CHECKING:
    from pathlib import Path

    from countersign.clock import Clock
    from countersign.wire import Message

__all__ = ["Answer", "Door"]

_MAX_ANSWER: Final = 4 * 1024 * 1024
_TRUST_SECONDS: Final = 10.0
"""How long the trust files are believed before they are read again: the serving CA rotates while signers run."""
_TIMEOUT: Final = {"timeout": {"connect": 5.0, "read": 15.0, "write": 5.0, "pool": 5.0}}


@dataclass(frozen=True)
class Answer:
    """A whole answer; names in ``headers`` are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)


class Door:
    """Connections to the front door; when its URL or CA changes they are made anew."""

    def __init__(self, trust_dir: Path, clock: Clock, *, network: httpcore.AsyncNetworkBackend | None = None) -> None:
        """Keep where the trust files are; nothing is read yet. ``network`` is how sockets are opened, for tests."""
        self._trust_dir = trust_dir
        self._clock = clock
        self._network = network
        self._trust: Trust | None = None
        self._read_at = 0.0
        self._http: httpcore.AsyncConnectionPool | None = None
        self._old: list[httpcore.AsyncConnectionPool] = []

    async def aclose(self) -> None:
        """Close the connections."""
        for pool in (*self._old, *([self._http] if self._http else [])):
            await pool.aclose()

    def issuer(self) -> str:
        """Return the front door's URL, which is the issuer (wire.md 1.4).

        Raises:
            Unavailable: ``decide.unavailable``, as long as the trust files were never readable.
        """
        return self._current()[0].webhook_url

    async def send(self, message: Message) -> Answer:
        """Send ``message``; a ``host`` field of its own is replaced.

        Raises:
            Unavailable: ``decide.unavailable``, no answer, or one that is too long.
        """
        trust, http = self._current()
        origin = httpcore.URL(trust.webhook_url)
        url = httpcore.URL(
            scheme=origin.scheme, host=origin.host, port=origin.port, target=message.target.encode("ascii")
        )
        headers = [(b"host", origin.host + (b":%d" % origin.port if origin.port else b""))]
        headers += [(name.encode(), value.encode("latin-1")) for name, value in message.headers if name != "host"]
        try:
            async with http.stream(
                message.method, url, headers=headers, content=message.body, extensions=_TIMEOUT
            ) as answer:
                body = await _bounded(answer)
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            self._read_at = float("-inf")  # perhaps it moved, or its CA changed: the next request looks
            detail = f"the front door did not answer ({type(error).__name__}){tls_fault(error)}"
            raise Unavailable("decide.unavailable", detail) from error
        fields = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
        return Answer(answer.status, fields, body)

    def _current(self) -> tuple[Trust, httpcore.AsyncConnectionPool]:
        now = self._clock.monotonic()
        if self._trust is None or self._http is None or now - self._read_at > _TRUST_SECONDS:
            self._refresh()
            self._read_at = now
        assert self._trust is not None
        assert self._http is not None
        return self._trust, self._http

    def _refresh(self) -> None:
        """Read the trust files; what was believed stays while they cannot be read."""
        try:
            trust = read_trust(self._trust_dir)
            if self._http is not None and trust == self._trust:
                return
            context = client_context(trust.ca)
        except CountersignError as error:
            if self._http is not None:
                return
            raise Unavailable("decide.unavailable", error.detail) from error
        if self._http is not None:
            self._old.append(self._http)  # calls may still be under way there
        self._trust = trust
        self._http = httpcore.AsyncConnectionPool(
            ssl_context=context, max_connections=32, keepalive_expiry=30.0, network_backend=Gathering(self._network)
        )


async def _bounded(answer: httpcore.Response) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in answer.aiter_stream():
        size += len(part)
        if size > _MAX_ANSWER:
            raise Unavailable("decide.unavailable", "the front door's answer is too long")
        parts.append(part)
    return b"".join(parts)
