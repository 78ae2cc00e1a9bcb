"""What the status of our kinds says, computed from what is known at one moment. Pure; ``instances`` and ``reconcile`` write it.

Each function returns the whole of what the authority owns of a status: server-side apply takes away what is not repeated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from countersign.authority.trust import evidence_age_limit, model_denied, parse_time
from countersign.kube import set_condition

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = ["attested", "device_conflict", "device_status", "instance_status", "part"]

_DEVICE_FIELDS: Final = ("assurance", "attestationTime", "manufacturer", "model", "firmware")
_INSTANCE_FIELDS: Final = ("spiffeID", "assurance", "attestationTime", "certificate")
_TO_INSTANCE: Final = {"NotApproved": "DeviceNotApproved"}


def attested(device: dict[str, Any], pool: dict[str, Any] | None, now: datetime) -> tuple[str, str, str]:
    """Return status, reason and message of a Device's condition Attested (crds.md 3.3)."""
    name = device["spec"]["poolRef"]["name"]
    status = device.get("status") or {}
    if pool is None:
        return "False", "PoolNotFound", f"DevicePool {name} does not exist"
    state = device["spec"].get("state", "Pending")
    if state != "Approved":
        return "False", "NotApproved", f"the Device is {state}"
    if model_denied(pool, *(status.get(field) or "" for field in ("manufacturer", "model", "firmware"))):
        return "False", "ModelDenied", f"pool {name} denies this model or firmware"
    if not status.get("attestationTime"):
        return "False", "NeverAttested", "no signer has attested on this TPM yet"
    limit = evidence_age_limit(pool)
    if now - parse_time(status["attestationTime"]) > limit:
        return "False", "EvidenceExpired", f"attested at {status['attestationTime']}, pool {name} allows {limit}"
    return "True", "Attested", f"attested under pool {name}, {status.get('assurance')}"


def device_status(
    device: dict[str, Any],
    *,
    pool: dict[str, Any] | None,
    instances: int,
    conflict: tuple[str, str, str],
    now: datetime,
    found: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a Device's status but ``facts``; ``found`` are fields that an attestation has just shown."""
    old = device.get("status") or {}
    status = {name: old[name] for name in _DEVICE_FIELDS if name in old} | (found or {})
    view = device | {"status": status}
    conditions = _own(old, ("Attested", "Conflicted"))
    generation = device["metadata"].get("generation", 0)
    conditions = set_condition(conditions, "Attested", *attested(view, pool, now), generation, now)
    conditions = set_condition(conditions, "Conflicted", *conflict, generation, now)
    return status | {"instances": instances, "observedGeneration": generation, "conditions": conditions}


def device_conflict(
    device: dict[str, Any], devices: Sequence[dict[str, Any]], pool: dict[str, Any] | None
) -> tuple[str, str, str]:
    """Return status, reason and message of a Device's condition Conflicted: EK and node are each another Device's too.

    ``devices`` are all there are: one that cannot be read is no neighbour, and says nothing about this one.
    """
    spec, own = device["spec"], device["metadata"]["uid"]
    digest = (spec.get("ek") or {}).get("publicKeySHA256")
    others = [one for one in devices if one["metadata"]["uid"] != own]
    same = [one for one in others if digest and part(one, "spec", "ek", "publicKeySHA256") == digest]
    if same:
        return "True", "DuplicateEK", f"Device {same[0]['metadata']['name']} has the same endorsement key"
    node = (spec["binding"].get("node") or {}).get("name")
    room = ((pool or {}).get("spec") or {}).get("devicesPerNode", 1)
    on_node = [one for one in others if node and _approved_on(one, node, spec["poolRef"]["name"])]
    if spec.get("state") == "Approved" and len(on_node) >= room:
        return "True", "DuplicateNode", f"node {node} has Device {on_node[0]['metadata']['name']} of this pool too"
    return "False", "Unique", "no other Device has this endorsement key or this node's place"


def instance_status(
    instance: dict[str, Any],
    *,
    device: dict[str, Any] | None,
    pool: dict[str, Any] | None,
    now: datetime,
    found: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what the authority owns of an AgentInstance's status; ``found`` are fields that change now."""
    old = instance.get("status") or {}
    status = {name: old[name] for name in _INSTANCE_FIELDS if name in old}
    if device is None or device["metadata"]["uid"] != instance["spec"]["deviceRef"]["uid"]:
        fact = "False", "DeviceNotFound", f"Device {instance['spec']['deviceRef']['name']} does not exist any more"
    else:
        known = device.get("status") or {}
        status |= {name: known[name] for name in ("assurance", "attestationTime") if name in known}
        result, reason, message = attested(device, pool, now)
        fact = result, _TO_INSTANCE.get(reason, reason), message
    status |= found or {}
    generation = instance["metadata"].get("generation", 0)
    conditions = set_condition(_own(old, ("Attested",)), "Attested", *fact, generation, now)
    return {name: value for name, value in status.items() if value is not None} | {"conditions": conditions}


def part(found: dict[str, Any], *path: str) -> Any:
    """Return what an object says at ``path``, or None where it has no such member."""
    value: Any = found
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _own(status: dict[str, Any], kinds: Sequence[str]) -> list[dict[str, Any]]:
    return [item for item in status.get("conditions") or [] if item.get("type") in kinds]


def _approved_on(device: dict[str, Any], node: str, pool: str) -> bool:
    on_node = part(device, "spec", "binding", "node", "name") == node
    approved = part(device, "spec", "state") == "Approved"
    return on_node and approved and bool(part(device, "spec", "poolRef", "name") == pool)
