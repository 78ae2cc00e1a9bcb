"""Countersign on a real cluster: our images in its nodes, then the chart, as a user installs it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from support import host, image, real_cluster

from countersign.devcluster import find_or_build

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.node import Node
    from support.real_cluster import RealCluster

NAMESPACE = "countersign-system"
CHART = image.ROOT / "charts" / "countersign"
SLOTS = 2
_CLASS = "countersign-e2e"
_CLIENT_CA = "apiserver-client-ca"


def _volume(name: str, claim: str, node: str) -> dict[str, object]:
    """A volume on one node's disk: what a killed pod wrote is there for the next one."""
    place = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "5Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": _CLASS,
            "claimRef": {"namespace": NAMESPACE, "name": claim},
            "local": {"path": f"/var/lib/{name}"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [place]}]}},
        },
    }


def _of_replicas(cluster: RealCluster) -> list[tuple[str, Node]]:
    return [(f"countersign-webhook-{number}", node) for number, node in enumerate(cluster.nodes)]


def prepare(cluster: RealCluster) -> None:
    """Make what a user's cluster has already: a namespace, a StorageClass, volumes, the API server's client CA."""
    ca = (cluster.directory / "plane" / "pki" / "webhook-client-ca.crt").read_text()
    named = {"name": _CLIENT_CA, "namespace": NAMESPACE}
    objects = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": named, "data": {"ca.crt": ca}},
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": _CLASS},
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        },
        *(_volume(name, name, cluster.nodes[0].name) for name in ("countersign-webhook", "countersign-authority")),
        # For two webhooks: a volume for each on a node of its own.
        *(_volume(name, f"state-{name}", node.name) for name, node in _of_replicas(cluster)),
    ]
    for name, node in _of_replicas(cluster):
        node.shell("mkdir", "-p", f"/var/lib/{name}")
    cluster.nodes[0].shell("mkdir", "-p", "/var/lib/countersign-webhook", "/var/lib/countersign-authority")
    cluster.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def values(ours: image.Image, swtpm: image.Image) -> dict[str, Any]:
    """Return the values of an installation on these nodes."""
    return {
        "clusterName": "e2e",
        "image": {"repository": image.NAME, "tag": ours.tag, "pullPolicy": "Never"},
        "operator": {"replicas": 2},
        "webhook": {"clientCAConfigMap": _CLIENT_CA, "storage": {"storageClassName": _CLASS}},
        "authority": {"storage": {"storageClassName": _CLASS}},
        "node": {"enabled": True, "type": "Simulator", "slots": SLOTS, "simulator": {"image": swtpm.name}},
    }


def helm(cluster: RealCluster, *words: str | Path, check: bool = True, seconds: float = 240) -> str:
    """Run helm on the release's namespace and return what it printed."""
    about = ("--namespace", NAMESPACE, f"--kubeconfig={cluster.kubeconfig}")
    return host.run(find_or_build().helm, *words, *about, check=check, seconds=seconds)


def release(cluster: RealCluster, chart: Path, wanted: dict[str, Any], *words: str | Path) -> None:
    """Install or upgrade the release; returns when all its pods are Ready."""
    file = cluster.directory / "values.json"
    file.write_text(json.dumps(wanted))
    helm(cluster, "upgrade", "--install", "countersign", chart, "--values", file, "--wait", "--timeout", "3m", *words)


def uninstall(cluster: RealCluster) -> None:
    """Uninstall the release; returns when everything that Helm removes is gone."""
    helm(cluster, "uninstall", "countersign", "--wait", "--timeout", "2m")


def install(cluster: RealCluster, say: Callable[[str], None]) -> None:
    """Build the images, load them into the nodes, and install or upgrade the chart."""
    ours, swtpm = image.build(say)
    began = time.monotonic()
    real_cluster.import_images(cluster, {each.name: each.archive for each in (ours, swtpm)})
    say(f"images loaded into both nodes in {time.monotonic() - began:.0f} s")
    prepare(cluster)
    began = time.monotonic()
    release(cluster, CHART, values(ours, swtpm))
    say(f"chart installed and its pods Ready in {time.monotonic() - began:.0f} s")
