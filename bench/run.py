"""Measure Countersign on this machine, print the figures and write docs/benchmarks.md. Run by ``make bench``.

Never asserts a time: a slow machine is not a bug. What cannot be measured here is named with its reason.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import call
import decisions
import edits
import floor
import fsync
import inside
import scale
import stage
import tpm
import uvloop
import workers
from report import Section, document, load
from rich.console import Console
from rich.markdown import Markdown
from timing import Case, Timed, measure

from countersign.devcluster import find_or_build_opa

if TYPE_CHECKING:
    from collections.abc import Callable

_PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
_PARTS = ("decisions", "opa", "workers", "audit", "call", "inside", "edits", "scale")
"""What can be measured alone: ``make bench ONLY=decisions``, several with spaces between."""
_SWITCH_SECONDS = 5e-4
"""As ``countersign signer`` sets it: its parts that are timed in this process run as they do in that one, on uvloop too."""
_CALL = (
    "One MCP tools/call over loopback HTTP: the demo's machine, real processes, a TPM simulator; beside it the same call to the "
    "same tool server without verifier and signer. The exchange is a second signer's, enrolled with a TPM of its own; decision "
    "and verifier are the same code in this process, one call at a time."
)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure Countersign and write docs/benchmarks.md.",
        epilog="Examples:  make bench   ·   make bench ONLY=decisions   ·   bench/run.py --rounds 2 --write /dev/null",
    )
    parser.add_argument("--rounds", type=int, default=15, help="turns that each case takes (default 15)")
    parser.add_argument(
        "--seconds", type=float, default=0.3, help="how long a server is loaded in a turn (default 0.3)"
    )
    parser.add_argument(
        "--write", type=Path, help="where the page goes (default docs/benchmarks.md; nowhere with --only)"
    )
    parser.add_argument("--only", choices=_PARTS, nargs="+", help="leave the other parts out, and the page as it is")
    parser.add_argument(
        "--policies",
        type=int,
        nargs="+",
        default=decisions.SIZES,
        help="sizes for decisions, the largest for edits (default 1 to 10,000)",
    )
    parser.add_argument(
        "--pods", type=int, nargs="+", default=scale.SIZES, help="sizes for scale (default 1,000 to 10,000)"
    )
    return parser.parse_args()


def _rows(found: dict[str, Timed], cases: list[Case]) -> list[Timed]:
    return [found[case.name] for case in cases]


async def _in_turns(parts: list[str], rounds: int, told: Callable[[str], None]) -> list[Section]:
    """Time calls and rooms, all cases in turn, so that every ratio is of the same moments."""
    without = tpm.missing() or stage.missing()
    async with contextlib.AsyncExitStack() as stack:
        bare = floor.cases()
        rooms = inside.cases() if "inside" in parts else []
        chip = [] if tpm.missing() else await stack.enter_async_context(tpm.opened())
        calls: list[Case] = []
        set_up = None
        if "call" in parts and not without:
            set_up = stack.enter_context(stage.set_up(told))
            calls = await stack.enter_async_context(call.opened(set_up, chip[0].run))
        before = set_up.decided if set_up else (0.0, 0)
        found = await measure([*bare, *chip, *calls, *rooms], rounds=rounds, told=told)
        facts = call.facts(found, before, set_up.decided) if set_up else []
        claims = [call.claim(found)] if set_up else []
    sections = []
    if "call" in parts:
        sections.append(
            Section("A signed call", _CALL, _rows(found, calls), facts, without, others=found, claims=claims)
        )
    floors = "The library's bare operations, and the sums of them that no code above can go below."
    sections.append(Section("The floor", floors, _rows(found, bare)))
    simulated = "A simulator: only the overhead carries over."
    sections.append(Section("TPM", simulated, _rows(found, chip), missing=tpm.missing()))
    if rooms:
        flat = "A decision by the rules costs the same however many policies there are."
        sections.append(Section("Policy", flat, _rows(found, rooms), others=found))
    return sections


async def _main() -> None:
    options, console = _arguments(), Console()
    parts, rounds, seconds = options.only or list(_PARTS), options.rounds, options.seconds
    began, busy = time.monotonic(), load()
    sections: list[Section] = []
    with console.status("measuring") as status:

        def told(what: str) -> None:
            status.update(f"measuring {what}")

        if {"decisions", "opa"} & set(parts):
            program = find_or_build_opa(told) if "opa" in parts else None
            sections.append(await decisions.section(rounds, seconds, told, options.policies, program))
        if "workers" in parts:
            sections.append(await workers.section(rounds, seconds, told))
        if "audit" in parts:
            sections.append(await fsync.section(rounds, seconds / 2, told))
        if {"call", "inside"} & set(parts):
            sections += await _in_turns(parts, rounds, told)
        if "edits" in parts:
            sections.append(await edits.section(told, max(options.policies)))
        if "scale" in parts:
            sections.append(await scale.section(told, options.pods))
    page = document(sections, rounds=rounds, seconds=time.monotonic() - began, busy=(busy, load()))
    console.print(Markdown(page))
    if place := options.write or (None if options.only else _PAGE):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(page, "utf-8")
        console.print(f"written to {place}")


def _ended(number: int, _frame: object) -> None:
    """End as Ctrl-C does, by an exception: what was started is stopped."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _ended)
    sys.setswitchinterval(_SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main())
