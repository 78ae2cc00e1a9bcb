"""How results are printed: columns as kubectl's, JSON, YAML; and texts that a terminal does not act on."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import typer
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["NOT_WELL", "NO_ANSWER", "USAGE", "Form", "age", "complain", "document", "fail", "line", "pairs", "table"]

NOT_WELL: Final = 1
USAGE: Final = 2
NO_ANSWER: Final = 3
_GAP: Final = 3
_UNITS: Final = (("d", 86400, 2), ("h", 3600, 2), ("m", 60, 2), ("s", 1, 0))


class Form(StrEnum):
    """How a result is printed."""

    table = "table"
    wide = "wide"
    json = "json"
    yaml = "yaml"


def line(text: str = "") -> None:
    """Print a line."""
    typer.echo(_safe(text))


def complain(text: str) -> None:
    """Print a line for people, beside the result."""
    typer.echo(_safe(text), err=True)


def fail(text: str, status: int = NOT_WELL) -> typer.Exit:
    """Say why the command ends, and return its end."""
    complain(f"countersign: {text}")
    return typer.Exit(status)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, gap: int = _GAP) -> None:
    """Print columns, each as wide as its longest text; nothing is cut or wrapped, as kubectl has it."""
    every = [list(heads), *([_safe(cell) for cell in row] for row in rows)]
    widths = [max(len(row[place]) for row in every) for place in range(len(heads))]
    for row in every:
        cells = [cell.ljust(width + gap) for cell, width in zip(row, widths, strict=True)]
        typer.echo("".join(cells).rstrip())


def pairs(found: Iterable[tuple[str, str]]) -> None:
    """Print words with their texts beside them; an empty word goes on with the one before."""
    listed = list(found)
    width = max((len(word) for word, _text in listed), default=0)
    for word, text in listed:
        typer.echo(f"{word.ljust(width)}  {_safe(text)}".rstrip())


def document(form: Form, found: Any) -> None:
    """Print data for programs, as JSON or YAML. Both escape what is not ASCII."""
    if form is Form.yaml:
        typer.echo(yaml.safe_dump(found, sort_keys=False, allow_unicode=False).rstrip())
    else:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=True))


def age(seconds: float) -> str:
    """Return a duration in one unit, as kubectl shows ages; a negative one is ``0s``."""
    left = max(int(seconds), 0)
    for unit, size, least in _UNITS:
        if left >= size * max(least, 1) or size == 1:
            return f"{left // size}{unit}"
    return "0s"


def _safe(text: str) -> str:
    """Escape what a terminal would act on: names, reasons and messages may be a stranger's words (E7)."""
    return text if text.isprintable() else ascii(text)[1:-1]
