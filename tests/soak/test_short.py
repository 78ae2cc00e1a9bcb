"""The short forms of `make soak`: two minutes of fuzz, 20,000 decisions of which a third are hostile, five times kill -9.

The seed is the same each time, so that a failure is the change's; SEED=… in the environment takes another one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support.soak.attacks import PROOFS, WORLDS
from support.soak.decisions import SPOILERS, decisions, log_faults
from support.soak.fuzz import fuzz
from support.soak.kills import kill_again_and_again
from support.soak.scenes import SCENES
from support.soak.targets import TARGETS

if TYPE_CHECKING:
    from pathlib import Path

    from countersign.devcluster import Plane

SEED = os.environ.get("SEED", "countersign")
FUZZ_SECONDS = 120.0
FUZZ_MOST = 100_000
DECISIONS = 20_000
MEMORY_MIB = 48.0


# A serial number that is not positive is warned of by the library before we judge it.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.timeout(900)
def test_whatever_is_read_is_answered_or_refused_and_nothing_else() -> None:
    run = fuzz(SEED, range(FUZZ_MOST), quiet=True, seconds=FUZZ_SECONDS)

    assert not run.found, f"seed {SEED}: {run.found[0]}"
    assert set(run.counts) == {target.name for target in TARGETS}


@pytest.mark.timeout(1800)
async def test_no_hostile_call_is_allowed_and_every_good_one_is(tmp_path: Path) -> None:
    outcome, _stage = await decisions(tmp_path, SEED, range(DECISIONS), quiet=True)

    assert not outcome.wrong, f"seed {SEED}: {outcome.wrong[0]}"
    assert outcome.hostile >= DECISIONS // 3
    assert outcome.allowed == sum(index % 3 > 0 for index in range(DECISIONS)) + outcome.classes["sent again"]
    assert log_faults(tmp_path, outcome) == []
    assert outcome.progress.growth < MEMORY_MIB, outcome.progress.rss
    every = {*PROOFS, *WORLDS, *(f"arguments of {scene.tool}" for scene in SCENES)}
    assert every <= set(outcome.classes), "a kind of attack was not among them"
    assert len(SPOILERS) == 12


@pytest.mark.plane
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("shared", "count"), [(False, 2), (True, 3)], ids=["own store", "Redis"])
def test_kill_9_under_calls_leaves_no_token_without_a_record_and_no_replay(
    crds: Plane, namespace: str, tmp_path: Path, *, shared: bool, count: int
) -> None:
    kills = kill_again_and_again(crds, tmp_path, namespace, count=count, seed=SEED, shared=shared, quiet=True)

    assert kills.wrong == []
    assert kills.progress.done == count
    assert kills.tokens >= count
    assert set(kills.again) <= ({"proof.replayed", "proof.expired", "nonce.expired"} if shared else {"nonce.invalid"})
