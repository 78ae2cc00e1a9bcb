"""Two operators: the one that leads is killed, the other goes on within 15 s, and nothing is done twice."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from support.eventually import until
from support.install import NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.real_cluster import RealCluster

LEASE = "countersign-operator"
LIMIT = 15.0


def lease(cluster: RealCluster) -> dict[str, Any]:
    return dict(cluster.get("lease", LEASE, "-n", NAMESPACE)["spec"])


def operators(cluster: RealCluster) -> list[dict[str, Any]]:
    return list(cluster.get("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=operator")["items"])


def leading(pod: dict[str, Any]) -> int:
    """Return 1 if this operator says that it leads; 0 if not, or if it says nothing."""
    try:
        with urllib.request.urlopen(f"http://{pod['status']['podIP']}:8080/metrics", timeout=2) as answer:
            text = answer.read().decode()
    except OSError:
        return 0
    return int("countersign_operator_leading 1.0" in text.splitlines())


def made(cluster: RealCluster) -> dict[str, str]:
    """Return what the operator makes once, by its version: Secrets of keys and certificates, and the trust of namespaces."""
    found = cluster.get("secrets", "-n", NAMESPACE)["items"]
    found += [
        each for each in cluster.get("configmaps", "-A")["items"] if each["metadata"]["name"] == "countersign-trust"
    ]
    kept = [each["metadata"] for each in found if each.get("type") != "helm.sh/release.v1"]
    return {f"{each['namespace']}/{each['name']}": each["resourceVersion"] for each in kept}


def events(cluster: RealCluster) -> dict[str, int]:
    """Return how often each of our Events was told, by what it is about and why."""
    found: dict[str, int] = {}
    for each in cluster.get("events.events.k8s.io", "-A")["items"]:
        if str(each.get("reportingController", "")).startswith("countersign"):
            about = f"{each['regarding'].get('uid')} {each['reason']} {each.get('note')}"
            times = int((each.get("series") or {}).get("count", 1))
            found[about] = found.get(about, 0) + times
    return found


def test_the_leader_is_killed_and_the_other_goes_on(
    cluster: RealCluster, namespace: str, figure: Callable[[str], None]
) -> None:
    until(lambda: sum(map(leading, operators(cluster))) == 1, "one of two operators leads")
    before, pods = lease(cluster), operators(cluster)
    assert len(pods) == 2
    chosen = next(pod for pod in pods if before["holderIdentity"].startswith(f"{pod['metadata']['name']}_"))
    until(lambda: f"{namespace}/countersign-trust" in made(cluster), "the namespace has its trust")
    things, told = made(cluster), events(cluster)
    node = next(each for each in cluster.nodes if each.name == chosen["spec"]["nodeName"])

    node.kill_container(chosen["status"]["containerStatuses"][0]["containerID"])
    most = 0

    def accepted() -> bool:
        nonlocal most
        most = max(most, sum(map(leading, pods)))
        found = cluster.get("agentidentity", "late", "-n", namespace).get("status", {}).get("conditions", [])
        return any(each["type"] == "Ready" for each in found)

    cluster.apply(json.dumps(identity(namespace)))
    took = until(accepted, "an object of after the leader's death has its conditions", LIMIT)
    figure(f"operator that leads killed: the other works after {took:.1f} s")
    assert most <= 1
    after = lease(cluster)
    assert after["holderIdentity"] != before["holderIdentity"]
    assert after["leaseTransitions"] == before["leaseTransitions"] + 1
    until(lambda: all(pod["status"]["containerStatuses"][0]["ready"] for pod in operators(cluster)), "both are Ready")
    assert sum(map(leading, operators(cluster))) == 1
    now = made(cluster)
    assert {each: now.get(each) for each in things} == things
    again = events(cluster)
    assert {each: times for each, times in again.items() if each in told and times != told[each]} == {}
    assert {each: times for each, times in again.items() if each not in told and times != 1} == {}


def identity(namespace: str) -> dict[str, Any]:
    about = {"namespace": namespace, "name": "late"}
    spec = {"serviceAccountName": "late", "podSelector": {"matchLabels": {"app": "late"}}, "tasks": "Optional"}
    return {"apiVersion": "countersign.dev/v1alpha1", "kind": "AgentIdentity", "metadata": about, "spec": spec}


@pytest.fixture(autouse=True)
def two(cluster: RealCluster) -> None:
    """Have both operators Ready, whatever was killed before."""
    cluster.kubectl("rollout", "status", "deployment/countersign-operator", "-n", NAMESPACE, "--timeout=120s")
