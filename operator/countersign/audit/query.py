"""Find records: who called what, on which device, and what was answered."""

from __future__ import annotations

import heapq
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from countersign.audit.chain import group, ours
from countersign.audit.lines import read_lines
from countersign.audit.verify import log_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = ["Filters", "Row", "query", "record_of", "row_of", "wanted"]

_OWN: Final = ("audit.open", "audit.head")
_APART_MILLISECONDS: Final = 60_000
"""A record is written this long after its time at the latest: many times what a decision may take."""
_HELD_BYTES: Final = 16 << 20


@dataclass(frozen=True)
class Row:
    """A record in the words that people search by; empty where the record says nothing."""

    time: datetime
    answer: str
    code: str
    agent: str
    instance: str
    user: str
    service: str
    operation: str
    tool: str
    device: str
    decision: str
    policy: str
    rule: str
    key_tier: str
    peer: str


@dataclass(frozen=True)
class Filters:
    """What a record must match: each that is given, exactly.

    ``agent`` is a SPIFFE ID, or what it ends in after a ``/``, or the instance (``namespace/name``); ``device`` is name or
    UID; ``code`` is a reason code, or its family with the dot; ``answer`` is ``allow`` or ``deny``; times are aware.
    """

    agent: str | None = None
    user: str | None = None
    tool: str | None = None
    device: str | None = None
    decision: str | None = None
    code: str | None = None
    answer: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def match(self, record: dict[str, Any], row: Row) -> bool:
        """Whether a record matches."""
        devices = {row.device, str(_get(record, "device", "uid") or "")}
        code = self.code or ""
        return (
            (self.agent is None or _is_agent(self.agent, row))
            and self.user in (None, row.user)
            and self.tool in (None, row.tool)
            and (self.device is None or self.device in devices)
            and self.decision in (None, row.decision)
            and (self.code is None or row.code == code or (code.endswith(".") and row.code.startswith(code)))
            and self.answer in (None, row.answer)
            and (self.since is None or row.time >= self.since)
            and (self.until is None or row.time < self.until)
        )


def _is_agent(wanted: str, row: Row) -> bool:
    return wanted in (row.agent, row.instance) or (bool(wanted) and row.agent.endswith(f"/{wanted}"))


def _get(record: dict[str, Any], *path: str) -> Any:
    found: Any = record
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def row_of(record: dict[str, Any]) -> Row:
    """Read a record of any age; what it does not say is empty."""
    facts = ours(record)
    resources = record.get("resources")
    first = resources[0] if isinstance(resources, list) and resources else {}
    time = record.get("time")
    return Row(
        time=datetime.fromtimestamp(time / 1000, UTC) if isinstance(time, int) else datetime.fromtimestamp(0, UTC),
        answer="allow" if record.get("status_id") == 1 else "deny",
        code=str(record.get("status_code") or ""),
        agent=str(_get(record, "actor", "app_name") or ""),
        instance=str(_get(record, "actor", "app_uid") or ""),
        user=str(_get(record, "actor", "user", "name") or ""),
        service=str(_get(record, "api", "service", "name") or ""),
        operation=str(_get(record, "api", "operation") or ""),
        tool=str(_get(first, "name") or ""),
        device=str(_get(record, "device", "name") or ""),
        decision=str(_get(record, "metadata", "uid") or ""),
        policy=str(facts.get("policy") or ""),
        rule=str(facts.get("rule") or ""),
        key_tier=str(facts.get("key_tier") or ""),
        peer=str(_get(record, "src_endpoint", "ip") or ""),
    )


def query(
    paths: Iterable[Path], filters: Filters, told: Callable[[int], None] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the records that match, by time; a line that cannot be read, or is unfinished, is left to ``verify``.

    What the log says of itself (``audit.open``, ``audit.head``) is left out unless a code is asked for. Logs are read a line
    at a time, and each from when it began to be written: what is held is how far records of one moment lie apart in a log, at
    most 16 MiB of it; beyond that a late record comes late. ``told`` is given the number of bytes of each line that is read.
    """
    files, _whole = log_paths(paths)
    logs = sorted((_begun(parts), name, parts) for name, parts in group(files).items())
    open_logs: list[tuple[int, str, int, dict[str, Any], Iterator[_Found]]] = []
    while open_logs or logs:
        while logs and (not open_logs or logs[0][0] <= open_logs[0][0]):
            _begin, name, parts = logs.pop(0)
            _push(open_logs, name, _of_log(parts, filters, told))
        if open_logs:
            _time, name, _place, record, more = heapq.heappop(open_logs)
            yield record
            _push(open_logs, name, more)


_Found = tuple[int, int, dict[str, Any]]
"""Time in milliseconds, place in its log, and the record."""


def _push(
    open_logs: list[tuple[int, str, int, dict[str, Any], Iterator[_Found]]], name: str, more: Iterator[_Found]
) -> None:
    """Put the next record of a log, if there is one, among those of the others."""
    for time, place, record in more:
        heapq.heappush(open_logs, (time, name, place, record, more))
        break


def _begun(files: Sequence[Path]) -> int:
    """Return when a log was begun, by its first record; 0, so before all others, where that cannot be read."""
    line = next(read_lines(files[:1]), None)
    record = None if line is None or line.data is None else record_of(line.data)
    return 0 if record is None else _milliseconds(record)


def _milliseconds(record: dict[str, Any]) -> int:
    time = record.get("time")
    return time if type(time) is int else 0


def _of_log(files: Sequence[Path], filters: Filters, told: Callable[[int], None] | None) -> Iterator[_Found]:
    """Yield the matching records of one log by time: those of one moment were not written in that order."""
    held: list[tuple[int, int, bytes]] = []
    size = newest = 0
    for place, line in enumerate(read_lines(files, told=told)):
        record = None if line.data is None or line.torn else record_of(line.data)
        if record is None or line.data is None:
            continue
        time = _milliseconds(record)
        newest = max(newest, time)
        if wanted(record, filters) and filters.match(record, row_of(record)):
            heapq.heappush(held, (time, place, line.data))
            size += line.size
        while held and (held[0][0] < newest - _APART_MILLISECONDS or size > _HELD_BYTES):
            size -= len(held[0][2])
            yield _read_again(heapq.heappop(held))
    while held:
        yield _read_again(heapq.heappop(held))


def _read_again(found: tuple[int, int, bytes]) -> _Found:
    time, place, data = found
    return time, place, record_of(data) or {}


def wanted(record: dict[str, Any], filters: Filters) -> bool:
    """Tell whether a record is one that people ask for: not what the log says of itself, unless a code is asked for."""
    return filters.code is not None or record.get("status_code") not in _OWN


def record_of(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line; None if there is none to read."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
