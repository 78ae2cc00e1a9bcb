"""Fuzzing by number: input ``index`` of ``seed`` is always the same one, so a find is made again by its number."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

from support.soak.progress import Progress
from support.soak.targets import TARGETS, Target

__all__ = ["Found", "Run", "fuzz", "read_one", "target_of"]

CPU_SECONDS = 2.0
"""More CPU than this for one input is a find as well: the bound of what one request may cost, with much to spare."""
_DUE = [target for target in TARGETS for _ in range(target.share)]


@dataclass(frozen=True)
class Found:
    """An input that was not answered as it should be."""

    target: str
    index: int
    what: str
    made: str


@dataclass
class Run:
    """What came of many inputs. ``slowest`` is the CPU of the slowest input of each target, in seconds."""

    progress: Progress
    found: list[Found] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, tuple[float, int]] = field(default_factory=dict)


def target_of(index: int) -> Target:
    """Return which target input ``index`` is for."""
    return _DUE[index % len(_DUE)]


def read_one(target: Target, seed: str, index: int) -> tuple[str | None, float, Any]:
    """Make and read one input; return what was wrong with that, or None, the CPU it took in seconds, and the input."""
    made = target.make(Random(f"{seed}:{index}"))
    began = time.thread_time()
    try:
        target.read(made)
    except Exception:  # noqa: BLE001 - whatever it is, it is a find
        return traceback.format_exc(limit=-6), time.thread_time() - began, made
    spent = time.thread_time() - began
    return (f"{spent:.1f} s of CPU" if spent > CPU_SECONDS else None), spent, made


def fuzz(seed: str, indices: range, *, quiet: bool = False, most: int = 20, seconds: float | None = None) -> Run:
    """Read the inputs ``indices`` of ``seed``; stop after ``most`` finds, or after ``seconds``."""
    run = Run(Progress("fuzz", len(indices), quiet=quiet))
    end = None if seconds is None else time.monotonic() + seconds
    for index in indices:
        if end is not None and time.monotonic() > end:
            break
        target = target_of(index)
        what, spent, made = read_one(target, seed, index)
        run.counts[target.name] += 1
        if spent > run.slowest.get(target.name, (0.0, 0))[0]:
            run.slowest[target.name] = (spent, index)
        if what is not None:
            run.found.append(Found(target.name, index, what, repr(made)[:2000]))
            run.progress.say(f"FOUND {target.name}, input {index}")
            if len(run.found) >= most:
                break
        run.progress.step(f"(go on with --first {index + indices.step})")
    return run
