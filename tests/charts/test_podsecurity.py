"""Pod Security, asked of the API server's own admission: `restricted` everywhere but the node, which says why it cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from kube.given import identity
from support.agent_pods import SETTINGS
from support.chart import CHART, VALUE_SETS, apply, render
from support.jsonpatch import patched

from countersign.devcluster import PlaneError
from countersign.kube.injection import inject

if TYPE_CHECKING:
    from collections.abc import Iterator

    from countersign.devcluster import Plane

pytestmark = pytest.mark.plane

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
NODE = "countersign-node"
ACCOUNTS = ("operator", "webhook", "authority", "node")


@pytest.fixture(scope="module")
def levels(installed: Plane) -> Iterator[dict[str, str]]:
    """A namespace for each level of Pod Security, with the ServiceAccounts that pods need to be admitted."""
    names = {level: f"chart-test-{level}" for level in ("restricted", "baseline", "privileged")}
    objects: list[dict[str, Any]] = []
    for level, name in names.items():
        labels = {f"pod-security.kubernetes.io/{mode}": level for mode in ("enforce", "warn", "audit")}
        labels["countersign.dev/tpm"] = "allowed"
        objects.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        accounts = [*(f"countersign-{each}" for each in ACCOUNTS), "refund-agent"]
        objects += [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": n, "namespace": name}} for n in accounts
        ]
    apply(installed, objects)
    yield names
    for name in names.values():
        installed.kubectl("delete", "namespace", name, "--wait=false")


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what would become a pod: templates of workloads, and pods as they are."""
    found = {}
    for each in objects:
        name = each["metadata"]["name"]
        if each["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            template = each["spec"]["template"]
            # What a StatefulSet claims is a volume of its pods.
            claims = each["spec"].get("volumeClaimTemplates", [])
            volumes = [{"name": one["metadata"]["name"], "emptyDir": {}} for one in claims]
            spec = {**template["spec"], "volumes": [*template["spec"].get("volumes", []), *volumes]}
            found[name] = {"metadata": {"labels": template["metadata"].get("labels", {})}, "spec": spec}
        if each["kind"] == "Pod":
            found[name] = {"metadata": {}, "spec": each["spec"]}
    return found


def create(plane: Plane, namespace: str, pod: dict[str, Any]) -> str:
    meta = {**pod["metadata"], "name": "probe", "namespace": namespace}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod["spec"]}
    return plane.kubectl("create", "--validate=strict", "--dry-run=server", "-f", "-", data=json.dumps(body))


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_every_pod_but_the_nodes_is_restricted(
    installed: Plane, levels: dict[str, str], values: tuple[str, ...]
) -> None:
    found = {name: pod for name, pod in pods(render(*values)).items() if name != NODE}
    assert {"countersign-operator", "countersign-webhook", "countersign-authority"} <= set(found)
    for pod in found.values():
        assert "created" in create(installed, levels["restricted"], pod)


@pytest.mark.parametrize(
    ("kind", "why"),
    [("with the nodes' chips", ("hostPath volumes", "privileged")), ("node-demo", ("hostPath volumes",))],
    ids=["chips", "simulators"],
)
def test_the_nodes_pod_cannot_be_baseline_and_its_template_says_why(
    installed: Plane, levels: dict[str, str], kind: str, why: tuple[str, ...]
) -> None:
    node = pods(render(*VALUE_SETS[kind]))[NODE]
    with pytest.raises(PlaneError, match='violates PodSecurity "baseline:latest"') as caught:
        create(installed, levels["baseline"], node)
    assert all(word in str(caught.value) for word in why)
    assert "created" in create(installed, levels["privileged"], node)
    text = (CHART / "templates" / "node" / "daemonset.yaml").read_text()
    assert "Pod Security `restricted` and `baseline` forbid what this pod is for" in text


def test_an_agents_pod_stays_restricted_when_it_is_injected(installed: Plane, levels: dict[str, str]) -> None:
    pod = yaml.safe_load((QUICKSTART / "60-pod.yaml").read_text())
    injected = patched(pod, inject(pod, identity(), SETTINGS))
    assert injected["spec"]["initContainers"][0]["name"] == "countersign-signer"
    assert "created" in create(
        installed, levels["restricted"], {"metadata": injected["metadata"], "spec": injected["spec"]}
    )
