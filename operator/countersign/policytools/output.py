"""How results are printed: tables that are not cut, and texts that a terminal does not act on."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["BROKEN", "USAGE", "Form", "line", "table", "usage", "warn"]

BROKEN: Final = 1
USAGE: Final = 2
_WIDE: Final = 10_000


class Form(StrEnum):
    """How a result is printed."""

    table = "table"
    json = "json"


def line(text: str = "") -> None:
    """Print a line."""
    typer.echo(_safe(text))


def warn(text: str) -> None:
    """Print a line for people, beside the result."""
    typer.echo(f"warning: {_safe(text)}", err=True)


def usage(command: str, text: str) -> typer.Exit:
    """Say what is wrong with the use of a command, and return its end."""
    typer.echo(f"countersign policy {command}: {_safe(text)}", err=True)
    return typer.Exit(USAGE)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table as wide as its content."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        found.add_column(head, overflow="fold", no_wrap=True)
    for row in rows:
        found.add_row(*(_safe(cell) for cell in row))
    Console(highlight=False, markup=False, width=_WIDE).print(found)


def _safe(text: str) -> str:
    """Escape what a terminal would act on: names and reasons may be a stranger's words (E7)."""
    return text if text.isprintable() else ascii(text)[1:-1]
