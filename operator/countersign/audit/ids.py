"""Decision ids: UUIDv7 (RFC 9562), so that records sort by time."""

from __future__ import annotations

import secrets
import time
import uuid

__all__ = ["new_decision_id"]


def new_decision_id() -> str:
    """Return a new UUIDv7: 48 bits of milliseconds since 1970, 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & ((1 << 48) - 1)) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62))
