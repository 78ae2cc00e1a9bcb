"""`countersign policy test` and the live front door agree on the same vectors: objects installed, calls signed and sent over TLS.

What a vector needs that no live front door has yet is written down by name, with the reason; the live answer is then a no.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.front_door import write_pair
from support.live_vectors import Live, live_form, open_live, why_not_live

from countersign.policytools.cases import read_cases
from countersign.policytools.facts import claims_of, read_now
from countersign.policytools.trial import run_case

if TYPE_CHECKING:
    from countersign.devcluster.pki import LocalCA
    from countersign.policytools.cases import Case

DATA = Path(__file__).parents[1] / "data"
FOLDERS = {"published": DATA / "policy", "corners": DATA / "policytools" / "cases"}
BEFORE_POLICY = {"an instance that is no pod", "a device that never attested", "an observed definition", "plain HTTP"}


def cases_of(folder: Path) -> list[Case]:
    found = [case for path in sorted(folder.glob("*.yaml")) for case in read_cases(path)]
    return sorted(found, key=lambda case: read_now(case.given["now"], "now"))  # time goes on


def grants_of(cases: list[Case]) -> list[dict[str, Any]]:
    """The platform's setting under which every server of every case may have its audience, as a case takes for granted."""
    claims = {
        (audience, name) for case in cases for audience, names in claims_of(case.given["toolServers"]) for name in names
    }
    return [{"prefix": audience, "namespaces": [name]} for audience, name in sorted(claims)]


async def compared(live: Live, case: Case) -> str:
    """Put a case before both; return why the live answer is not the one that the case expects, empty if it is."""
    form = live_form(case)
    answer, code = await live.answer(form)
    reason = "" if answer == case.expect else why_not_live(case)
    if reason in BEFORE_POLICY:
        assert code != "ok", (case.name, answer)
    elif reason:
        # What it is about, taken away, leaves another question; to that one both have the same answer.
        assert answer == run_case(form).got, (case.name, reason)
    if reason in ("a task", "an approval"):
        assert (await live.answer(case))[1] != "ok", case.name
    return reason


@pytest.mark.parametrize("which", FOLDERS)
async def test_the_live_front_door_agrees(tmp_path: Path, ca: LocalCA, pytestconfig: pytest.Config, which: str) -> None:
    cases = cases_of(FOLDERS[which])
    apart: dict[str, list[str]] = defaultdict(list)
    clusters = {case.given["cluster"] for case in cases}
    for number, cluster in enumerate(sorted(clusters)):
        directory = tmp_path / str(number)
        directory.mkdir()
        write_pair(directory, ca)
        more = {"audiences": grants_of(cases), "limits": {"instance_rate": 1e6, "instance_burst": 10**6}}
        async with open_live(directory, ca, cluster=cluster, **more) as live:
            for case in (one for one in cases if one.given["cluster"] == cluster):
                if reason := await compared(live, case):
                    apart[reason].append(f"{Path(case.file).stem}: {case.name}")
    apart = {reason: sorted(names) for reason, names in apart.items()}
    file = DATA / "policytools" / f"not-live.{which}.json"
    if pytestconfig.getoption("--update-golden"):
        file.write_text(json.dumps(apart, indent=1, sort_keys=True, ensure_ascii=True) + "\n")
    assert apart == json.loads(file.read_text())
