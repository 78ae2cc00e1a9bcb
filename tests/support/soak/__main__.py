"""The long runs: ``python -m support.soak fuzz|decisions|kills|all`` (what ``make soak`` starts).

Each prints its seed, how far it is, and how to go on or do it again: ``--seed``, ``--first``, ``--count``, and ``--part 1/2`` for one
of two processes (``--jobs 2`` starts them). Exit status: 0 all is as it must be, 1 something is not, 2 wrong use.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

from support.soak.decisions import decisions, log_faults
from support.soak.fuzz import fuzz
from support.soak.kills import kill_again_and_again

from countersign.devcluster import Plane, find_or_build

__all__ = ["main"]

COUNTS = {"fuzz": 1_000_000, "decisions": 1_000_000, "kills": 100}
SHOWN = 5
FLAT_MIB = 32.0
"""Resident memory may not be higher by more in the last third of the decisions than in the third before it."""
CRDS = Path(__file__).parents[3] / "crds"


def _range(options: argparse.Namespace, what: str) -> range:
    part, parts = (int(word) for word in options.part.split("/"))
    count = options.count or COUNTS[what]
    return range(options.first + part - 1, options.first + count, parts)


def _fuzz(options: argparse.Namespace) -> list[str]:
    run = fuzz(options.seed, _range(options, "fuzz"))
    run.progress.say()
    for name, (spent, index) in sorted(run.slowest.items()):
        print(f"  {name}: {run.counts[name]:,} inputs, the slowest {spent * 1000:.1f} ms of CPU (input {index})")
    return [f"{one.target}, input {one.index}: {one.what}\n  {one.made}" for one in run.found]


def _decisions(options: argparse.Namespace) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="countersign-soak-") as directory:
        outcome, _stage = asyncio.run(decisions(Path(directory), options.seed, _range(options, "decisions")))
        progress = outcome.progress
        progress.say()
        print(f"  {outcome.allowed:,} allowed, {outcome.hostile:,} hostile, {len(outcome.wrong)} wrong")
        print(f"  hostile by kind: {dict(outcome.classes.most_common())}")
        print(f"  answers: {dict(outcome.codes.most_common())}")
        print(f"  resident memory, MiB: {[round(one) for one in progress.rss][::5]}, growth {progress.growth:.1f}")
        found = [f"decision {one.index}: {one.what}" for one in outcome.wrong]
        print("  holding the log against the tokens", flush=True)
        found += log_faults(Path(directory), outcome)
        if progress.growth > FLAT_MIB:
            found.append(f"memory is not flat: {progress.growth:.1f} MiB more in the last third")
        return found


def _kills(options: argparse.Namespace) -> list[str]:
    found: list[str] = []
    count = options.count or COUNTS["kills"]
    part, parts = (int(word) for word in options.part.split("/"))
    with tempfile.TemporaryDirectory(prefix="countersign-soak-") as directory:
        plane = Plane(find_or_build(), Path(directory) / "plane", webhook_hosts=["*"])
        plane.start()
        try:
            plane.kubectl("apply", "--server-side", "-f", str(CRDS))
            plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(CRDS))
            for place, shared in enumerate((False, True)):
                if parts > 1 and place % parts != part - 1:
                    continue
                name = f"test-{secrets.token_hex(6)}"
                plane.kubectl("create", "namespace", name)
                here = Path(directory) / name
                here.mkdir()
                kills = kill_again_and_again(plane, here, name, count=count // 2, seed=options.seed, shared=shared)
                kills.progress.say()
                print(f"  {kills.tokens:,} tokens, each with its record; {kills.torn} logs cut in a line;", end=" ")
                print(f"{kills.unanswered} calls cut off; sent again: {dict(kills.again)}", flush=True)
                found += kills.wrong
        finally:
            plane.stop()
    return found


RUNS = {"fuzz": _fuzz, "decisions": _decisions, "kills": _kills}


def _jobs(options: argparse.Namespace, what: str) -> int:
    """Run the parts of one run side by side; return 1 if one of them failed."""
    words = [sys.executable, "-m", "support.soak", what, "--seed", options.seed, "--first", str(options.first)]
    words += ["--count", str(options.count)] if options.count else []
    jobs = [subprocess.Popen([*words, "--part", f"{number}/{options.jobs}"]) for number in range(1, options.jobs + 1)]
    return max(job.wait() for job in jobs)


def main() -> int:
    """Run what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="support.soak", description=__doc__)
    parser.add_argument("what", choices=[*RUNS, "all"])
    parser.add_argument("--seed", default=None, help="any text; left out: a new one, printed")
    parser.add_argument("--first", type=int, default=0, help="the number to begin with")
    parser.add_argument("--count", type=int, default=None, help="how many; left out: the whole of it")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="every N-th of them, from the I-th on")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes")
    options = parser.parse_args()
    options.seed = options.seed or secrets.token_hex(4)
    status = 0
    for what in RUNS if options.what == "all" else (options.what,):
        print(f"==> {what}, seed {options.seed}, part {options.part}", flush=True)
        if options.jobs > 1:
            status = max(status, _jobs(options, what))
            continue
        found = RUNS[what](options)
        for one in found[:SHOWN]:
            print(f"FOUND {one}")
        print(f"==> {what}: {'nothing found' if not found else f'{len(found)} found'}, seed {options.seed}", flush=True)
        status = max(status, 1 if found else 0)
    return status


if __name__ == "__main__":
    sys.exit(main())
