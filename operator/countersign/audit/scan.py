"""One pass over the lines of one log: each in its form and its place, and what its end and its heads say (wire.md 9)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from countersign.audit.chain import NO_PREVIOUS, line_chain, ours, parse_line
from countersign.audit.heads import Head, HeadKeys, read_head
from countersign.audit.lines import Line, read_lines
from countersign.errors import CODES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from pathlib import Path

__all__ = ["FAULTS_MAX", "Fault", "LogScan", "digests_of", "scan_lines", "scan_log"]

FAULTS_MAX: Final = 1000
"""Faults that are told of one log; what was never a log is not worth a line for each of its lines."""
_API_ACTIVITY: Final = 6003
_RECENT: Final = 8192
"""Lines whose digests are kept: a head names one of the last lines before it."""


@dataclass(frozen=True)
class Fault:
    """Something is wrong: in which log, at which line (counted from 0; None for the log as a whole), and what."""

    log: str
    line: int | None
    what: str

    def __str__(self) -> str:
        where = self.log if self.line is None else f"{self.log} line {self.line}"
        return f"{where}: {self.what}"


@dataclass
class LogScan:
    """What one pass found. ``head`` is the digest of the last complete line, ``torn`` size and digest of an unfinished one.

    ``heads`` counts the signed heads that are records; ``far_heads`` are those that name a line too long ago to be judged in
    passing. The lines themselves are not kept.
    """

    name: str
    keys: HeadKeys | None = None
    lines: int = 0
    head: str | None = None
    opening: dict[str, Any] | None = None
    torn: dict[str, Any] | None = None
    heads: int = 0
    far_heads: list[Head] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    more_faults: int = 0
    _recent: deque[str] = field(default_factory=lambda: deque(maxlen=_RECENT), repr=False)

    def add(self, line: Line) -> None:
        """Take the next line. After a fault what follows is judged on its own bytes, so that all are found."""
        if line.torn:
            self.torn = {"bytes": line.size, "digest": line.digest}
            return
        record = None if line.data is None else parse_line(line.data)
        what = _line_fault(self.name, self.lines, self.head or NO_PREVIOUS, record)
        if what is not None:
            self._fault(self.lines, what)
        if self.lines == 0:
            self.opening = record
        if record is not None and record.get("status_code") == "audit.head":
            self._signed(str(ours(record).get("head")))
        self.head = line.digest
        self._recent.append(line.digest)
        self.lines += 1

    def close(self) -> None:
        """Take the end."""
        if not self.lines:
            self._fault(None, "no complete line")
        if self.more_faults:
            self.faults.append(Fault(self.name, None, f"{self.more_faults} further faults"))

    def _signed(self, text: str) -> None:
        """Judge a signed head that is the record of this line."""
        self.heads += 1
        try:
            head = read_head(text, self.keys)
        except ValueError as error:
            self._fault(self.lines, f"a head cannot be believed: {error}")
            return
        back = self.lines - head.seq
        if head.log != self.name or back <= 0:
            self._fault(self.lines, "holds a head that is not of the lines before it")
        elif back > len(self._recent):
            self.far_heads.append(head)
        elif self._recent[-back] != head.head:
            self._fault(head.seq, "is not the line that a head names")

    def _fault(self, place: int | None, what: str) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(Fault(self.name, place, what))
        else:
            self.more_faults += 1


def scan_log(
    name: str, files: Sequence[Path], *, keys: HeadKeys | None = None, told: Callable[[int], None] | None = None
) -> LogScan:
    """Read a log once, from its files in order; ``told`` is given the bytes as they are read. Raises OSError."""
    return scan_lines(name, read_lines(files, told=told), keys=keys)


def scan_lines(name: str, lines: Iterable[Line], *, keys: HeadKeys | None = None) -> LogScan:
    """Judge the lines of one log; without ``keys`` no signature is looked at."""
    scan = LogScan(name, keys)
    for line in lines:
        scan.add(line)
    scan.close()
    return scan


def digests_of(files: Sequence[Path], places: Collection[int]) -> dict[int, str]:
    """Return the digests of the complete lines at ``places``, as far as they are there. Raises OSError."""
    found: dict[int, str] = {}
    last = max(places, default=-1)
    if last >= 0:
        for place, line in enumerate(read_lines(files)):
            if place in places and not line.torn:
                found[place] = line.digest
            if place >= last:
                break
    return found


def _line_fault(name: str, place: int, expected: str, record: dict[str, Any] | None) -> str | None:
    chain = None if record is None else line_chain(record)
    if record is None or chain is None:
        return "not a record in RFC 8785 form with its place in the chain"
    if chain["log"] != name:
        return f"belongs to log {chain['log']}"
    if chain["seq"] != place:
        return f"has seq {chain['seq']}: a line is missing, added or moved"
    if chain["prev"] != expected:
        before = "the first line of a log" if place == 0 else f"line {place - 1}, which was edited, or this one was"
        return f"prev does not fit {before}"
    if (record.get("status_code") == "audit.open") != (place == 0):
        return "audit.open is the first line, and only the first"
    return None if _plausible(record) else "contradicts itself: not a record as it was written"


def _plausible(record: dict[str, Any]) -> bool:
    """Whether the fields that are worked out from each other agree."""
    status, activity = record.get("status_id"), record.get("activity_id")
    action = record.get("action_id", status)
    return (
        record.get("status_code") in CODES
        and record.get("class_uid") == _API_ACTIVITY
        and isinstance(activity, int)
        and record.get("type_uid") == 100 * _API_ACTIVITY + activity
        and status in (1, 2)
        and action == status
    )
