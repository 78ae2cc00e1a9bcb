"""What a platform team does after the installation: a trust domain, a pool for the nodes' TPMs, and the approvals."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from support.install import NAMESPACE, SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.real_cluster import RealCluster

POOL = "lab"
_NODE = "app.kubernetes.io/component=node"
_SECONDS = 120.0


def _kind(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "countersign.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _roots(cluster: RealCluster) -> str:
    """Return the CA certificates that each node's simulators print."""
    pods = cluster.get("pods", "-n", NAMESPACE, "-l", _NODE)["items"]
    logs = [cluster.kubectl("logs", "-n", NAMESPACE, pod["metadata"]["name"], "-c", "simulators") for pod in pods]
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    parts = [part for log in logs for part in log.split(begin)[1:]]
    return "".join(f"{begin}{part.split(end)[0]}{end}\n" for part in parts)


def _restart_nodes(cluster: RealCluster) -> None:
    """Begin the node processes anew: a refused TPM is looked at again at once, not after a minute."""
    cluster.kubectl("rollout", "restart", "daemonset/countersign-node", "-n", NAMESPACE)
    cluster.kubectl("rollout", "status", "daemonset/countersign-node", "-n", NAMESPACE, "--timeout=90s")


def _devices(cluster: RealCluster, state: str) -> list[str]:
    found = cluster.get("devices")["items"]
    return [each["metadata"]["name"] for each in found if each["spec"].get("state") == state]


def approve(cluster: RealCluster, say: Callable[[str], None]) -> None:
    """Have every simulator of every node proposed by its node, and approve it. Safe to run again."""
    began = time.monotonic()
    cluster.kubectl("rollout", "status", "daemonset/countersign-node", "-n", NAMESPACE, "--timeout=90s")
    pool = {"assurance": "Virtual", "enrollment": "Request", "devicesPerNode": SLOTS, "ekRoots": _roots(cluster)}
    issuer = {"trustDomain": "agents.example.com", "type": "Embedded"}
    items = [_kind("DevicePool", POOL, pool), _kind("IdentityIssuer", "default", issuer)]
    cluster.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    cluster.kubectl("wait", "--for=condition=Ready", f"devicepool/{POOL}", "identityissuer/default", "--timeout=60s")
    wanted = len(cluster.nodes) * SLOTS
    while len(_devices(cluster, "Approved")) < wanted:
        _restart_nodes(cluster)
        end = time.monotonic() + _SECONDS
        while len(waiting := _devices(cluster, "Pending")) < len(cluster.nodes):
            if time.monotonic() > end:
                raise RuntimeError(f"only {waiting} were proposed; see `kubectl logs -n {NAMESPACE} -l {_NODE}`")
            time.sleep(0.5)
        for name in waiting:
            cluster.kubectl("patch", "device", name, "--type=merge", "-p", '{"spec":{"state":"Approved"}}')
    say(f"{wanted} TPMs proposed by their nodes and approved in {time.monotonic() - began:.0f} s")
