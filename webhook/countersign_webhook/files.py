"""Files that are replaced while the process runs: serving certificates and client roots."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final, Protocol

import structlog

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Rotating", "TlsFiles", "follow", "mark"]

_FOLLOW_SECONDS: Final = 1.0
_log = structlog.get_logger("countersign.webhook.files")

Mark = tuple[tuple[int, int, int], ...]


class Rotating(Protocol):
    """Something read from files that may change."""

    def refresh(self) -> bool:
        """Read again if the files changed; return whether new content is in use. Raises OSError or ValueError."""


def mark(paths: Sequence[Path]) -> Mark:
    """Return what changes when one of ``paths`` is replaced, also through kubelet's symbolic links."""
    stats = [path.stat() for path in paths]
    return tuple((s.st_mtime_ns, s.st_ino, s.st_size) for s in stats)


class TlsFiles:
    """A TLS 1.3 server context that follows its files.

    With ``client_ca`` no handshake passes without a certificate under it; with ``optional`` one without a certificate does.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None, *, optional: bool = False) -> None:
        """Read the files for the first time; raises OSError (``ssl.SSLError`` included)."""
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._verify = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
        self.context = self._build()
        self._mark = self._now()

    def refresh(self) -> bool:
        """Load changed files into the living context: new handshakes see them, open connections stay.

        The files are tried in a context of their own first, so that half a rotation does not take the key away. A root
        that left ``client_ca`` is believed until the next start: OpenSSL can only add.
        """
        if self._now() == self._mark:
            return False
        read = self._now()
        self._build()
        self.context.load_cert_chain(self._cert, self._key)
        if self._client_ca is not None:
            self.context.load_verify_locations(self._client_ca)
        self._mark = read
        return True

    def _now(self) -> Mark:
        return mark([path for path in (self._cert, self._key, self._client_ca) if path is not None])

    def _build(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(self._cert, self._key)
        if self._client_ca is not None:
            context.load_verify_locations(self._client_ca)
            context.verify_mode = self._verify
        return context


async def follow(files: Sequence[Rotating], *, every: float = _FOLLOW_SECONDS) -> None:
    """Refresh ``files`` for ever; one that cannot be read keeps its old content and is tried again."""
    while True:
        await asyncio.sleep(every)
        for file in files:
            try:
                if file.refresh():
                    _log.info("reloaded", what=type(file).__name__)
            except (OSError, ValueError) as error:
                _log.warning("cannot reload", what=type(file).__name__, error=type(error).__name__)
