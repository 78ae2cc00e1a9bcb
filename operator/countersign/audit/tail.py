"""New records as they are written: over all files of some directories, also those that begin meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from countersign.audit.query import Filters, record_of, row_of, wanted
from countersign.audit.verify import log_paths

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Tail"]


class Tail:
    """Remembers how far each file was read."""

    def __init__(self, paths: Sequence[Path], filters: Filters) -> None:
        """Read nothing yet."""
        self._paths, self._filters = paths, filters
        self._read: dict[Path, int] = {}

    def new(self) -> list[dict[str, Any]]:
        """Return the matching records whose lines were completed since the last time, by time. Raises OSError."""
        found = [record for path in log_paths(self._paths)[0] for record in self._of(path)]
        return sorted(found, key=lambda record: row_of(record).time)

    def _of(self, path: Path) -> list[dict[str, Any]]:
        with path.open("rb") as file:
            file.seek(self._read.get(path, 0))
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._read[path] = self._read.get(path, 0) + whole
        records = (record_of(line) for line in data[:whole].splitlines())
        return [
            one
            for one in records
            if one is not None and wanted(one, self._filters) and self._filters.match(one, row_of(one))
        ]
