"""Measure Countersign on this machine, print the figures and write docs/benchmarks.md. Run by ``make bench``.

Never asserts a time: a slow machine is not a bug. What cannot be measured here is named with its reason.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from pathlib import Path

import floor
import inside
import tpm
from report import Section, document
from rich.console import Console
from rich.markdown import Markdown
from timing import Case, Timed, measure

_FLAT = "The library's bare operations first; a decision costs the same however many policies there are."
_PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure Countersign and write docs/benchmarks.md.",
        epilog="Examples:  make bench   ·   bench/run.py --rounds 5 --write /dev/null",
    )
    parser.add_argument("--rounds", type=int, default=15, help="turns that each case takes (default 15)")
    parser.add_argument("--write", type=Path, default=_PAGE, help="where the page goes (default docs/benchmarks.md)")
    return parser.parse_args()


def _rows(found: dict[str, Timed], cases: list[Case]) -> list[Timed]:
    return [found[case.name] for case in cases]


async def _inside(rounds: int, console: Console) -> list[Section]:
    """Measure what needs no other process, all cases in turn, so that every ratio is of the same moments."""
    async with contextlib.AsyncExitStack() as stack:
        bare = floor.cases()
        rooms = await stack.enter_async_context(inside.opened())
        chip = [] if tpm.missing() else await stack.enter_async_context(tpm.opened())
        status = stack.enter_context(console.status("measuring"))
        found = await measure(
            [*bare, *rooms, *chip], rounds=rounds, told=lambda name: status.update(f"measuring {name}")
        )
    return [
        Section("Policy and audit", _FLAT, [*_rows(found, bare), *_rows(found, rooms)]),
        Section("TPM", "A simulator: only the overhead carries over.", _rows(found, chip), missing=tpm.missing()),
    ]


async def _main() -> None:
    options, console = _arguments(), Console()
    began = time.monotonic()
    sections = await _inside(options.rounds, console)
    page = document(sections, rounds=options.rounds, seconds=time.monotonic() - began)
    console.print(Markdown(page))
    options.write.parent.mkdir(parents=True, exist_ok=True)
    options.write.write_text(page, "utf-8")
    console.print(f"written to {options.write}")


if __name__ == "__main__":
    asyncio.run(_main())
