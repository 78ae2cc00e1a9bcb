"""Agents in real pods on real nodes, each with a TPM from the device plugin: what they may do, and what a thief may not."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.agents import Agents
from support.install import NAMESPACE as SYSTEM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.real_cluster import RealCluster

HERE = Path(__file__).parent
SPACE = "e2e-agents"
TPM = "countersign.dev/tpm"

pytestmark = pytest.mark.short


@pytest.fixture(scope="module")
def agents(cluster: RealCluster, figure: Callable[[str], None]) -> Iterator[Agents]:
    """The agents, started from nothing: the agent Ready, the job done, the runner past its step."""
    found = Agents(cluster, SPACE)
    found.prepare()
    began = time.monotonic()
    found.start("agent", "runner")
    found.start_job()
    found.kubectl("rollout", "status", "deployment/agent", "--timeout=90s")
    figure(f"agent Deployment Ready, TPM, attestation and certificate: {time.monotonic() - began:.1f} s")
    found.kubectl("wait", "--for=condition=Complete", "job/job", "--timeout=90s")
    found.kubectl("wait", "--for=condition=Ready", "pod/runner", "--timeout=90s")
    yield found
    found.delete()


@pytest.mark.parametrize("app", ["agent", "runner"])
def test_each_shape_has_its_own_instance_on_its_own_tpm(agents: Agents, app: str) -> None:
    instance, pod = agents.instance(app), agents.pod(app)
    assert instance["spec"]["pod"]["nodeName"] == pod["spec"]["nodeName"]
    device = agents.cluster.get("device", instance["spec"]["deviceRef"]["name"])
    assert device["spec"]["binding"]["node"]["name"] == pod["spec"]["nodeName"]
    assert pod["spec"]["initContainers"][0]["resources"]["limits"][TPM] == "1"


def test_the_identity_ends_with_the_job_though_its_pod_stays(agents: Agents) -> None:
    uid = agents.pod("job")["metadata"]["uid"]
    deadline = time.monotonic() + 30
    while any(each["spec"]["pod"]["uid"] == uid for each in agents.get("agentinstances")["items"]):
        assert time.monotonic() < deadline, "the job's instance is still there"
        time.sleep(0.2)


def test_a_job_with_a_signer_ends_and_its_call_was_allowed(agents: Agents) -> None:
    said = json.loads(agents.kubectl("logs", "job/job", "-c", "step"))
    assert json.loads(said["result"]["content"][0]["text"]) == {"did": "read", "with": {"name": "job"}}


def test_a_runners_step_calls_with_no_stored_secret(agents: Agents) -> None:
    said = json.loads(agents.kubectl("logs", "runner", "-c", "runner"))
    assert said["status"] == 200
    held = [volume for volume in agents.pod("runner")["spec"]["volumes"] if "secret" in volume]
    assert held == []


def test_an_allowed_call_from_inside_a_pod(agents: Agents, figure: Callable[[str], None]) -> None:
    began = time.monotonic()
    assert json.loads(agents.call("pay", amount=50)["result"]["content"][0]["text"]) == {
        "did": "pay",
        "with": {"amount": 50},
    }
    figure(f"one call from inside a pod, kubectl exec and interpreter included: {time.monotonic() - began:.2f} s")


@pytest.mark.parametrize(
    ("tool", "arguments", "code"), [("pay", {"amount": 51}, "policy.default_deny"), ("unknown", {}, "tool.unknown")]
)
def test_a_denied_call_from_inside_a_pod(agents: Agents, tool: str, arguments: dict[str, Any], code: str) -> None:
    before = len(agents.captured())
    answer = agents.call(tool, **arguments)
    assert answer["refused"]["data"]["code"] == code
    assert len(agents.captured()) == before


def test_a_captured_call_sent_again_from_another_pod_is_refused(agents: Agents) -> None:
    assert agents.call("read", name="captured")["status"] == 200
    line = agents.captured()[-1]
    name = agents.pod("runner")["metadata"]["name"]
    program = (HERE / "pods" / "replay.py").read_text().replace("sys.stdin.read()", repr(line))
    words = ("exec", name, "-c", "runner", "--", "python", "-c", program, f"tools.{SPACE}.svc:8000")
    assert json.loads(agents.kubectl(*words)) == [401, "proof.replayed"]


def test_the_pods_token_is_refused_beside_the_other_nodes_tpm(agents: Agents, tmp_path: Path) -> None:
    here, there = agents.cluster.nodes
    volumes = f"/var/lib/kubelet/pods/{agents.pod('agent')['metadata']['uid']}/volumes/kubernetes.io~projected"
    token, trust = tmp_path / "token", tmp_path / "trust"
    token.write_text(here.shell("cat", f"{volumes}/countersign-token/token"))
    trust.mkdir()
    for name, value in agents.get("configmap", "countersign-trust")["data"].items():
        (trust / name).write_text(value)
    _name_the_authority(agents.cluster)
    free = _free_slot(agents)
    words = (sys.executable, str(HERE / "pods" / "stolen.py"), f"swtpm:path={free}/tpm.sock", str(trust), str(token))
    assert there.shell(*words).strip() == "attest.node_mismatch"
    assert agents.call("read", name="still")["status"] == 200


def _name_the_authority(cluster: RealCluster) -> None:
    """Give the node itself the authority's name, as DNS gives it to pods; the file is the node's own."""
    address = cluster.get("-n", SYSTEM, "service", "countersign-authority")["spec"]["clusterIP"]
    line = f"{address} countersign-authority.{SYSTEM}.svc"
    cluster.nodes[1].shell("sh", "-c", f"grep -q '{line}' /etc/hosts || echo '{line}' >> /etc/hosts")


def _free_slot(agents: Agents) -> str:
    """Return the folder of a simulator of node-b that no pod has: one that the runner's signer has not mounted."""
    mounts = agents.run("runner", "cat", "/proc/self/mountinfo", container="countersign-signer")
    used = {part for part in mounts.split() if "/countersign/tpm/slot-" in part}
    slots = [f"/var/lib/countersign/tpm/slot-{number}" for number in range(2)]
    free = [each for each in slots if not any(part.endswith(each.rpartition("/")[2]) for part in used)]
    assert len(free) == 1
    return free[0]


def test_the_runners_identity_ends_with_it(agents: Agents) -> None:
    name = agents.instance("runner")["metadata"]["name"]
    agents.kubectl("exec", "runner", "-c", "runner", "--", "touch", "/work/done")
    agents.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/runner", "--timeout=30s")
    agents.kubectl("wait", "--for=delete", f"agentinstance/{name}", "--timeout=30s")
    agents.kubectl("delete", "pod", "runner", "--timeout=30s")
