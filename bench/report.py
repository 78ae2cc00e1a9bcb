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

__all__ = ["Section", "document", "load", "machine"]


@dataclass
class Section:
    """A table: each row against the row that it names, here or among ``others`` of its rounds, or why there is none."""

    title: str
    text: str
    rows: list[Timed] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    missing: str | None = None
    others: dict[str, Timed] = field(default_factory=dict)


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
    lines = [
        "# Benchmarks",
        "",
        *_filled(
            "Written by `make bench`; nothing here is a promise or a test. All figures are of one run: the cases took turns, "
            f"{rounds} rounds in {seconds:.0f} s, so trust the ratios (taken round by round) and not the times, which are this "
            "machine's on this day. Times are of single operations."
        ),
        "",
        *_filled(
            f"{machine()}; {datetime.now(UTC):%Y-%m-%d}. Load before the run {busy[0]:.1f}, after it {busy[1]:.1f}; by itself it "
            "makes about 1. Where others work too, long operations suffer more than short ones, and even the ratios are too high."
        ),
    ]
    for section in sections:
        lines += ["", f"## {section.title}", "", *_filled(section.text), ""]
        lines += [f"Not measured: {section.missing}."] if section.missing else _table(section)
    return "\n".join(lines) + "\n"


def _filled(text: str) -> list[str]:
    return textwrap.wrap(text, 120)


def _table(section: Section) -> list[str]:
    lines: list[str] = []
    by_name = {**section.others, **{row.name: row for row in section.rows}}
    if section.rows:
        lines += ["| what | ratio | against | p50 µs | p99 µs |", "|---|---:|---|---:|---:|"]
    for row in section.rows:
        other = by_name.get(row.of) if row.of else None
        ratio = f"{row.ratio(other):.2f}" if other else ""
        lines.append(f"| {row.name} | {ratio} | {row.of if other else ''} | {row.p50:,.1f} | {row.p99:,.1f} |")
    if section.facts:
        lines += ([""] if lines else []) + ["| | |", "|---|---:|"]
        lines += [f"| {name} | {value} |" for name, value in section.facts]
    return lines
