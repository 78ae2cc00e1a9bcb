"""The chart on real nodes: our processes in real pods, reached by the API server through their Service."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support import image
from support.install import NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.real_cluster import RealCluster

PROCESSES = ("operator", "webhook", "authority")
MEBI = 1 << 20


def pod_of(cluster: RealCluster, process: str) -> dict[str, Any]:
    label = f"app.kubernetes.io/component={process}"
    found = cluster.get("pods", "-n", NAMESPACE, "-l", label, "--field-selector=status.phase=Running")["items"]
    assert found
    return dict(found[0])


def inside(cluster: RealCluster, process: str, program: str) -> str:
    """Run a Python program in the container of a process of ours and return what it printed."""
    return cluster.kubectl("exec", "-n", NAMESPACE, f"deploy/countersign-{process}", "--", "python", "-c", program)


def test_two_nodes_are_ready(cluster: RealCluster) -> None:
    nodes = cluster.get("nodes")["items"]
    ready = {
        node["metadata"]["name"]: condition["status"]
        for node in nodes
        for condition in node["status"]["conditions"]
        if condition["type"] == "Ready"
    }
    assert ready == {"node-a": "True", "node-b": "True"}


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_is_ready_and_holds_nothing_it_does_not_need(cluster: RealCluster, process: str) -> None:
    pod = pod_of(cluster, process)
    assert [each["ready"] for each in pod["status"]["containerStatuses"]] == [True]
    program = """
import json, os, pathlib
status = dict(line.split(":\\t", 1) for line in pathlib.Path("/proc/1/status").read_text().splitlines() if ":\\t" in line)
def refused(path):
    try:
        pathlib.Path(path).write_text("x")
    except OSError as error:
        return error.errno
print(json.dumps({"ids": [os.getuid(), os.getgid()], "caps": status["CapEff"], "bounding": status["CapBnd"],
    "new": status["NoNewPrivs"], "seccomp": status["Seccomp"], "root": refused("/opt/countersign/x"), "etc": refused("/etc/x")}))
"""
    none, read_only = "0000000000000000", 30
    assert json.loads(inside(cluster, process, program)) == {
        "ids": [65532, 65532],
        "caps": none,
        "bounding": none,
        "new": "1",
        "seccomp": "2",
        "root": read_only,
        "etc": read_only,
    }


def test_the_image_knows_time_zones_and_what_it_is_made_of(cluster: RealCluster, figure: Callable[[str], None]) -> None:
    program = """
import json, pathlib
bill = json.loads(pathlib.Path("/usr/share/countersign/sbom.cdx.json").read_text())
names = {each["name"]: each["version"] for each in bill["components"]}
print(json.dumps({"zone": pathlib.Path("/usr/share/zoneinfo/Europe/Berlin").is_file(), "about": bill["metadata"]["component"]["name"],
    "parts": len(names), "kopf": "kopf" in names, "tss": "libtss2-esys-3.0.2-0" in names, "pip": "pip" in names}))
"""
    said = json.loads(inside(cluster, "operator", program))
    parts = said.pop("parts")
    assert said == {"zone": True, "about": "countersign", "kopf": True, "tss": True, "pip": False}
    figure(f"bill of materials: {parts} packages")


def test_a_pod_is_injected_through_the_service(cluster: RealCluster, namespace: str) -> None:
    cluster.apply(_identity(namespace))
    words = ("run", "agent", "-n", namespace, "--image=localhost/agent:1", "--labels=app=agent", "--dry-run=server")
    pod = json.loads(cluster.kubectl(*words, "--overrides", '{"spec":{"serviceAccountName":"agent"}}', "-o", "json"))
    signer = pod["spec"]["initContainers"][0]
    assert (signer["name"], signer["securityContext"]["runAsUser"]) == ("countersign-signer", 64174)
    assert signer["image"] == pod_of(cluster, "webhook")["spec"]["containers"][0]["image"]


def test_a_kind_is_judged_through_the_service(cluster: RealCluster, namespace: str) -> None:
    server = {
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "ToolServer",
        "metadata": {"name": "bad", "namespace": namespace},
        "spec": {
            "audience": "https://tools.example.com/mcp",
            "protocol": "MCP",
            "tools": [{"name": "t", "access": "ReadOnly", "inputSchema": {"type": "nonsense"}}],
        },
    }
    with pytest.raises(RuntimeError, match=r"admission webhook \"kinds.countersign.dev\" denied the request"):
        cluster.apply(json.dumps(server))


def test_admission_wants_the_api_servers_certificate_and_calls_do_not(cluster: RealCluster) -> None:
    program = f"""
import ssl, urllib.request
def ask(path):
    try:
        url = "https://countersign-webhook.{NAMESPACE}.svc" + path
        return urllib.request.urlopen(url, timeout=5, context=ssl._create_unverified_context()).status
    except OSError as error:  # an alert or a closed connection, whichever of the two is read first
        reason = getattr(error, "reason", error)
        return "cut" if isinstance(reason, (ssl.SSLError, ConnectionError)) else repr(error)
print(ask(":8443/.well-known/jwks.json"), ask(":9443/mutate-pods"))
"""
    assert inside(cluster, "authority", program).split() == ["200", "cut"]


def test_the_webhooks_carry_the_operators_ca(cluster: RealCluster) -> None:
    for kind in ("mutatingwebhookconfiguration", "validatingwebhookconfiguration"):
        for each in cluster.get(kind, "countersign")["webhooks"]:
            assert each["clientConfig"].get("caBundle")


def test_memory_is_what_the_page_says(cluster: RealCluster, figure: Callable[[str], None]) -> None:
    for node in cluster.nodes:
        summary = json.loads(cluster.kubectl("get", "--raw", f"/api/v1/nodes/{node.name}/proxy/stats/summary"))
        for pod in summary["pods"]:
            if pod["podRef"]["namespace"] == NAMESPACE:
                used = pod["memory"]["workingSetBytes"] / MEBI
                if used:  # kubelet has measured a pod that is some seconds old
                    figure(f"{pod['podRef']['name'].rsplit('-', 2)[0]}: {used:.0f} MiB in its pod")
                assert used < 256
    name = pod_of(cluster, "operator")["spec"]["containers"][0]["image"]
    size = next(
        each["sizeBytes"] for each in cluster.get("node", "node-a")["status"]["images"] if name in each["names"]
    )
    figure(f"{image.NAME}: {size / MEBI:.0f} MiB")


def _identity(namespace: str) -> str:
    about = {"namespace": namespace, "name": "agent"}
    spec = {"serviceAccountName": "agent", "podSelector": {"matchLabels": {"app": "agent"}}, "tasks": "Optional"}
    return yaml.safe_dump_all(
        [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": about},
            {"apiVersion": "countersign.dev/v1alpha1", "kind": "AgentIdentity", "metadata": about, "spec": spec},
        ]
    )
