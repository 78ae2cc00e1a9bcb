"""Is every record still there, unchanged and in its place? Chain in each log, links between logs, heads (wire.md 9, E1).

What no later line vouches for is said, not hidden: the last line of a log that nothing follows is held by its own form only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from countersign.audit.chain import (
    NO_PREVIOUS,
    LogFile,
    digest,
    group,
    line_chain,
    links,
    ours,
    parse_line,
    read_log,
)
from countersign.audit.heads import Head, HeadKeys, read_head
from countersign.errors import CODES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = ["Fault", "LogReport", "VerifyReport", "log_paths", "verify_lines", "verify_log"]


@dataclass(frozen=True)
class Fault:
    """Something is wrong: in which log, at which line (counted from 0; None for the log as a whole), and what."""

    log: str
    line: int | None
    what: str

    def __str__(self) -> str:
        where = self.log if self.line is None else f"{self.log} line {self.line}"
        return f"{where}: {self.what}"


@dataclass(frozen=True)
class LogReport:
    """One log as it was found. ``head`` is the digest of its last complete line."""

    log: str
    records: int
    head: str | None
    follows: str | None


@dataclass(frozen=True)
class VerifyReport:
    """The result: ``ok`` if there is no fault. ``notes`` are true things that a reader must know all the same."""

    logs: tuple[LogReport, ...]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    @property
    def records(self) -> int:
        """How many records there are."""
        return sum(log.records for log in self.logs)


def log_paths(paths: Iterable[Path]) -> tuple[list[Path], bool]:
    """Return the log files of files and directories, and whether whole directories were given (then no log may lack)."""
    found: list[Path] = []
    whole = True
    for path in paths:
        if path.is_dir():
            found.extend(one for files in group(path.glob("*.jsonl")).values() for one in files)
        else:
            whole = False
            found.append(path)
    return list(dict.fromkeys(found)), whole


def verify_log(paths: Iterable[Path], *, heads: Iterable[str] = (), keys: HeadKeys | None = None) -> VerifyReport:
    """Verify log files, or all logs of directories, and that each signed head still has its lines.

    ``heads`` are those kept outside the logs; those inside are always looked at. Without ``keys`` no signature is checked.

    Raises
    ------
    OSError
        If a file cannot be read.

    """
    found, whole = log_paths(paths)
    logs = {name: read_log(files) for name, files in group(found).items()}
    faults = [fault for log in logs.values() for fault in verify_lines(log.name, log.lines)]
    notes: list[str] = []
    opened = {name: _opening(log) for name, log in logs.items()}
    follows = {name: links(record) for name, record in opened.items()}
    followers = _followers(follows, faults)
    for name, found_links in follows.items():
        for link in found_links:
            _verify_link(name, link, logs, whole=whole, faults=faults, notes=notes)
    for name, log in logs.items():
        if name not in followers:
            _verify_end(log, faults, notes)
            faults += _passed_over(name, opened) if whole else []
    _verify_heads(logs, heads, keys, whole=whole, faults=faults, notes=notes)
    return VerifyReport(
        logs=tuple(
            LogReport(name, len(log.lines), log.head, next((str(link["log"]) for link in follows[name]), None))
            for name, log in logs.items()
        ),
        faults=tuple(faults),
        notes=tuple(notes),
    )


def verify_lines(name: str, lines: Sequence[bytes]) -> list[Fault]:
    """Return the faults of one log's lines; after the first, what follows is judged on its own bytes, so that all are found."""
    faults: list[Fault] = []
    expected = NO_PREVIOUS
    for place, line in enumerate(lines):
        what = _line_fault(name, place, expected, line)
        if what is not None:
            faults.append(Fault(name, place, what))
        expected = digest(line)
    if not lines:
        faults.append(Fault(name, None, "no complete line"))
    return faults


def _line_fault(name: str, place: int, expected: str, line: bytes) -> str | None:
    record = parse_line(line)
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
        and record.get("class_uid") == 6003  # noqa: PLR2004 - OCSF's number of API Activity
        and isinstance(activity, int)
        and record.get("type_uid") == 600300 + activity
        and status in (1, 2)
        and action == status
    )


def _opening(log: LogFile) -> dict[str, Any] | None:
    return parse_line(log.lines[0]) if log.lines else None


def _followers(follows: dict[str, list[dict[str, Any]]], faults: list[Fault]) -> dict[str, str]:
    """Return which log follows which; a log that two follow is a fork."""
    followers: dict[str, str] = {}
    for name, found in follows.items():
        for before in (str(link["log"]) for link in found):
            if before in followers:
                faults.append(Fault(name, 0, f"follows {before}, as {followers[before]} does"))
            followers[before] = name
    return followers


def _passed_over(name: str, opened: dict[str, dict[str, Any] | None]) -> list[Fault]:
    """Return a fault if a log that nothing follows and another one lay here together and neither knows of the other.

    A log that begins names those that ended and those still written, so it knows of all that lay there, by these links.
    """
    known = {one: _known_by(one, opened) for one in opened}
    for other, record in opened.items():
        strangers = other != name and name not in known[other] and other not in known[name]
        if strangers and isinstance(ours(record).get("beside"), list):
            return [Fault(name, None, f"{other} has no link to it")]
    return []


def _known_by(name: str, opened: dict[str, dict[str, Any] | None]) -> set[str]:
    known: set[str] = set()
    ask = [name]
    while ask:
        record = opened.get(ask.pop())
        beside = ours(record).get("beside")
        names = [str(link["log"]) for link in links(record)]
        names += [str(one) for one in beside] if isinstance(beside, list) else []
        fresh = [one for one in names if one not in known]
        known.update(fresh)
        ask += fresh
    return known


def _verify_heads(
    logs: dict[str, LogFile],
    outside: Iterable[str],
    keys: HeadKeys | None,
    *,
    whole: bool,
    faults: list[Fault],
    notes: list[str],
) -> None:
    inside = [(name, place, text) for name, log in logs.items() for place, text in _heads_of(log)]
    for name, place, text in inside:
        head = _read(text, keys, name, place, faults)
        if head is not None and (head.log != name or head.seq >= place):
            faults.append(Fault(name, place, "holds a head that is not of the lines before it"))
        elif head is not None:
            faults += _head_faults(head, logs[name])
    kept = [_read(text, keys, "heads", None, faults) for text in outside]
    for head in (one for one in kept if one is not None):
        if head.log in logs:
            faults += _head_faults(head, logs[head.log])
        elif whole:
            faults.append(Fault(head.log, None, f"is missing: a head names its line {head.seq}"))
        else:
            notes.append(f"a head names line {head.seq} of {head.log}, which was not given")
    if keys is None and (inside or kept):
        notes.append(f"the signatures of {len(inside) + len(kept)} heads were not checked: no keys were given")


def _heads_of(log: LogFile) -> Iterator[tuple[int, str]]:
    """Yield place and text of each signed head that is a record; a line is read only if it may be one, as few are."""
    for place, line in enumerate(log.lines):
        record = parse_line(line) if b'"audit.head"' in line else None
        if record is not None and record.get("status_code") == "audit.head":
            yield place, str(ours(record).get("head"))


def _read(text: str, keys: HeadKeys | None, log: str, place: int | None, faults: list[Fault]) -> Head | None:
    try:
        return read_head(text, keys)
    except ValueError as error:
        faults.append(Fault(log, place, f"a head cannot be believed: {error}"))
        return None


def _head_faults(head: Head, log: LogFile) -> list[Fault]:
    if head.seq >= len(log.lines):
        return [Fault(log.name, None, f"a head names its line {head.seq}, and it has {len(log.lines)} lines")]
    if digest(log.lines[head.seq]) != head.head:
        return [Fault(log.name, head.seq, "is not the line that a head names")]
    return []


def _verify_link(
    name: str,
    link: dict[str, Any],
    logs: dict[str, LogFile],
    *,
    whole: bool,
    faults: list[Fault],
    notes: list[str],
) -> None:
    """Verify that the log before ended exactly where ``name`` says: same head, same number of lines, same torn bytes."""
    before = logs.get(str(link.get("log")))
    if before is None:
        if whole:
            faults.append(Fault(name, 0, f"follows {link.get('log')}, which is missing"))
        else:
            notes.append(f"{name} follows {link.get('log')}, which was not given")
        return
    if link.get("seq") != len(before.lines) - 1 or link.get("head") != (before.head or NO_PREVIOUS):
        faults.append(
            Fault(before.name, len(before.lines) - 1, f"is not the end that {name} saw: seq {link.get('seq')}")
        )
    torn = {"bytes": len(before.torn), "digest": digest(before.torn)} if before.torn else None
    if link.get("torn") != torn:
        faults.append(Fault(before.name, len(before.lines), f"its unfinished end is not the one that {name} saw"))
    elif torn is not None:
        notes.append(f"{before.name} ends in an unfinished line of {torn['bytes']} bytes, as {name} says")


def _verify_end(log: LogFile, faults: list[Fault], notes: list[str]) -> None:
    """Say what holds the end of a log that no other follows."""
    if log.torn:
        what = f"an unfinished line of {len(log.torn)} bytes that no later log accounts for"
        faults.append(Fault(log.name, len(log.lines), what))
    elif log.lines:
        notes.append(f"nothing after line {len(log.lines) - 1} of {log.name} vouches for it yet")
