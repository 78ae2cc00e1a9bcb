"""Every right of the chart is used: the API server's own audit log of the processes' tests, which run with these rights alone.

So a right that is taken away makes the test fail that used it, and a right that nothing uses is found here. Runs last.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.chart import render
from support.rights import PROCESSES, audit_log, is_allowed, requests, right_of, user_of

if TYPE_CHECKING:
    from countersign.devcluster import Plane

pytestmark = [pytest.mark.plane, pytest.mark.last]

TESTS = Path(__file__).parents[1]
# Each starts a real process with a token of its ServiceAccount, to which the chart's roles are bound.
NEEDED = {TESTS / room / "test_plane.py" for room in ("controller", "webhook", "authority", "node")}
Used = tuple[str, str]
# What no run of those tests comes to, and the test of the code that does.
ELSEWHERE: dict[str, dict[Used, str]] = {
    "operator": {
        # Server-side apply of an object that is not there needs it, and the audit log shows the one request as `patch`.
        ("configmaps", "create"): "charts/test_rights.py::test_a_server_side_apply_that_creates_needs_both_verbs",
        (
            "agentinstances",
            "delete",
        ): "controller/test_reconcile.py::test_a_leftover_is_deleted_and_a_second_look_finds_nothing",
        ("secrets", "update"): "controller/test_reconcile.py::test_what_is_due_is_rotated",
        ("events", "patch"): "kube/test_events.py::test_a_burst_is_one_event_and_its_count_comes_with_the_next_minute",
    },
    "webhook": {
        ("configmaps", "create"): "charts/test_rights.py::test_a_server_side_apply_that_creates_needs_both_verbs",
        ("events", "patch"): "kube/test_events.py::test_a_burst_is_one_event_and_its_count_comes_with_the_next_minute",
    },
    "authority": {
        ("events", "patch"): "kube/test_events.py::test_a_burst_is_one_event_and_its_count_comes_with_the_next_minute"
    },
    "node": {},
}


@pytest.fixture
def used(plane: Plane, request: pytest.FixtureRequest) -> dict[str, set[Used]]:
    ran = {item.path for item in request.session.items}
    if missing := sorted(str(path.relative_to(TESTS)) for path in NEEDED - ran):
        pytest.skip(f"needs the whole session: {', '.join(missing)} did not run")
    found: dict[str, set[Used]] = {process: set() for process in PROCESSES}
    for event in requests(audit_log(plane)):
        process = next(each for each in PROCESSES if user_of(each) == event["user"]["username"])
        if is_allowed(event):
            found[process].add(right_of(event))
    return found


def granted(process: str) -> set[Used]:
    name = f"countersign-{process}"
    roles = [each for each in render("node.enabled=true") if each["kind"] in ("ClusterRole", "Role")]
    rules = [rule for role in roles if role["metadata"]["name"] == name for rule in role["rules"]]
    return {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}


@pytest.mark.parametrize("process", PROCESSES)
def test_every_right_of_a_process_is_used_by_its_tests(process: str, used: dict[str, set[Used]]) -> None:
    assert granted(process) - used[process] <= set(ELSEWHERE[process])


@pytest.mark.parametrize("process", PROCESSES)
def test_what_is_used_elsewhere_is_granted_and_the_test_is_there(process: str) -> None:
    assert set(ELSEWHERE[process]) <= granted(process)
    for where in ELSEWHERE[process].values():
        file, _, name = where.partition("::")
        assert f"def {name}" in (TESTS / file).read_text()
