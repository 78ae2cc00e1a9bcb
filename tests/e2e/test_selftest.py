"""`helm test` makes one real signed call, and says so when policy does not let it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support import records
from support.install import helm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.real_cluster import RealCluster

SPACE = "countersign-test"
DENY = {
    "apiVersion": "countersign.dev/v1alpha1",
    "kind": "ClusterToolPolicy",
    "metadata": {"name": "e2e-no-tests"},
    "spec": {
        "rules": [
            {
                "name": "no-tests",
                "effect": "Deny",
                "reason": "The test is meant to fail.",
                "subjects": {"agents": [{"namespace": SPACE, "name": SPACE}]},
            }
        ]
    },
}


@pytest.fixture
def denied(cluster: RealCluster) -> Iterator[None]:
    cluster.apply(json.dumps(DENY))
    yield
    cluster.kubectl("delete", "clustertoolpolicy", "e2e-no-tests")


def test_helm_test_makes_one_signed_call_and_leaves_nothing(cluster: RealCluster) -> None:
    assert "Phase:          Succeeded" in helm(cluster, "test", "countersign", "--timeout", "4m")
    cluster.kubectl("wait", "--for=delete", f"namespace/{SPACE}", "--timeout=60s")


@pytest.mark.usefixtures("denied")
def test_helm_test_fails_when_policy_refuses_the_call(cluster: RealCluster) -> None:
    before = refusals(cluster)
    with pytest.raises(RuntimeError, match="job countersign-test failed"):
        helm(cluster, "test", "countersign", "--timeout", "4m")
    assert refusals(cluster) - before
    cluster.kubectl("wait", "--for=delete", f"namespace/{SPACE}", "--timeout=60s")


def refusals(cluster: RealCluster) -> set[str]:
    """Return the decisions that refused the test's call by policy: its namespace goes, the record stays."""
    found = records.records(cluster).items()
    agent = f"/ns/{SPACE}/sa/{SPACE}"
    return {
        decision
        for decision, each in found
        if each["status_code"] == "policy.denied" and str(each["actor"].get("app_name")).endswith(agent)
    }
