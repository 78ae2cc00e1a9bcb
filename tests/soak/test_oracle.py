"""The long runs would find something if it were there, and can be done again by number."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
from support.soak.decisions import decisions, log_faults
from support.soak.fuzz import CPU_SECONDS, read_one, target_of
from support.soak.kills import recorded
from support.soak.targets import TARGETS, Target
from support.world import allow, policy

from countersign import kube

if TYPE_CHECKING:
    from support.soak.stage import Stage

ROOT = Path(__file__).parents[2]


def too_wide(stage: Stage) -> None:
    stage.put(kube.TOOL_POLICIES, policy(allow(), name="too-wide"))


def too_narrow(stage: Stage) -> None:
    stage.world.source.drop(kube.TOOL_POLICIES, "pay", "billing")


async def test_a_rule_that_allows_too_much_is_found(tmp_path: Path) -> None:
    outcome, _stage = await decisions(tmp_path, "x", range(300), quiet=True, most=5, prepare=too_wide)

    assert len(outcome.wrong) >= 5
    assert any("ALLOWED, and must not be" in one.what for one in outcome.wrong)


async def test_a_rule_that_is_gone_is_found(tmp_path: Path) -> None:
    outcome, _stage = await decisions(tmp_path, "x", range(100), quiet=True, most=1, prepare=too_narrow)

    assert any("a good call was refused" in one.what for one in outcome.wrong)


async def test_a_token_without_its_record_is_found(tmp_path: Path) -> None:
    outcome, _stage = await decisions(tmp_path, "x", range(40), quiet=True)
    assert (outcome.wrong, log_faults(tmp_path, outcome)) == ([], [])
    assert len(recorded(tmp_path / "audit")) == outcome.allowed

    [log] = (tmp_path / "audit").glob("*.jsonl")
    lines = log.read_bytes().splitlines(keepends=True)
    last = max(place for place, line in enumerate(lines) if b"policy.allowed" in line)
    log.write_bytes(b"".join(lines[:last]))
    assert any("tokens left, and the log has" in fault for fault in log_faults(tmp_path, outcome))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_an_input_is_the_same_each_time(target: Target) -> None:
    made = [repr(target.make(Random("seed:7"))) for _ in range(2)]
    assert made[0] == made[1]


def test_what_a_reader_raises_and_what_takes_too_long_is_found() -> None:
    def broken(_made: object) -> None:
        raise RecursionError

    def slow(_made: object) -> None:
        end = time.thread_time() + CPU_SECONDS + 0.1
        while time.thread_time() < end:
            pass

    assert read_one(Target("broken", lambda _rng: 1, broken), "s", 1)[0] is not None
    assert "s of CPU" in str(read_one(Target("slow", lambda _rng: 1, slow), "s", 1)[0])
    assert read_one(target_of(0), "s", 0)[0] is None


def test_the_command_prints_its_seed_and_goes_on_where_it_is_told() -> None:
    path = os.pathsep.join(str(ROOT / part) for part in ("tests", "operator", "webhook"))
    words = [
        sys.executable,
        "-m",
        "support.soak",
        "fuzz",
        "--seed",
        "abc",
        "--first",
        "10",
        "--count",
        "30",
        "--jobs",
        "2",
    ]
    done = subprocess.run(
        words, env={**os.environ, "PYTHONPATH": path}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fuzz: 15 of 15") == 2
    assert "seed abc, part 2/2" in done.stdout
    assert done.stdout.count("nothing found, seed abc") == 2
