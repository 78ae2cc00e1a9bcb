"""Find records: who called what, on which device, and what was answered."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from countersign.audit.chain import log_name, ours
from countersign.audit.verify import log_paths

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["Filters", "Row", "query", "record_of", "row_of", "wanted"]

_OWN: Final = ("audit.open", "audit.head")


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


def query(paths: Iterable[Path], filters: Filters) -> Iterator[dict[str, Any]]:
    """Yield the records that match, by time, then log and place; a line that cannot be read is left to ``verify``.

    What the log says of itself (``audit.open``, ``audit.head``) is left out unless a code is asked for.
    """
    files, _whole = log_paths(paths)
    found: list[tuple[int, str, int, int, dict[str, Any]]] = []
    for path in files:
        with path.open("rb") as lines:
            for place, line in enumerate(lines):
                record = record_of(line)
                if record is None or not wanted(record, filters):
                    continue
                row = row_of(record)
                if filters.match(record, row):
                    found.append((int(row.time.timestamp() * 1000), *_file_order(path), place, record))
    yield from (record for *_order, record in sorted(found, key=lambda entry: entry[:4]))


def wanted(record: dict[str, Any], filters: Filters) -> bool:
    """Tell whether a record is one that people ask for: not what the log says of itself, unless a code is asked for."""
    return filters.code is not None or record.get("status_code") not in _OWN


def _file_order(path: Path) -> tuple[str, int]:
    return log_name(path), len(path.name)


def record_of(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line; None if there is none to read."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
