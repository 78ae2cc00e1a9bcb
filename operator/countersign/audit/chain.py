"""Lines and their chain (wire.md 9): RFC 8785 form, one LF, ``{"log","seq","prev"}``; reading a log's files back.

A log is one file, ``<log>.jsonl``, and after it grew over its limit ``<log>.0001.jsonl`` and so on: the chain runs through.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from countersign.audit.record import Certain
from countersign.canonical import CanonicalizationError, canonical, canonical_of_certain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = [
    "NO_PREVIOUS",
    "LogFile",
    "digest",
    "encode",
    "group",
    "line_chain",
    "links",
    "log_name",
    "ours",
    "parse_line",
    "read_log",
    "segment_name",
]

NO_PREVIOUS: Final = "sha256:" + "0" * 64
"""``prev`` of the first line of a log."""


def digest(line: bytes) -> str:
    """Return ``sha256:`` and the digest of a line's exact bytes, without its LF."""
    return "sha256:" + hashlib.sha256(line).hexdigest()


def encode(record: dict[str, Any], *, log: str, seq: int, prev: str) -> bytes:
    """Return the line of ``record`` at its place in the chain, without LF."""
    facts = {**ours(record), "chain": {"log": log, "seq": seq, "prev": prev}}
    write = canonical_of_certain if type(record) is Certain else canonical
    return write({**record, "unmapped": {"countersign": facts}})


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line in RFC 8785 form, or None for bytes that no writer of ours produces."""
    try:
        record = json.loads(line)
        written = canonical(record)
    except (ValueError, RecursionError, CanonicalizationError):
        return None
    return record if isinstance(record, dict) and written == line else None


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


def links(record: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return which logs an opening record follows: ``follows``, and in ``also`` further ones that had ended."""
    facts = ours(record)
    also = facts.get("also")
    found = [facts.get("follows"), *(also if isinstance(also, list) else ())]
    return [link for link in found if isinstance(link, dict) and "log" in link]


@dataclass(frozen=True)
class LogFile:
    """The bytes of one log: complete lines without LF, and what follows the last LF (an unfinished line), if anything."""

    name: str
    lines: tuple[bytes, ...]
    torn: bytes

    @property
    def head(self) -> str | None:
        """The digest of the last complete line."""
        return digest(self.lines[-1]) if self.lines else None


def log_name(path: Path) -> str:
    """Return the log that a file is a part of."""
    return path.name.partition(".")[0]


def segment_name(log: str, number: int) -> str:
    """Return the name of a log's file; ``number`` counts from 0."""
    return f"{log}.{number:04d}.jsonl" if number else f"{log}.jsonl"


def group(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Return the files of each log in the order in which they were written."""
    logs: dict[str, list[Path]] = {}
    for path in paths:
        logs.setdefault(log_name(path), []).append(path)
    return {name: sorted(files, key=_place) for name, files in sorted(logs.items())}


def read_log(files: Sequence[Path]) -> LogFile:
    """Read a log whole, from its files in order."""
    *lines, torn = b"".join(path.read_bytes() for path in files).split(b"\n")
    return LogFile(log_name(files[0]), tuple(lines), torn)


def _place(path: Path) -> tuple[int, str]:
    return (len(path.name), path.name)
