"""The plugin as a person runs it, against a real API server: their rights, their credentials, their exit statuses."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support.front_door import write_pair
from support.world import START, World

from countersign.clock import SystemClock
from countersign.console.device import decide
from countersign.devcluster import LocalCA
from countersign.kube import DEVICES, Kube
from countersign_webhook.main import Ports

if TYPE_CHECKING:
    from collections.abc import Iterator

    from countersign.devcluster import Plane

pytestmark = pytest.mark.plane

PLUGIN = Path(sys.executable).parent / "kubectl-countersign"
API = "countersign.dev/v1alpha1"
UID = "0f4f3f5c-1111-4222-8333-444455556666"


@dataclass
class Person:
    """Somebody with a kubeconfig."""

    kubeconfig: Path
    namespace: str

    def run(self, *words: str, answer: str = "") -> tuple[int, str, str]:
        """Run the plugin in this person's namespace; exit status, output, complaints."""
        done = subprocess.run(
            [str(PLUGIN), *words, "-n", self.namespace] if "device" not in words[0] else [str(PLUGIN), *words],
            input=answer,
            capture_output=True,
            text=True,
            check=False,
            timeout=250,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig), "COLUMNS": "80"},
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr


def apply(plane: Plane, *objects: dict[str, Any]) -> None:
    data = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", data=data)


def ours(kind: str, name: str, spec: dict[str, Any], namespace: str | None = None) -> dict[str, Any]:
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": API, "kind": kind, "metadata": meta, "spec": spec}


@pytest.fixture
def admin(crds: Plane, namespace: str) -> Person:
    return Person(crds.admin_kubeconfig, namespace)


@pytest.fixture
def nobody(crds: Plane, namespace: str, tmp_path: Path) -> Person:
    return Person(crds.kubeconfig(tmp_path / "nobody", crds.client("nobody")), namespace)


# status and why


def test_status_says_what_it_may_not_see_and_does_not_call_it_well(nobody: Person) -> None:
    status, out, _ = nobody.run("status", "-o", "json")
    found = json.loads(out)
    states = {one["part"]: one["state"] for one in found["parts"]}

    assert (status, found["well"]) == (3, False)
    assert (states["API server"], states["clock"], states["devices"]) == ("ok", "ok", "unknown")


def test_status_of_a_namespace_names_what_is_not_ready(crds: Plane, admin: Person) -> None:
    apply(crds, ours("AgentIdentity", "agent", {"serviceAccountName": "agent"}, admin.namespace))

    status, out, _ = admin.run("status")

    assert status == 1
    [line] = [one for one in out.splitlines() if one.startswith(f"identities of {admin.namespace}")]
    assert line.endswith(f"bad       0 of 1 Ready; {admin.namespace}/agent (not looked at yet)")
    assert "\x1b" not in out


def test_an_api_server_that_is_away_is_no_answer(tmp_path: Path, crds: Plane) -> None:
    config = yaml.safe_load(crds.admin_kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "away").write_text(yaml.safe_dump(config))

    status, out, complaint = Person(tmp_path / "away", "default").run("status")

    assert (status, out) == (3, "")
    assert "does not answer" in complaint


def test_why_explains_a_pod_that_is_no_agent(crds: Plane, admin: Person) -> None:
    spec = {"serviceAccountName": "agent", "containers": [{"name": "agent", "image": "x"}]}
    crds.kubectl("create", "serviceaccount", "agent", "-n", admin.namespace)
    meta = {"name": "agent", "namespace": admin.namespace}
    apply(crds, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})

    status, out, _ = admin.run("why", "agent")
    assert status == 1
    assert "no AgentIdentity selects it (ServiceAccount agent): it is no agent" in out

    apply(crds, ours("AgentIdentity", "agent", {"serviceAccountName": "agent"}, admin.namespace))
    status, out, _ = admin.run("why", "agent", "-o", "yaml")
    said = {one["what"]: one["text"] for one in yaml.safe_load(out)["found"]}
    assert status == 1
    assert (
        said["signer"] == f"not injected: namespace {admin.namespace} is not labelled countersign.dev/injection=enabled"
    )
    assert admin.run("why", "another")[0] == 1


# device


@pytest.fixture
def device(crds: Plane, namespace: str) -> Iterator[str]:
    """A Device that waits for approval."""
    make_device(crds, namespace, "a")
    yield namespace
    crds.kubectl("delete", "device", namespace, check=False)


def make_device(plane: Plane, name: str, digit: str) -> None:
    spec = {
        "poolRef": {"name": name},
        "ek": {"publicKeySHA256": f"sha256:{digit * 32}{name.removeprefix('test-'):0>32}"},
        "binding": {"type": "Node", "node": {"name": name}},
    }
    apply(plane, ours("Device", name, spec))


def state(plane: Plane, name: str) -> str:
    return str(plane.get("device", name)["spec"]["state"])


def test_a_device_is_listed_shown_and_approved(crds: Plane, admin: Person, device: str) -> None:
    ek = str(crds.get("device", device)["spec"]["ek"]["publicKeySHA256"])
    status, out, _ = admin.run("device", "list", "--pending", "-o", "wide")
    assert status == 0
    assert ek in out

    status, out, _ = admin.run("device", "approve", device, answer="n\n")
    assert (status, state(crds, device)) == (1, "Pending")
    assert f"endorsement key  {ek}" in out

    assert admin.run("device", "approve", device, "--ek", f"sha256:{'0' * 64}", "--yes")[0] == 1
    assert state(crds, device) == "Pending"
    assert admin.run("device", "approve", device, "--ek", ek, "--yes")[0] == 0
    assert state(crds, device) == "Approved"
    assert admin.run("device", "approve", device)[:2] == (0, f"device {device} is Approved already\n")
    assert admin.run("device", "deny", device, answer="y\n")[0] == 0
    assert state(crds, device) == "Denied"


def test_one_without_the_right_is_told_so(crds: Plane, nobody: Person, device: str) -> None:
    status, _, complaint = nobody.run("device", "approve", device, "--yes")

    assert (status, state(crds, device)) == (3, "Pending")
    assert "not permitted" in complaint


def test_b13_another_key_under_the_same_name_is_not_approved(crds: Plane, device: str) -> None:
    """What was shown is compared in the step that writes: an approval is of a key, not of a name."""

    async def race() -> tuple[str | None, str | None]:
        kube = await Kube.connect(crds.admin_kubeconfig)
        try:
            shown = await kube.get(DEVICES, device)
            crds.kubectl("delete", "device", device)
            make_device(crds, device, "b")
            other = await decide(kube, shown, "Approved")
            fresh = await kube.get(DEVICES, device)
            crds.kubectl("patch", "device", device, "--type=merge", "-p", '{"spec":{"state":"Denied"}}')
            return other, await decide(kube, fresh, "Approved")
        finally:
            await kube.aclose()

    other_key, other_state = asyncio.run(race())

    assert other_key is not None
    assert other_key.startswith("its endorsement key is sha256:bbbb")
    assert other_state == "it is Denied now, and was Pending"
    assert state(crds, device) == "Denied"


# revoke


def make_instance(plane: Plane, namespace: str, name: str) -> None:
    spec = {
        "agentRef": {"name": "agent", "uid": UID},
        "deviceRef": {"name": "worker-1", "uid": UID},
        "type": "Pod",
        "pod": {"name": "agent", "uid": UID, "nodeName": "worker-1"},
    }
    apply(plane, ours("AgentInstance", name, spec, namespace))


def test_a_revocation_is_written_with_its_reason_and_waited_for(crds: Plane, admin: Person) -> None:
    make_instance(crds, admin.namespace, "agent-7f9c4")

    status, out, _ = admin.run("revoke", "agent-7f9c4", "--reason", "ticket 8123", "--yes", "--timeout", "1")

    spec = crds.get("agentinstance", "agent-7f9c4", "-n", admin.namespace)["spec"]
    assert (spec["state"], spec["stateReason"]) == ("Revoked", "ticket 8123")
    assert (status, out) == (1, f"{admin.namespace}/agent-7f9c4: written, and not seen to be Revoked yet\n")

    seen = {
        "type": "Revoked",
        "status": "True",
        "reason": "ByPerson",
        "message": "",
        "lastTransitionTime": "2026-11-24T12:00:00Z",
    }
    patch = json.dumps({"status": {"conditions": [seen]}})
    where = ("agentinstance", "agent-7f9c4", "-n", admin.namespace)
    crds.kubectl("patch", *where, "--subresource=status", "--type=merge", "-p", patch)
    assert admin.run("revoke", "instance/agent-7f9c4", "--yes")[0] == 0


def test_a_name_that_nothing_or_several_have_revokes_nothing(crds: Plane, admin: Person, device: str) -> None:
    assert admin.run("revoke", "nothing-of-that-name", "--yes")[0] == 1
    assert admin.run("revoke", "secret/x", "--yes")[0] == 2
    make_instance(crds, admin.namespace, device)
    status, _, complaint = admin.run("revoke", device, "--yes")
    assert (status, f"instance/{device}, device/{device}" in complaint) == (2, True)
    assert state(crds, device) == "Pending"


# audit, of a webhook in a pod: tests/webhook/test_plane.py has one outside, and what a person may see


def address() -> str:
    """Return an address of this machine that the API server would proxy to: it refuses loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


async def test_the_log_of_a_webhook_in_a_pod_is_read_through_the_api_server(
    crds: Plane, namespace: str, tmp_path: Path
) -> None:
    write_pair(tmp_path, LocalCA("serving"))
    host, kube = address(), await Kube.connect(crds.admin_kubeconfig)
    tls = {"tls_cert": tmp_path / "tls.crt", "tls_key": tmp_path / "tls.key", "port": 0}
    world = await World.make(tmp_path, accounts=kube, calls={**tls, "host": host})
    await world.call("create_refund", {"charge": "ch_1"})
    world.use(clock=SystemClock())
    ports = Ports(world.context)
    await ports.start()
    try:
        stand_in(crds, namespace, host, ports.calls.number)
        admin = Person(crds.admin_kubeconfig, "billing")
        since = START.isoformat()
        words = ("audit", "--system-namespace", namespace, "--since", since)
        status, out, complaint = await asyncio.to_thread(admin.run, *words)
        assert (status, complaint) == (0, "")
        head, line = out.splitlines()
        assert head.split() == ["TIME", "ANSWER", "CODE", "AGENT", "TOOL"]
        assert line.split()[1:] == ["deny", "policy.default_deny", "refund-agent", "create_refund"]
        assert line.index("deny") == head.index("ANSWER")
        assert len(line) <= 80
        assert crds.kubectl("get", "csr", "-o", "name").split() == []  # the statement was taken back
    finally:
        await ports.aclose()
        await world.context.aclose()
        await kube.aclose()


def stand_in(plane: Plane, namespace: str, host: str, port: int) -> None:
    """Make a pod that says it runs at an address where the webhook listens, as kubelet would say."""
    labels = {"app.kubernetes.io/component": "webhook"}
    container = {"name": "webhook", "image": "x", "ports": [{"name": "calls", "containerPort": port}]}
    meta = {"name": "countersign-webhook-0", "namespace": namespace, "labels": labels}
    spec = {"containers": [container], "serviceAccountName": "webhook", "nodeName": "nowhere"}
    plane.kubectl("create", "serviceaccount", "webhook", "-n", namespace)
    apply(plane, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    status = json.dumps({"status": {"phase": "Running", "podIP": host, "podIPs": [{"ip": host}]}})
    where = ("pod", "countersign-webhook-0", "-n", namespace, "--subresource=status", "--type=merge")
    plane.kubectl("patch", *where, "-p", status)
