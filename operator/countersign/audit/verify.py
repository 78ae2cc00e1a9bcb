"""Is every record still there, unchanged and in its place? Chain in each log, links between logs, heads (wire.md 9, E1).

What no later line vouches for is said, not hidden: the last line of a log that nothing follows is held by its own form only.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from countersign.audit.chain import NO_PREVIOUS, group, links, ours
from countersign.audit.heads import Head, HeadKeys, read_head
from countersign.audit.scan import Fault, LogScan, digests_of, scan_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    Told = Callable[[int], None]
    Logs = dict[str, LogScan]

__all__ = ["Fault", "LogReport", "VerifyReport", "log_paths", "verify_log"]


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


def verify_log(
    paths: Iterable[Path], *, heads: Iterable[str] = (), keys: HeadKeys | None = None, told: Told | None = None
) -> VerifyReport:
    """Verify log files, or all logs of directories, and that each signed head still has its lines.

    ``heads`` are those kept outside the logs; those inside are always looked at. Without ``keys`` no signature is checked.
    A log is read a line at a time, however large; ``told`` is given the number of bytes of each.

    Raises
    ------
    OSError
        If a file cannot be read.

    """
    found, whole = log_paths(paths)
    files = group(found)
    logs = {name: scan_log(name, parts, keys=keys, told=told) for name, parts in files.items()}
    faults = [fault for log in logs.values() for fault in log.faults]
    notes: list[str] = []
    opened = {name: log.opening for name, log in logs.items()}
    follows = {name: links(record) for name, record in opened.items()}
    followers = _followers(follows, faults)
    for name, found_links in follows.items():
        for link in found_links:
            _verify_link(name, link, logs, whole=whole, faults=faults, notes=notes)
    for name, log in logs.items():
        if name not in followers:
            _verify_end(log, faults, notes)
            faults += _passed_over(name, opened) if whole else []
    named = _named_heads(logs, heads, keys, whole=whole, faults=faults, notes=notes)
    for name, of_log in named.items():
        digests = digests_of(files[name], {head.seq for head in of_log})
        faults += [fault for head in of_log for fault in _head_faults(head, logs[name], digests)]
    return VerifyReport(
        logs=tuple(
            LogReport(name, log.lines, log.head, next((str(link["log"]) for link in follows[name]), None))
            for name, log in logs.items()
        ),
        faults=tuple(faults),
        notes=tuple(notes),
    )


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


def _named_heads(
    logs: Logs,
    outside: Iterable[str],
    keys: HeadKeys | None,
    *,
    whole: bool,
    faults: list[Fault],
    notes: list[str],
) -> dict[str, list[Head]]:
    """Return the heads that can be believed and were not judged yet, by the log whose line each names."""
    named = defaultdict(list, {name: list(log.far_heads) for name, log in logs.items() if log.far_heads})
    kept = [_read(text, keys, faults) for text in outside]
    for head in (one for one in kept if one is not None):
        if head.log in logs:
            named[head.log].append(head)
        elif whole:
            faults.append(Fault(head.log, None, f"is missing: a head names its line {head.seq}"))
        else:
            notes.append(f"a head names line {head.seq} of {head.log}, which was not given")
    count = sum(log.heads for log in logs.values()) + len(kept)
    if keys is None and count:
        notes.append(f"the signatures of {count} heads were not checked: no keys were given")
    return named


def _read(text: str, keys: HeadKeys | None, faults: list[Fault]) -> Head | None:
    try:
        return read_head(text, keys)
    except ValueError as error:
        faults.append(Fault("heads", None, f"a head cannot be believed: {error}"))
        return None


def _head_faults(head: Head, log: LogScan, digests: dict[int, str]) -> list[Fault]:
    if head.seq >= log.lines:
        return [Fault(log.name, None, f"a head names its line {head.seq}, and it has {log.lines} lines")]
    if digests.get(head.seq) != head.head:
        return [Fault(log.name, head.seq, "is not the line that a head names")]
    return []


def _verify_link(
    name: str, link: dict[str, Any], logs: Logs, *, whole: bool, faults: list[Fault], notes: list[str]
) -> None:
    """Verify that the log before ended exactly where ``name`` says: same head, same number of lines, same torn bytes."""
    before = logs.get(str(link.get("log")))
    if before is None:
        if whole:
            faults.append(Fault(name, 0, f"follows {link.get('log')}, which is missing"))
        else:
            notes.append(f"{name} follows {link.get('log')}, which was not given")
        return
    if link.get("seq") != before.lines - 1 or link.get("head") != (before.head or NO_PREVIOUS):
        faults.append(Fault(before.name, before.lines - 1, f"is not the end that {name} saw: seq {link.get('seq')}"))
    if link.get("torn") != before.torn:
        faults.append(Fault(before.name, before.lines, f"its unfinished end is not the one that {name} saw"))
    elif before.torn is not None:
        notes.append(f"{before.name} ends in an unfinished line of {before.torn['bytes']} bytes, as {name} says")


def _verify_end(log: LogScan, faults: list[Fault], notes: list[str]) -> None:
    """Say what holds the end of a log that no other follows."""
    if log.torn:
        what = f"an unfinished line of {log.torn['bytes']} bytes that no later log accounts for"
        faults.append(Fault(log.name, log.lines, what))
    elif log.lines:
        notes.append(f"nothing after line {log.lines - 1} of {log.name} vouches for it yet")
