"""The webhook's audit records on a node's disk, and the heads that the cluster keeps of them."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import rfc8785
from support.eventually import until
from support.install import NAMESPACE

from countersign.audit import Filters, query, verify_log
from countersign.audit.kept import read_heads
from countersign.wire import digest_of

if TYPE_CHECKING:
    from pathlib import Path

    from support.real_cluster import RealCluster

    from countersign.audit import VerifyReport


def folders(cluster: RealCluster) -> list[Path]:
    """Return the folders that have logs, on whichever node's disk."""
    found = {log.parent for node in cluster.nodes for log in node.disk("").glob("countersign-webhook*/**/*.jsonl")}
    assert found, "no audit log is on any node's disk"
    return sorted(found)


def records(cluster: RealCluster) -> dict[str, dict[str, Any]]:
    """Return every record by its decision's id; an id has one record."""
    found = list(query(folders(cluster), Filters()))
    by_decision = {each["metadata"]["uid"]: each for each in found}
    assert len(by_decision) == len(found)
    return by_decision


def verified(cluster: RealCluster) -> VerifyReport:
    """Verify the chain of all logs, with the signed heads and keys of the cluster's ConfigMaps."""
    words = ("configmaps", "-n", NAMESPACE, "-l", "countersign.dev/audit=head")
    until(lambda: bool(cluster.get(*words)["items"]), "the first head, a minute after the first record")
    heads, keys = read_heads(json.dumps(cluster.get(*words)))
    return verify_log(folders(cluster), heads=heads, keys=keys)


def allows(record: dict[str, Any]) -> bool:
    """Tell whether a record says yes."""
    return bool(record["status_id"] == 1 and record["action_id"] == 1)


def args_of(arguments: dict[str, Any]) -> str:
    """Return the digest by which a record names a call's arguments (wire.md, 1.7)."""
    return digest_of(rfc8785.dumps(arguments))


def decision_of(token: str) -> str:
    """Return the decision that a call token names."""
    payload = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["txn"])
