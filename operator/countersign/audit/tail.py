"""New records as they are written: over all files of some directories, also those that begin meanwhile."""

from __future__ import annotations

import heapq
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from countersign.audit.chain import group
from countersign.audit.lines import read_back, read_lines, whole_size
from countersign.audit.query import Filters, record_of, row_of, wanted
from countersign.audit.verify import log_paths

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = ["LINES_MAX", "Tail"]

LINES_MAX: Final = 10_000
"""Lines that are read before what was found in them is given out."""


class Tail:
    """Remembers how far each file was read."""

    def __init__(self, paths: Sequence[Path], filters: Filters) -> None:
        """Read nothing yet."""
        self._paths, self._filters = paths, filters
        self._read: dict[Path, int] = {}
        self.behind = False

    def newest(self, count: int) -> list[dict[str, Any]]:
        """Return the last ``count`` matching records that are there, by time; what was there is not new any more.

        Logs are read from their ends, as far back as needed: all of one only where few of its records match. Raises OSError.
        """
        found: list[tuple[float, str, int, dict[str, Any]]] = []
        for name, files in group(log_paths(self._paths)[0]).items():
            sizes = {path: path.stat().st_size for path in files}
            self._read |= {path: whole_size(path, size) for path, size in sizes.items()}
            lines = (line for path in reversed(files) for line in read_back(path, self._read[path]))
            for place, record in enumerate(islice(self._matching(lines), count)):
                found.append((row_of(record).time.timestamp(), name, -place, record))
            found = heapq.nlargest(count, found, key=lambda one: one[:3])
        return [record for *_order, record in sorted(found, key=lambda one: one[:3])]

    def new(self) -> list[dict[str, Any]]:
        """Return matching records whose lines were completed since the last time, by time; nothing if there are no lines.

        After very many lines it returns early, also with nothing: :attr:`behind` says that there are more. Raises OSError.
        """
        self.behind = False
        found: list[dict[str, Any]] = []
        left = LINES_MAX
        for path in log_paths(self._paths)[0]:
            read = list(islice(self._completed(path), left))
            left -= len(read)
            found += self._matching(read)
            if not left:
                self.behind = True
                break
        return sorted(found, key=lambda record: row_of(record).time)

    def _completed(self, path: Path) -> Iterator[bytes]:
        for line in read_lines([path], start=self._read.get(path, 0)):
            if line.torn:
                return
            self._read[path] = self._read.get(path, 0) + line.size + 1
            if line.data is not None:
                yield line.data

    def _matching(self, lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        for line in lines:
            record = record_of(line)
            if record is not None and wanted(record, self._filters) and self._filters.match(record, row_of(record)):
                yield record
