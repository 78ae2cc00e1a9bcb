"""Countersign on a real cluster: our images in its nodes, then the chart, as a user installs it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from support import host, image, real_cluster

from countersign.devcluster import find_or_build

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.real_cluster import RealCluster

NAMESPACE = "countersign-system"
SLOTS = 2
_CLASS = "countersign-e2e"
_CLIENT_CA = "apiserver-client-ca"


def _volume(process: str, node: str) -> dict[str, object]:
    """A volume on one node's disk: what a killed pod wrote is there for the next one."""
    place = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"countersign-{process}"},
        "spec": {
            "capacity": {"storage": "5Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": _CLASS,
            "claimRef": {"namespace": NAMESPACE, "name": f"countersign-{process}"},
            "local": {"path": f"/var/lib/countersign-{process}"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [place]}]}},
        },
    }


def _before(cluster: RealCluster) -> None:
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
        _volume("webhook", cluster.nodes[0].name),
        _volume("authority", cluster.nodes[0].name),
    ]
    for process in ("webhook", "authority"):
        cluster.nodes[0].shell("mkdir", "-p", f"/var/lib/countersign-{process}")
    cluster.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def install(cluster: RealCluster, say: Callable[[str], None]) -> None:
    """Build the images, load them into the nodes, and install or upgrade the chart; returns when all pods are Ready."""
    ours, swtpm = image.build(say)
    began = time.monotonic()
    real_cluster.import_images(cluster, {each.name: each.archive for each in (ours, swtpm)})
    say(f"images loaded into both nodes in {time.monotonic() - began:.0f} s")
    _before(cluster)
    began = time.monotonic()
    values = {
        "clusterName": "e2e",
        "image": {"repository": image.NAME, "tag": ours.tag, "pullPolicy": "Never"},
        "webhook": {"clientCAConfigMap": _CLIENT_CA, "storage": {"storageClassName": _CLASS}},
        "authority": {"storage": {"storageClassName": _CLASS}},
        "node": {"enabled": True, "type": "Simulator", "slots": SLOTS, "simulator": {"image": swtpm.name}},
    }
    file = cluster.directory / "values.json"
    file.write_text(json.dumps(values))
    words = ["upgrade", "--install", "countersign", image.ROOT / "charts" / "countersign", "--namespace", NAMESPACE]
    words += ["--values", file, "--wait", "--timeout", "3m", f"--kubeconfig={cluster.kubeconfig}"]
    host.run(find_or_build().helm, *words, seconds=240)
    say(f"chart installed and its pods Ready in {time.monotonic() - began:.0f} s")
