"""C7 on a real API server: with its real token a node speaks of its own Device, in its own name, and of nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.chart import SYSTEM, as_list

from countersign.api.device import DeviceStatus
from countersign.clock import SystemClock
from countersign.kube import DEVICES, Kube, KubeError
from countersign.node.proposing import MANAGER, facts_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from countersign.devcluster import Plane

pytestmark = pytest.mark.plane


def fact(source: str = "node", value: str = "yes", name: str = "disk-encryption") -> dict[str, str]:
    return {"name": name, "value": value, "source": source, "observedTime": "2026-11-24T12:00:00Z"}


@pytest.fixture
def nodes(installed: Plane, namespace: str) -> Any:
    """Two nodes, each with its pod of ``countersign node`` and its Device; a third Device is a person's."""
    ours = [f"{namespace}-{letter}" for letter in "ab"]
    objects: list[dict[str, Any]] = []
    for name in ours:
        objects.append({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        spec = {
            "nodeName": name,
            "serviceAccountName": "countersign-node",
            "containers": [{"name": "node", "image": "countersign:test"}],
        }
        objects.append(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": SYSTEM}, "spec": spec}
        )
        objects.append(device(name, {"type": "Node", "node": {"name": name}}))
    objects.append(device(f"{namespace}-c", {"type": "Users", "users": ["ana"]}))
    installed.kubectl("apply", "-f", "-", data=as_list(objects))
    yield [*ours, f"{namespace}-c"]
    installed.kubectl("delete", "--force", "--grace-period=0", "-f", "-", data=as_list(objects))


def device(name: str, binding: dict[str, Any]) -> dict[str, Any]:
    spec = {"poolRef": {"name": "racks"}, "binding": binding}
    return {"apiVersion": "countersign.dev/v1alpha1", "kind": "Device", "metadata": {"name": name}, "spec": spec}


@pytest.fixture
async def kube(installed: Plane, nodes: list[str], tmp_path: Path) -> AsyncIterator[Kube]:
    """What the process on the first node holds: a token bound to its pod."""
    words = ["--bound-object-kind=Pod", f"--bound-object-name={nodes[0]}"]
    connected = await connect(installed, tmp_path, *words)
    yield connected
    await connected.aclose()


async def connect(plane: Plane, directory: Path, *words: str) -> Kube:
    token = directory / "token"
    token.write_text(plane.kubectl("create", "token", "countersign-node", "-n", SYSTEM, *words))
    return await Kube.connect(plane.kubeconfig(directory / "kubeconfig", token))


async def tell(kube: Kube, name: str, status: dict[str, Any]) -> dict[str, Any]:
    head = {"apiVersion": DEVICES.api_version, "kind": DEVICES.kind, "metadata": {"name": name}}
    return await kube.apply_status(DEVICES, {**head, "status": status}, MANAGER)


async def test_c7_a_node_speaks_of_its_own_device_only(kube: Kube, nodes: list[str]) -> None:
    found = await tell(kube, nodes[0], {"facts": facts_of("hardware", SystemClock().now())})
    assert {one["name"] for one in found["status"]["facts"]} == {"architecture", "kernel", "tpm"}
    for other in nodes[1:]:
        with pytest.raises(KubeError, match=f"node {nodes[0]} speaks of its own Device only") as caught:
            await tell(kube, other, {"facts": [fact()]})
        assert caught.value.status == 403


async def test_c7_a_token_of_no_node_speaks_of_none(installed: Plane, nodes: list[str], tmp_path: Path) -> None:
    kube = await connect(installed, tmp_path)
    with pytest.raises(KubeError, match="speaks of its own Device only"):
        await tell(kube, nodes[0], {"facts": [fact()]})
    await kube.aclose()


OTHER_STATUS: dict[str, Any] = {
    "observedGeneration": 7,
    "conditions": [
        {
            "type": "Attested",
            "status": "True",
            "reason": "Attested",
            "message": "so I say",
            "lastTransitionTime": "2026-11-24T12:00:00Z",
        }
    ],
    "assurance": "Hardware",
    "attestationTime": "2026-11-24T12:00:00Z",
    "manufacturer": "id:49465800",
    "model": "other",
    "firmware": "id:00070055",
    "instances": 7,
}


def test_every_field_of_the_status_has_a_case() -> None:
    names = {field.alias or name for name, field in DeviceStatus.model_fields.items()}
    assert {*OTHER_STATUS, "facts"} == names


@pytest.mark.parametrize("field", OTHER_STATUS)
async def test_c7_a_node_writes_facts_and_nothing_else(kube: Kube, nodes: list[str], field: str) -> None:
    with pytest.raises(KubeError, match="a node writes facts and nothing else"):
        await tell(kube, nodes[0], {"facts": [fact()], field: OTHER_STATUS[field]})


async def test_c7_a_node_neither_reads_nor_approves(kube: Kube, nodes: list[str]) -> None:
    with pytest.raises(KubeError, match="not permitted"):
        await kube.get(DEVICES, nodes[0])
    with pytest.raises(KubeError, match="not permitted"):
        await kube.patch(DEVICES, nodes[0], {"spec": {"state": "Approved"}})
    with pytest.raises(KubeError, match="not permitted"):
        await kube.create(DEVICES, device("mine", {"type": "Node", "node": {"name": nodes[0]}}))
