"""A pod that has ended is known by its phase, also in the little that the front door keeps of one."""

from __future__ import annotations

import pytest

from countersign.kube.pods import has_ended
from countersign.kube.slim import head_only


@pytest.mark.parametrize(
    ("phase", "ended"), [("Pending", False), ("Running", False), ("Succeeded", True), ("Failed", True)]
)
def test_a_pod_ends_with_its_phase(phase: str, ended: bool) -> None:  # noqa: FBT001 - a table
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "uid": "u"},
        "spec": {},
        "status": {"phase": phase},
    }

    assert has_ended(pod) is has_ended(head_only(pod)) is ended
    assert head_only(pod)["metadata"] == pod["metadata"]


def test_a_pod_without_a_status_has_not_ended() -> None:
    pod = {"metadata": {"name": "a"}}
    assert not has_ended(pod)
    assert not has_ended(head_only(pod))
