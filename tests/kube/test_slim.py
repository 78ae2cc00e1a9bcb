"""What is left out of an object is read by nobody."""

from __future__ import annotations

import pytest

from countersign.kube.pods import has_ended
from countersign.kube.slim import head_only


@pytest.mark.parametrize("phase", ["Pending", "Running", "Succeeded", "Failed", None])
def test_of_a_pod_that_is_kept_short_it_is_known_whether_it_has_ended(phase: str | None) -> None:
    status = {} if phase is None else {"status": {"phase": phase, "podIP": "192.0.2.7"}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "uid": "u", "annotations": {}}, **status}
    kept = head_only(pod)
    assert has_ended(kept) is has_ended(pod) is (phase in ("Succeeded", "Failed"))
    assert kept["metadata"] == {"name": "a", "uid": "u"}
