"""K, the key of the nonces that replicas with a shared replay store share (wire.md 3.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from countersign.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_nonce_key"]

_MIN_KEY: Final = 32


def read_nonce_key(path: Path) -> bytes:
    """Return K of wire.md 3.3.3, which all replicas share.

    Raises
    ------
    OSError
        If the file cannot be read.
    Unavailable
        ``decide.unavailable`` if it is too short to be a key.

    """
    key = path.read_bytes()
    if len(key) < _MIN_KEY:
        raise Unavailable("decide.unavailable", f"{path} has fewer than {_MIN_KEY} bytes: no key for nonces")
    return key
