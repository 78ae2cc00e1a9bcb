"""Whatever dies comes back, and no call is allowed that should not be: our pods, the API server, a kubelet, a node."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from support.eventually import until
from support.install import NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.real_cluster import RealCluster


def judged(cluster: RealCluster, namespace: str) -> str:
    """Return what becomes of a ToolServer that must not be: ``refused`` by our judgement, ``unanswered``, or ``taken``."""
    spec = {"audience": "https://nobody.example.com/mcp", "protocol": "MCP", "tools": []}
    spec["tools"] = [{"name": "t", "access": "ReadOnly", "inputSchema": {"type": "nonsense"}}]
    about = {"name": "bad", "namespace": namespace}
    server = {"apiVersion": "countersign.dev/v1alpha1", "kind": "ToolServer", "metadata": about, "spec": spec}
    try:
        cluster.apply(json.dumps(server))
    except RuntimeError as refused:
        words = str(refused)
        return "refused" if 'admission webhook "kinds.countersign.dev" denied' in words else "unanswered"
    return "taken"


@pytest.mark.parametrize("process", ["operator", "webhook", "authority"])
def test_a_process_whose_pods_are_deleted_is_back(
    cluster: RealCluster, namespace: str, process: str, figure: Callable[[str], None]
) -> None:
    label = ("-l", f"app.kubernetes.io/component={process}")
    before = {pod["metadata"]["uid"] for pod in cluster.get("pods", "-n", NAMESPACE, *label)["items"]}
    cluster.kubectl("delete", "pods", "-n", NAMESPACE, *label, "--grace-period=0", "--force")
    seen: set[str] = set()

    def back() -> bool:
        seen.add(judged(cluster, namespace))
        pods = cluster.get("pods", "-n", NAMESPACE, *label)["items"]
        ready = [
            condition["status"]
            for pod in pods
            if pod["metadata"]["uid"] not in before
            for condition in pod["status"].get("conditions", [])
            if condition["type"] == "Ready"
        ]
        return len(ready) == len(before) and set(ready) == {"True"}

    took = until(back, f"{process} is Ready again")
    until(lambda: judged(cluster, namespace) == "refused", "the webhook judges")
    assert "taken" not in seen
    figure(f"{process}, all pods deleted: Ready again after {took:.1f} s")


def test_the_api_server_is_killed(cluster: RealCluster, namespace: str, figure: Callable[[str], None]) -> None:
    took = cluster.restart("kube-apiserver")
    until(lambda: judged(cluster, namespace) == "refused", "the webhook judges")
    for process in ("operator", "webhook", "authority"):
        cluster.kubectl("rollout", "status", f"deployment/countersign-{process}", "-n", NAMESPACE, "--timeout=60s")
    figure(f"API server killed: answers again after {took:.1f} s")


def test_a_kubelet_is_killed_and_hands_out_tpms_again(cluster: RealCluster, figure: Callable[[str], None]) -> None:
    node = cluster.nodes[1]
    pods = cluster.get("pods", "-A", f"--field-selector=spec.nodeName={node.name},status.phase=Running")["items"]
    before = {pod["metadata"]["uid"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods}
    began = time.monotonic()
    cluster.restart_kubelet(node)
    until(lambda: cluster.tpms(node) == 0 or time.monotonic() - began > 3, "kubelet forgot the plugin", 10)
    until(lambda: cluster.tpms(node) > 0, "the plugin registered again")
    figure(f"kubelet killed: TPMs are handed out again after {time.monotonic() - began:.1f} s")
    cluster.kubectl("wait", "--for=condition=Ready", f"node/{node.name}", "--timeout=60s")
    pods = cluster.get("pods", "-A", f"--field-selector=spec.nodeName={node.name},status.phase=Running")["items"]
    after = {pod["metadata"]["uid"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods}
    assert after == before


def test_a_node_loses_its_power_and_comes_back(cluster: RealCluster, figure: Callable[[str], None]) -> None:
    node = cluster.nodes[1]

    def ready() -> str:
        conditions = cluster.get("node", node.name)["status"]["conditions"]
        return next(each["status"] for each in conditions if each["type"] == "Ready")

    node.kill()
    noticed = until(lambda: ready() == "Unknown", "the cluster notices")
    began = time.monotonic()
    cluster.reboot(node)
    until(lambda: ready() == "True", "the node is Ready")
    figure(f"node killed: noticed after {noticed:.1f} s; Ready {time.monotonic() - began:.1f} s after its boot")
    until(lambda: cluster.tpms(node) > 0, "its TPMs are handed out")
    figure(f"node killed: its TPMs are handed out {time.monotonic() - began:.1f} s after its boot")
    assert {other.name for other in cluster.nodes if other.alive} == {"node-a", "node-b"}
