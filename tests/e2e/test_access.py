"""Who gets into an agent's pod, and what its neighbours and its own container reach (threats.md C1, C2, C5, C8, C9)."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from support.agents import Agents, image_of
from support.eventually import until

from countersign.devcluster import find_or_build

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.real_cluster import RealCluster

SPACE = "e2e-access"
EDITOR, DEBUGGER = "e2e-editor", "e2e-debugger"
SIGNER_UID = 64174


@pytest.fixture(scope="module")
def agents(cluster: RealCluster) -> Iterator[Agents]:
    """An agent, and two users who may edit in its namespace; one has the verb besides."""
    found = Agents(cluster, SPACE)
    found.prepare()
    ways = ["--verb=get,update,patch", "--resource=pods/ephemeralcontainers"]  # `edit` has all others
    found.kubectl("create", "role", "ephemeral", *ways)
    found.kubectl("create", "role", "exec", "--verb=exec", "--resource=agentinstances.countersign.dev")
    for user, roles in {EDITOR: ["ephemeral"], DEBUGGER: ["ephemeral", "exec"]}.items():
        found.kubectl("create", "rolebinding", f"{user}-edit", "--clusterrole=edit", f"--user={user}")
        for role in roles:
            found.kubectl("create", "rolebinding", f"{user}-{role}", f"--role={role}", f"--user={user}")
    found.start("agent")
    found.kubectl("rollout", "status", "deployment/agent", "--timeout=90s")
    yield found
    found.delete()


@pytest.fixture(scope="module")
def name(agents: Agents) -> str:
    return str(agents.pod("agent")["metadata"]["name"])


# Getting in


@pytest.mark.parametrize(
    ("words", "subresource"),
    [
        (["exec", "POD", "-c", "agent", "--", "id"], "exec"),
        (["exec", "POD", "-c", "countersign-signer", "--", "id"], "exec"),
        (["attach", "POD", "-c", "agent"], "attach"),
        (["port-forward", "POD", ":7080"], "portforward"),
        (["debug", "POD", "--image=x"], "ephemeralcontainers"),
        (["debug", "POD", "--image=x", "--target=agent"], "ephemeralcontainers"),
    ],
    ids=["exec", "exec into the signer", "attach", "port-forward", "debug", "debug --target"],
)
def test_c9_who_may_edit_does_not_get_in(agents: Agents, name: str, words: list[str], subresource: str) -> None:
    said = f"{EDITOR} may not use pods/{subresource} in namespace {SPACE}: it needs the verb exec on agentinstances"
    with pytest.raises(RuntimeError, match=re.escape(said)):
        agents.kubectl(f"--as={EDITOR}", *(name if word == "POD" else word for word in words))


def test_c9_who_has_the_verb_runs_a_program(agents: Agents, name: str) -> None:
    assert agents.kubectl(f"--as={DEBUGGER}", "exec", name, "-c", "agent", "--", "id", "-u").strip() == "1000"


def kubectl(agents: Agents, *words: str) -> subprocess.Popen[str]:
    command = [find_or_build().kubectl, f"--kubeconfig={agents.cluster.kubeconfig}", "-n", SPACE, f"--as={DEBUGGER}"]
    return subprocess.Popen([*command, *words], stdout=subprocess.PIPE, text=True)


def test_c9_who_has_the_verb_attaches(agents: Agents, name: str) -> None:
    with kubectl(agents, "attach", name, "-c", "agent") as attached:
        assert attached.stdout is not None
        assert attached.stdout.readline().strip() == "working"
        attached.kill()


def test_c9_who_has_the_verb_acts_as_the_agent_through_a_forwarded_port(agents: Agents, name: str) -> None:
    with kubectl(agents, "port-forward", name, ":7080") as forwarded:
        assert forwarded.stdout is not None
        port = forwarded.stdout.readline().rpartition(" -> ")[0].rpartition(":")[2]
        request = urllib.request.Request(f"http://127.0.0.1:{port}/-/servers", headers={"host": "127.0.0.1:7080"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert "tools" in answer.read().decode()
        forwarded.kill()


# What the agent's own container reaches


LOOK = """
import json, os, pathlib
places = ["/run/countersign", "/var/run/countersign", "/var/run/secrets", "/dev/tpm0", "/dev/tpmrm0"]
found, read = {}, []
for each in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        found[each.name] = each.stat().st_uid
    except OSError:
        continue
    if each.stat().st_uid != os.getuid():
        for name in ("environ", "mem", "root/run/countersign", "fd"):
            try:
                (os.listdir if name in ("fd", "root/run/countersign") else open)(each / name)
                read.append(f"{each.name}/{name}")
            except OSError:
                pass
print(json.dumps({"places": [each for each in places if os.path.exists(each)], "uids": sorted(set(found.values())), "read": read}))
"""


def test_c5_the_agents_container_reaches_neither_token_nor_memory_nor_tpm_of_its_signer(agents: Agents) -> None:
    seen = json.loads(agents.run("agent", "python", "-c", LOOK))
    assert seen == {"places": [], "uids": [1000], "read": []}
    # The same look from where all of it is, so that the absence above says something.
    own = json.loads(agents.run("agent", "python", "-c", LOOK, container="countersign-signer"))
    assert own["uids"] == [SIGNER_UID]
    assert "/run/countersign" in own["places"] or "/var/run/countersign" in own["places"]


PORT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 7080), timeout=5).close()
    print("open")
except ConnectionRefusedError:
    print("refused")
"""


def test_c5_another_pod_and_the_node_cannot_reach_the_signing_port(agents: Agents) -> None:
    pod = agents.pod("agent")
    assert agents.run("tools", "python", "-c", PORT, pod["status"]["podIP"], container="server").strip() == "refused"
    node = next(each for each in agents.cluster.nodes if each.name == pod["spec"]["nodeName"])
    assert node.shell("python3", "-c", PORT, pod["status"]["podIP"]).strip() == "refused"
    assert agents.run("agent", "python", "-c", PORT, "127.0.0.1").strip() == "open"


PAST = """
import json, sys, urllib.error, urllib.request
call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "read", "arguments": {"name": "x"}}}
headers = {"content-type": "application/json", "mcp-protocol-version": "2025-11-25"}
try:
    urllib.request.urlopen(urllib.request.Request(sys.argv[1], json.dumps(call).encode(), headers), timeout=10)
    print("answered")
except urllib.error.HTTPError as refused:
    print(refused.code, json.loads(refused.read())["code"])
"""


def test_c1_the_tool_server_takes_nothing_from_an_agent_that_goes_past_its_signer(agents: Agents) -> None:
    tools = agents.pod("tools")["status"]["podIP"]
    service = agents.get("service", "tools")["spec"]["clusterIP"]
    for host in (f"tools.{SPACE}.svc", service, tools):
        said = agents.run("agent", "python", "-c", PAST, f"http://{host}:8000/mcp").strip()
        assert said == "401 token.missing"


# Pods that would reach more


def agent_like(agents: Agents, **spec: Any) -> dict[str, Any]:
    """Return a pod that the AgentIdentity selects, as somebody who may edit writes it."""
    container = {
        "name": "agent",
        "image": image_of(agents.cluster),
        "imagePullPolicy": "Never",
        **spec.pop("container", {}),
    }
    about = {"name": "hostile", "namespace": SPACE, "labels": {"app": "agent"}}
    whole = {"serviceAccountName": "agent", "automountServiceAccountToken": False, "containers": [container], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": whole}


def signers(agents: Agents, pod: dict[str, Any]) -> list[str]:
    """Return the signers of what becomes of ``pod`` when somebody who may edit makes it."""
    file = agents.cluster.directory / "hostile.json"
    file.write_text(json.dumps(pod))
    made = agents.cluster.kubectl("create", "--dry-run=server", "-o", "json", "-f", file, f"--as={EDITOR}")
    containers = json.loads(made)["spec"].get("initContainers", [])
    return [each["name"] for each in containers if "countersign.dev/tpm" in each["resources"]["limits"]]


def test_c2_an_ordinary_pod_of_who_may_edit_becomes_an_agent(agents: Agents) -> None:
    assert signers(agents, agent_like(agents)) == ["countersign-signer"]


def path(where: str) -> dict[str, Any]:
    return {
        "volumes": [{"name": "v", "hostPath": {"path": where}}],
        "container": {"volumeMounts": [{"name": "v", "mountPath": "/v"}]},
    }


@pytest.mark.parametrize(
    "spec",
    [
        {"shareProcessNamespace": True},
        {"hostPID": True},
        {"hostNetwork": True},
        path("/var/lib/countersign/tpm"),
        path("/var/lib/kubelet/pods"),
        path("/dev"),
        {"container": {"securityContext": {"runAsUser": SIGNER_UID}}},
        {"container": {"securityContext": {"privileged": True}}},
    ],
    ids=[
        "shared processes",
        "node's processes",
        "node's network",
        "TPM's folder",
        "pods' folder",
        "devices",
        "uid",
        "privileged",
    ],
)
def test_c5_a_pod_that_would_reach_a_signers_secrets_is_no_agent(agents: Agents, spec: dict[str, Any]) -> None:
    assert signers(agents, agent_like(agents, **spec)) == []


def test_c5_an_agents_own_container_gets_no_tpm(agents: Agents) -> None:
    pod = agent_like(agents, container={"resources": {"limits": {"countersign.dev/tpm": "1"}}})
    with pytest.raises(RuntimeError, match="only the signer may use the TPM"):
        signers(agents, pod)


# Last, because the pod is no agent after it


def test_c9_whoever_debugs_sees_no_signer_and_ends_the_agents_identity(agents: Agents, name: str) -> None:
    instance = agents.instance("agent")["metadata"]["name"]
    image = image_of(agents.cluster)
    words = ["debug", name, f"--image={image}", "--image-pull-policy=Never", "--target=agent", "--container=debugger"]
    agents.kubectl(f"--as={DEBUGGER}", *words, "--profile=restricted", "--", "python", "-c", LOOK)

    def looked() -> str:
        return agents.kubectl("logs", name, "-c", "debugger", check=False).strip()

    until(lambda: looked().startswith("{"), "the debugger has looked")
    seen = json.loads(looked())
    assert SIGNER_UID not in seen["uids"]
    assert (seen["places"], [each for each in seen["read"] if "countersign" in each]) == ([], [])

    def state() -> str:
        return str(agents.get("agentinstance", instance)["spec"].get("state"))

    until(lambda: state() == "Revoked", "the operator revokes the instance")
    assert agents.call("read", name="after")["refused"]["data"]["code"] == "instance.revoked"
