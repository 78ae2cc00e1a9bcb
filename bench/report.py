"""The figures as a table for people, on the terminal and in docs/benchmarks.md. Ratios first: they travel, times do not."""

from __future__ import annotations

import os
import platform
import textwrap
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timing import Timed

__all__ = ["Claim", "Section", "Table", "document", "load", "machine"]


@dataclass(frozen=True)
class Claim:
    """A sentence of the summary, made from the figures of the run; ``reached`` is None where there is no goal."""

    text: str
    reached: bool | None = None

    @property
    def line(self) -> str:
        """How the page says it."""
        return self.text if self.reached is None else f"**{'Reached' if self.reached else 'Missed'}**: {self.text}"


@dataclass(frozen=True)
class Table:
    """Rows under a head; the columns ``words`` are words, the others figures."""

    head: list[str]
    rows: list[list[str]]
    words: tuple[int, ...] = (0,)

    @property
    def lines(self) -> list[str]:
        """As Markdown."""
        rule = ["---" if number in self.words else "---:" for number, _ in enumerate(self.head)]
        return [_row(self.head), f"|{'|'.join(rule)}|", *(_row(each) for each in self.rows)]


@dataclass
class Section:
    """A table: each row against the row that it names, here or among ``others`` of its rounds, or why there is none."""

    title: str
    text: str
    rows: list[Timed] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    missing: str | None = None
    others: dict[str, Timed] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)


def load() -> float:
    """Return how many processes wanted a CPU in the last minute: well above zero before a run, somebody else works too."""
    return os.getloadavg()[0]


def machine() -> str:
    """Return what the figures depend on."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - the kernel's file, read once
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    what = f"{len(models)} x {models[0]}" if models else platform.machine()
    return f"{what}; Python {platform.python_version()}; cryptography {version('cryptography')}; Linux {platform.release()}"


def document(sections: list[Section], *, rounds: int, seconds: float, busy: tuple[float, float]) -> str:
    """Return the page; ``busy`` is the load before and after the run."""
    lines = ["# Benchmarks", "", *_summary(sections), "", *_conditions(rounds, seconds, busy)]
    for section in sections:
        lines += ["", f"## {section.title}", ""]
        for paragraph in section.text.split("\n\n"):
            lines += [*_filled(paragraph), ""]
        lines += [f"Not measured: {section.missing}."] if section.missing else _tables(section)
    return "\n".join(lines) + "\n"


def _summary(sections: list[Section]) -> list[str]:
    """Return what was reached and what was missed, as the sections say it."""
    claims = [claim for section in sections for claim in section.claims]
    return [line for claim in claims for line in textwrap.wrap(f"- {claim.line}", 120, subsequent_indent="  ")]


def _conditions(rounds: int, seconds: float, busy: tuple[float, float]) -> list[str]:
    return [
        *_filled(
            "Written by `make bench`, the summary too; nothing here is a promise or a test. All figures are of one run: the "
            f"cases took turns, {rounds} rounds in {seconds:.0f} s, so trust the ratios (taken round by round) and not the times, "
            "which are this machine's on this day. Times are of single operations."
        ),
        "",
        *_filled(
            f"{machine()}; {datetime.now(UTC):%Y-%m-%d}. Load before the run {busy[0]:.1f}, after it {busy[1]:.1f}; by itself it "
            "makes about 1. Where others work too, long operations suffer more than short ones, and even the ratios are too high."
        ),
    ]


def _filled(text: str) -> list[str]:
    return textwrap.wrap(text, 120)


def _tables(section: Section) -> list[str]:
    tables = [*section.tables]
    by_name = {**section.others, **{row.name: row for row in section.rows}}
    if section.rows:
        rows = [_compared(row, by_name.get(row.of) if row.of else None) for row in section.rows]
        tables.insert(0, Table(["what", "ratio", "against", "p50 µs", "p99 µs"], rows, words=(0, 2)))
    if section.facts:
        tables.append(Table(["", ""], [[name, value] for name, value in section.facts]))
    lines = [line for table in tables for line in ("", *table.lines)]
    return lines[1:]


def _compared(row: Timed, other: Timed | None) -> list[str]:
    ratio = f"{row.ratio(other):.2f}" if other else ""
    return [row.name, ratio, row.of if other and row.of else "", f"{row.p50:,.1f}", f"{row.p99:,.1f}"]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
