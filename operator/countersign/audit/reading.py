"""The newest records that match, of some namespaces, from files that are being written: what answers a person's question.

``python -m countersign.audit.reading`` does it as a process of its own, from JSON on standard input to JSON on standard
output: going through a long log must not take the time of the process that decides calls.
"""

from __future__ import annotations

import heapq
import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from countersign.audit.lines import read_lines
from countersign.audit.query import Filters, record_of, row_of, wanted
from countersign.audit.verify import log_paths

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["namespace_of", "newest"]

_NICE: Final = 10
_SLACK_SECONDS: Final = 5.0


def newest(directory: Path, filters: Filters, namespace: str | None, limit: int) -> tuple[list[dict[str, Any]], bool]:
    """Return the newest ``limit`` records that match, by time, and whether there are older ones.

    With a namespace only the records of calls by its instances; one that names none is of no namespace. Raises OSError.
    """
    found = heapq.nlargest(limit + 1, _matching(directory, filters, namespace), key=lambda one: one[:2])
    return [record for *_order, record in reversed(found[:limit])], len(found) > limit


def namespace_of(record: dict[str, Any]) -> str:
    """Return the namespace of the instance that a record is about; empty if it names none."""
    return row_of(record).instance.partition("/")[0]


def _matching(
    directory: Path, filters: Filters, namespace: str | None
) -> Iterator[tuple[datetime, int, dict[str, Any]]]:
    order = 0
    for path in log_paths([directory])[0]:
        # A file's last record is no younger than its last write: what is older than the question holds nothing for it.
        if filters.since is not None and path.stat().st_mtime + _SLACK_SECONDS < filters.since.timestamp():
            continue
        for line in read_lines([path]):
            record = None if line.data is None or line.torn else record_of(line.data)
            if record is None or not wanted(record, filters):
                continue
            row = row_of(record)
            if filters.match(record, row) and namespace in (None, namespace_of(record)):
                order += 1
                yield row.time, order, record


def _main() -> None:
    os.nice(_NICE)
    asked = json.load(sys.stdin)
    given: dict[str, Any] = asked["filters"]
    given |= {name: datetime.fromisoformat(given[name]) for name in ("since", "until") if name in given}
    filters = Filters(**given)
    records, more = newest(Path(asked["directory"]), filters, asked["namespace"], asked["limit"])
    json.dump({"records": records, "more": more}, sys.stdout, separators=(",", ":"))


if __name__ == "__main__":
    _main()
