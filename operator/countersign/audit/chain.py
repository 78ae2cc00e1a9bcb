"""Lines and their chain (wire.md 9): RFC 8785 form, one LF, ``{"log","seq","prev"}``; reading a log file back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import rfc8785

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NO_PREVIOUS", "LogFile", "digest", "encode", "line_chain", "ours", "parse_line", "read_log"]

NO_PREVIOUS: Final = "sha256:" + "0" * 64
"""``prev`` of the first line of a log."""


def digest(line: bytes) -> str:
    """Return ``sha256:`` and the digest of a line's exact bytes, without its LF."""
    return "sha256:" + hashlib.sha256(line).hexdigest()


def encode(record: dict[str, Any], *, log: str, seq: int, prev: str) -> bytes:
    """Return the line of ``record`` at its place in the chain, without LF."""
    facts = {**ours(record), "chain": {"log": log, "seq": seq, "prev": prev}}
    line: bytes = rfc8785.dumps({**record, "unmapped": {"countersign": facts}})
    return line


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line in RFC 8785 form, or None for bytes that no writer of ours produces."""
    try:
        record = json.loads(line)
        canonical = rfc8785.dumps(record)
    except (ValueError, RecursionError, rfc8785.CanonicalizationError):
        return None
    return record if isinstance(record, dict) and canonical == line else None


def ours(record: dict[str, Any] | None) -> dict[str, Any]:
    """Return ``unmapped.countersign`` of a record; empty if it has none."""
    unmapped = (record or {}).get("unmapped")
    found = unmapped.get("countersign") if isinstance(unmapped, dict) else None
    return found if isinstance(found, dict) else {}


def line_chain(record: dict[str, Any]) -> dict[str, Any] | None:
    """Return ``unmapped.countersign.chain`` of a record if it has the form of one."""
    chain = ours(record).get("chain")
    if not isinstance(chain, dict) or set(chain) != {"log", "seq", "prev"}:
        return None
    well_typed = isinstance(chain["log"], str) and type(chain["seq"]) is int and isinstance(chain["prev"], str)
    return chain if well_typed else None


@dataclass(frozen=True)
class LogFile:
    """The bytes of one log: complete lines without LF, and what follows the last LF (an unfinished line), if anything."""

    path: Path
    lines: tuple[bytes, ...]
    torn: bytes

    @property
    def name(self) -> str:
        """The log's name, which is its file's."""
        return self.path.stem

    @property
    def head(self) -> str | None:
        """The digest of the last complete line."""
        return digest(self.lines[-1]) if self.lines else None


def read_log(path: Path) -> LogFile:
    """Read a log file whole."""
    *lines, torn = path.read_bytes().split(b"\n")
    return LogFile(path, tuple(lines), torn)
