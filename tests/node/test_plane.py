"""The real processes ``node`` and ``authority`` on a real API server with the chart's rights: a TPM is proposed and handed out."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from authority.test_plane import SYSTEM, Running, ours, running
from cryptography.hazmat.primitives import serialization
from support.eventually import eventually
from support.plane import ROOT

from countersign.attest.client import AttestationClient, prove
from countersign.attest.tpm import TpmDevice
from countersign.attest.trust import Trust
from countersign.demo.processes import console, ready_code
from countersign.devcluster import start
from countersign.devcluster.plane import free_ports
from countersign.errors import Denied
from countersign.node.simulator import SOCKET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.kubelet import Kubelet
    from support.swtpm import Simulator

    from countersign.devcluster import Plane

__all__ = ["running"]

pytestmark = [pytest.mark.plane, pytest.mark.tpm]

ACCOUNT = "countersign-node"


def chart(plane: Plane) -> str:
    """What the chart grants a node, and the policy that ties it to its own Device."""
    words = [str(plane.binaries.helm), "template", "c", str(ROOT / "charts" / "countersign"), "--namespace", SYSTEM]
    words += ["--set", "node.enabled=true"]
    for template in ("node/rbac.yaml", "admission/devicestatus.yaml", "admission/devicenode.yaml"):
        words += ["-s", f"templates/{template}"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def pod_on(node: str) -> dict[str, Any]:
    spec = {
        "nodeName": node,
        "serviceAccountName": ACCOUNT,
        "containers": [{"name": "node", "image": "countersign:test"}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": node, "namespace": SYSTEM}, "spec": spec}


@pytest.fixture
def place(running: Running, namespace: str, simulator: Simulator) -> Iterator[str]:
    """Two nodes with their pods and a pool of the simulator's maker, all of the namespace's name; gone afterwards."""
    plane = running.plane
    roots = "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in simulator.roots)
    made = [ours("DevicePool", namespace, {"assurance": "Virtual", "ekRoots": roots, "enrollment": "Request"})]
    for node in (namespace, f"{namespace}-b"):
        made += [{"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}, pod_on(node)]
    rights = chart(plane)
    plane.kubectl("apply", "-f", "-", data=rights)
    plane.kubectl("apply", "-f", "-", data=json.dumps({"apiVersion": "v1", "kind": "List", "items": made}))
    yield namespace
    plane.kubectl("delete", "device", namespace, "--ignore-not-found")
    words = ["delete", "--force", "--grace-period=0", "-f", "-"]
    plane.kubectl(*words, data=json.dumps({"apiVersion": "v1", "kind": "List", "items": made}))
    plane.kubectl("delete", "-f", "-", data=rights)


def token(plane: Plane, path: Path, node: str, *words: str) -> Path:
    """Ask for a token that is bound to the node's pod."""
    bound = ["--bound-object-kind=Pod", f"--bound-object-name={node}"]
    path.write_text(plane.kubectl("create", "token", ACCOUNT, "-n", SYSTEM, *bound, *words))
    return path


def configured(running: Running, kubelet: Kubelet, slots: Path, node: str) -> tuple[Path, int]:
    """Write what kubelet would mount, and the settings; return their file and the health port."""
    plane, directory = running.plane, running.directory
    trust = directory / "trust"
    trust.mkdir()
    for name, text in (("authorityURL", running.url), ("webhookURL", "https://unused.example"), ("ca.crt", running.ca)):
        (trust / name).write_text(text)
    account = token(plane, directory / "api-token", node)
    (health,) = free_ports(1)
    settings = {
        "kubeconfig": str(plane.kubeconfig(directory / "node.kubeconfig", account)),
        "plugin_dir": str(kubelet.directory),
        "socket_dir": str(slots),
        "trust_dir": str(trust),
        "token_file": str(token(plane, directory / "node-token", node, "--audience=countersign.dev")),
        "health": {"host": "127.0.0.1", "port": health},
    }
    file = directory / "node.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file, health


async def test_a_node_hands_out_its_tpm_and_proposes_it(
    running: Running, place: str, kubelet: Kubelet, folder: Path
) -> None:
    plane, directory = running.plane, running.directory
    slots = folder / "slots"
    slots.mkdir()
    (folder / "slot-0").rename(slots / "slot-0")
    try:
        file, health = configured(running, kubelet, slots, place)
        log = directory / "node.log"
        child = start("node", [console(), "node", "--config", file], log=log)
        try:
            await eventually(lambda: "told" in state(plane, place), "proposed, with facts", 30)
            assert state(plane, place) == "Pending told"
            assert plane.get("device", place)["spec"]["binding"] == {"type": "Node", "node": {"name": place}}
            plugin = await kubelet.plugin()
            (given,) = await plugin.allocate(["slot-0"])
            assert given.mounts == [("/run/countersign/tpm", str(slots / "slot-0"))]
            await eventually(lambda: ready_code(health)[0] == 200, "ready")
            await elsewhere(running, f"{place}-b", slots)
        finally:
            code = await asyncio.to_thread(child.stop, 10)
        assert code == 0
        assert [each.name for each in kubelet.directory.iterdir()] == ["kubelet.sock"]
        text = log.read_text() + running.log()
        assert "Traceback" not in text
        assert "not permitted" not in text
        for name in ("api-token", "node-token"):
            assert (directory / name).read_text().strip() not in text
    finally:
        (slots / "slot-0").rename(folder / "slot-0")


def state(plane: Plane, name: str) -> str:
    """Return the Device's state, and whether its node told facts of it."""
    words = ["get", "device", name, "--ignore-not-found", "-o", "json"]
    found = json.loads(plane.kubectl(*words) or "{}")
    told = {one["source"] for one in (found.get("status") or {}).get("facts") or []} == {"node"}
    return f"{(found.get('spec') or {}).get('state', '')}{' told' if told else ''}"


async def elsewhere(running: Running, node: str, slots: Path) -> None:
    """C7: with another node's token this TPM is somebody else's, and nothing is made."""
    other = token(running.plane, running.directory / "other-token", node, "--audience=countersign.dev")
    device = await TpmDevice.open(f"swtpm:path={slots / 'slot-0' / SOCKET}")
    trust = Trust(running.url, "https://unused.example", running.ca)
    try:
        async with AttestationClient.to(trust, other) as client:
            with pytest.raises(Denied) as caught:
                await prove(device, "P256", client)
    finally:
        await device.aclose()
    assert caught.value.code == "attest.node_mismatch"
    reasons = [one["reason"] for one in running.plane.get("events.events.k8s.io", "-A")["items"]]
    assert {"Enrolled", "EvidenceRejected"} <= set(reasons)
