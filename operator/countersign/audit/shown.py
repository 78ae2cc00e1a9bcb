"""What ``countersign audit`` prints of records, a page at a time: there may be more of them than memory. And how far it is."""

from __future__ import annotations

import contextlib
import json
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from countersign.audit.query import Row, row_of
from countersign.audit.verify import log_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = ["Output", "Shown", "reading"]

_WIDE: Final = 10_000
_PAGE: Final = 1000
_SHORT: Final = ["TIME", "ANSWER", "CODE", "AGENT", "TOOL", "DEVICE", "USER", "DECISION"]
_LONG: Final = [*_SHORT, "INSTANCE", "SERVICE", "OPERATION", "POLICY", "RULE", "TIER", "PEER"]
_LARGE: Final = 32 << 20
"""Less than this is read before anybody wonders."""


class Output(StrEnum):
    """How records are printed."""

    table = "table"
    wide = "wide"
    json = "json"


class Shown:
    """Prints records in one form. A table's columns are as wide as what they held so far."""

    def __init__(self, output: Output) -> None:
        """Print nothing yet."""
        self._output = output
        self._widths: list[int] | None = None

    def add(self, records: Iterable[dict[str, Any]]) -> None:
        """Print records, as they come."""
        if self._output is Output.json:
            for record in records:
                typer.echo(json.dumps(record, sort_keys=True, ensure_ascii=True))
            return
        waiting = iter(records)
        while page := [row_of(record) for record in islice(waiting, _PAGE)]:
            self._page(page)
        if self._widths is None:
            self._page([])

    def _page(self, rows: Sequence[Row]) -> None:
        wide = self._output is Output.wide
        names = _LONG if wide else _SHORT
        cells = [[_safe(cell) for cell in _cells(row, wide=wide)] for row in rows]
        widths = self._widths or [len(name) for name in names]
        first, self._widths = (
            self._widths is None,
            [max(width, *(len(row[column]) for row in cells), 0) for column, width in enumerate(widths)],
        )
        table = Table(box=None, pad_edge=False, header_style="bold", show_header=first)
        for name, width in zip(names, self._widths, strict=True):
            table.add_column(name, overflow="fold", no_wrap=True, min_width=width)
        for row in cells:
            table.add_row(*row)
        # As wide as its content: a table in a pipe or a narrow terminal is not cut (names of tools are strangers' words).
        Console(highlight=False, markup=False, width=_WIDE).print(table)


def _cells(row: Row, *, wide: bool) -> list[str]:
    cells = [f"{row.time:%Y-%m-%dT%H:%M:%S}.{row.time.microsecond // 1000:03d}Z", row.answer, row.code]
    cells += [row.agent if wide else row.agent.rpartition("/")[2], row.tool, row.device, row.user, row.decision]
    if wide:
        cells += [row.instance, row.service, row.operation, row.policy, row.rule, row.key_tier, row.peer]
    return cells


def _safe(text: str) -> str:
    """Escape what a terminal would act on: a tool's name may come from a stranger (E7)."""
    return text if text.isprintable() else ascii(text)[1:-1]


@contextlib.contextmanager
def reading(paths: Sequence[Path]) -> Iterator[Callable[[int], None] | None]:
    """Show on a terminal how much of large logs was read; yield what is to be told the bytes. Raises OSError."""
    total = sum(path.stat().st_size for path in log_paths(paths)[0])
    console = Console(stderr=True)
    if total < _LARGE or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda size: progress.advance(task, size)
