"""The issuer's public keys, as fresh as wire.md 5 and 11 want and never older than a day.

Kept 300 s. An unknown ``kid`` fetches again, at most once in 30 s. Where they cannot be fetched, those that are known are
good for 24 h since the last contact; then, and before the first contact, nothing is accepted.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, Final, Protocol

from countersign.errors import CountersignError, Unavailable
from countersign.wire import parse_json, read_jwk, thumbprint

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import ec

    from countersign.clock import Clock
    from countersign.verifier.settings import VerifierSettings

__all__ = ["FileJwks", "HttpJwks", "Jwks", "jwks_of", "read_jwks"]

_FRESH_SECONDS: Final = 300.0
_AGAIN_SECONDS: Final = 30.0
_WITHOUT_CONTACT_SECONDS: Final = 24 * 3600.0
_FETCH_SECONDS: Final = 5.0
_MAX_BYTES: Final = 256 * 1024
_OK: Final = 200


class Source(Protocol):
    """Where the document is."""

    async def fetch(self) -> bytes:
        """Return the document; raises OSError, or what :class:`Jwks` treats alike, if it cannot be had."""


class Unreachable(Exception):
    """The document cannot be had now."""


class FileJwks:
    """A JWKS in a file that somebody else keeps current."""

    def __init__(self, path: Path) -> None:
        """Read ``path`` when asked."""
        self._path = path

    async def fetch(self) -> bytes:
        """Return the file's bytes."""
        return await asyncio.to_thread(self._path.read_bytes)


class HttpJwks:
    """A JWKS at the URL that is configured. No redirect, no proxy of the environment, no compression."""

    def __init__(self, url: str, ca_file: Path | None = None) -> None:
        """Ask ``url``, under the roots of ``ca_file`` or the system's. Raises OSError if the file cannot be read."""
        self._url = url
        self._ca_file = ca_file
        self._context()

    async def fetch(self) -> bytes:
        """Return the document, if it is a 200 and not too long."""
        import httpx  # noqa: PLC0415 - whoever reads a file needs no HTTP client

        headers = {"accept": "application/json", "accept-encoding": "identity"}
        context = await asyncio.to_thread(self._context)
        try:
            async with (
                httpx.AsyncClient(verify=context, trust_env=False, timeout=_FETCH_SECONDS) as client,
                client.stream("GET", self._url, headers=headers) as answer,
            ):
                if answer.status_code != _OK:
                    raise Unreachable(f"status {answer.status_code}")
                body = b""
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > _MAX_BYTES:
                        raise Unreachable("the document is too long")
                return body
        except httpx.HTTPError as error:
            raise Unreachable(type(error).__name__) from error

    def _context(self) -> ssl.SSLContext:
        """Read the roots, at each fetch: the issuer's serving CA rotates while tool servers run."""
        return ssl.create_default_context(cafile=None if self._ca_file is None else str(self._ca_file))


class Jwks:
    """Finds issuer keys by ``kid``."""

    def __init__(self, source: Source, clock: Clock) -> None:
        """Fetch nothing yet."""
        self._source = source
        self._clock = clock
        self._keys: dict[str, ec.EllipticCurvePublicKey] = {}
        self._contact: float | None = None
        self._tried: float | None = None
        self._lock = asyncio.Lock()

    async def find(self, kid: str) -> ec.EllipticCurvePublicKey | None:
        """Return the key, or None if the issuer has none of this name.

        Raises
        ------
        Unavailable
            ``decide.unavailable`` if there was no contact for 24 h, or never.

        """
        # Whoever cannot do without waits for a fetch that is under way; whoever can does not.
        usable, under_way = kid in self._keys and self._current(), self._lock.locked()
        if (under_way and not usable) or (not under_way and self._wanting(kid)):
            async with self._lock:
                if self._wanting(kid):  # another request may have asked meanwhile
                    await self._fetch()
        if not self._current():
            raise Unavailable("decide.unavailable", "the issuer's keys cannot be had", retry_after=1)
        return self._keys.get(kid)

    def _wanting(self, kid: str) -> bool:
        """Tell whether to ask now: something is missing or old, and the last attempt is long enough ago."""
        if self._tried is not None and self._age(self._tried) < _AGAIN_SECONDS:
            return False
        return self._contact is None or kid not in self._keys or self._age(self._contact) >= _FRESH_SECONDS

    def _current(self) -> bool:
        return self._contact is not None and self._age(self._contact) < _WITHOUT_CONTACT_SECONDS

    def _age(self, since: float) -> float:
        return self._clock.monotonic() - since

    async def _fetch(self) -> None:
        self._tried = self._clock.monotonic()
        try:
            async with asyncio.timeout(_FETCH_SECONDS):
                keys = read_jwks(await self._source.fetch())
        except (OSError, TimeoutError, Unreachable, CountersignError):
            return
        self._keys, self._contact = keys, self._clock.monotonic()


def read_jwks(data: bytes) -> dict[str, ec.EllipticCurvePublicKey]:
    """Return the usable keys of a JWKS by ``kid``: public, P-256, for ES256 signatures, named by their thumbprint.

    Other entries are left alone, so that an issuer may publish what this version does not know. Raises Unreachable for
    what is no JWKS at all.
    """
    entries = parse_json(data, max_bytes=_MAX_BYTES).get("keys")
    if not isinstance(entries, list):
        raise Unreachable("not a JWKS")
    found: dict[str, ec.EllipticCurvePublicKey] = {}
    for entry in entries:
        key = _usable(entry)
        if key is not None:
            found[thumbprint(key)] = key
    return found


def _usable(entry: Any) -> ec.EllipticCurvePublicKey | None:
    if not isinstance(entry, dict) or entry.get("alg") != "ES256" or entry.get("use", "sig") != "sig":
        return None
    try:
        key = read_jwk(entry)
    except ValueError:
        return None
    return key if entry.get("kid") == thumbprint(key) else None


def jwks_of(settings: VerifierSettings, clock: Clock) -> Jwks:
    """Return the keys that ``settings`` name."""
    if settings.jwks_file is not None:
        return Jwks(FileJwks(settings.jwks_file), clock)
    assert settings.jwks_url is not None
    return Jwks(HttpJwks(settings.jwks_url, settings.ca_file), clock)
