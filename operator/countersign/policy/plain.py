"""Values that two readers cannot read differently: plain strings, clean paths, canonical URLs (crds.md 5.5).

Nothing is repaired here: what is not in canonical form is None, and the part that needed it is undecided.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["PORTS", "CanonicalUrl", "is_address", "is_host", "is_plain", "path_segments", "read_url"]

_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_OCTET: Final = re.compile(r"0|[1-9][0-9]{0,2}")
# A host whose last label reads as a number is an address to some readers (WHATWG URL, inet_aton).
_NUMERIC: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_URL: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[a-z0-9.-]+)(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>/[^?]*)?(?:\?(?P<query>.*))?"
)
_UNSAFE: Final = re.compile(r"[^\x21-\x7e]|[#\\]")
PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21}
_HOST_LENGTH: Final = 253
_OCTETS: Final = 4
_OCTET_MAX: Final = 255
_PORT_MAX: Final = 65535


def is_plain(value: Any) -> bool:
    """Whether ``value`` is a string equal to its NFKC form without characters that people cannot see."""
    if not isinstance(value, str):
        return False
    if value.isascii():
        return value.isprintable()
    return unicodedata.normalize("NFKC", value) == value and not any(
        unicodedata.category(character) in _HIDDEN for character in value
    )


def path_segments(value: Any) -> tuple[str, ...] | None:
    """Return the segments of a plain absolute path without empty, ``.`` or ``..`` segment, backslash or ``%``."""
    if not is_plain(value) or not value.startswith("/") or "\\" in value or "%" in value:
        return None
    segments = tuple(value[1:].split("/"))
    return None if any(segment in ("", ".", "..") for segment in segments) else segments


def is_address(host: str) -> bool:
    """Whether ``host`` is a dotted quad without leading zeros."""
    octets = host.split(".")
    return len(octets) == _OCTETS and all(_OCTET.fullmatch(one) and int(one) <= _OCTET_MAX for one in octets)


def is_host(host: str) -> bool:
    """Whether ``host`` is a lower-case DNS name without trailing dot, or a dotted quad, and reads as one thing only."""
    labels = host.split(".")
    if _NUMERIC.fullmatch(labels[-1]):
        return is_address(host)
    return len(host) <= _HOST_LENGTH and all(_LABEL.fullmatch(label) for label in labels)


@dataclass(frozen=True)
class CanonicalUrl:
    """A URL in canonical form. ``port`` is the written one, else the scheme's; ``path`` is empty if there is none."""

    scheme: str
    host: str
    port: int | None
    path: str


def read_url(value: Any) -> CanonicalUrl | None:
    """Return the parts of a canonical URL, or None."""
    if not isinstance(value, str) or _UNSAFE.search(value):
        return None
    match = _URL.fullmatch(value)
    if match is None or not is_host(match["host"]):
        return None
    port = int(match["port"]) if match["port"] else PORTS.get(match["scheme"])
    if port is not None and port > _PORT_MAX:
        return None
    return CanonicalUrl(match["scheme"], match["host"], port, match["path"] or "")
