"""`helm test` makes one real signed call, and says so when policy does not let it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
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
    cluster.kubectl("delete", "namespace", SPACE, "--timeout=60s")


def test_helm_test_makes_one_signed_call_and_leaves_nothing(cluster: RealCluster) -> None:
    assert "Phase:          Succeeded" in helm(cluster, "test", "countersign", "--timeout", "4m")
    cluster.kubectl("wait", "--for=delete", f"namespace/{SPACE}", "--timeout=60s")


@pytest.mark.usefixtures("denied")
def test_helm_test_fails_when_policy_refuses_the_call(cluster: RealCluster) -> None:
    with pytest.raises(RuntimeError, match="countersign"):
        helm(cluster, "test", "countersign", "--timeout", "4m")
    said = cluster.kubectl("logs", "-n", SPACE, "-l", f"app={SPACE}", "-c", "agent")
    assert json.loads(said)["error"]["data"]["code"] == "policy.denied"
