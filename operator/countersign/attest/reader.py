"""How are TPM structures read? Big-endian, to the last byte, and never past it."""

from __future__ import annotations

from typing import Final

from countersign.errors import Denied

__all__ = ["Reader", "tpm2b", "u16", "u32", "u64"]

MAX_BUFFER: Final = 2048
"""The longest TPM2B of any structure read here; a TPM's own buffers are shorter."""


class Reader:
    """A cursor over bytes that refuses with ``code`` instead of reading what is not there."""

    def __init__(self, data: bytes, *, code: str) -> None:
        """Start at the first byte of ``data``."""
        self._data = data
        self._at = 0
        self._code = code

    def fail(self, detail: str) -> Denied:
        """Return the refusal to raise."""
        return Denied(self._code, detail)

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        end = self._at + count
        if end > len(self._data):
            raise self.fail(f"ends after {len(self._data)} bytes, {end} wanted")
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def u8(self) -> int:
        """Return the next byte."""
        return self.take(1)[0]

    def u16(self) -> int:
        """Return the next UINT16."""
        return int.from_bytes(self.take(2))

    def u32(self) -> int:
        """Return the next UINT32."""
        return int.from_bytes(self.take(4))

    def u64(self) -> int:
        """Return the next UINT64."""
        return int.from_bytes(self.take(8))

    def tpm2b(self, limit: int = MAX_BUFFER) -> bytes:
        """Return the next sized buffer, at most ``limit`` bytes."""
        size = self.u16()
        if size > limit:
            raise self.fail(f"a buffer of {size} bytes, at most {limit} fit")
        return self.take(size)

    def end(self) -> None:
        """Refuse bytes after the structure."""
        if self._at != len(self._data):
            raise self.fail(f"{len(self._data) - self._at} bytes after the structure")


def u16(value: int) -> bytes:
    """Return ``value`` as UINT16."""
    return value.to_bytes(2)


def u32(value: int) -> bytes:
    """Return ``value`` as UINT32."""
    return value.to_bytes(4)


def u64(value: int) -> bytes:
    """Return ``value`` as UINT64."""
    return value.to_bytes(8)


def tpm2b(data: bytes) -> bytes:
    """Return ``data`` with its UINT16 size in front."""
    return u16(len(data)) + data
