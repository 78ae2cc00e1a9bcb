"""A node proposes its Device: leg E1 with the token of ``countersign node`` (enrolment.md 2, Pending devices).

Nothing is issued here. What a node gets out of it is at most one Device that waits for a person, bound to that node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from countersign.authority.checks import (
    PENDING_STEPS,
    TOKEN_STEPS,
    EnrolmentStep,
    ak_proven,
    ak_unused,
    attest_members,
    device_bound_to_node,
    device_known,
    endorsed,
    model_allowed,
    registers_not_judged,
    secret_members,
)
from countersign.authority.cluster import is_going
from countersign.authority.describe import part
from countersign.errors import Denied, Unavailable
from countersign.kube import DEVICES, Conflict, Kube, KubeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from countersign.authority.exam import Exam

__all__ = ["NODE_ATTEST_STEPS", "NODE_SECRET_STEPS", "find_or_propose", "sequence"]

_PENDING_IN_ALL: Final = 100
_PENDING_OF_NODE: Final = 1
_LONGEST: Final = 253
_DIGITS: Final = 8


async def device_known_or_wanted(exam: Exam) -> None:
    """6: exactly one Device has this endorsement key; or none has, and the pool takes requests."""
    exam.devices = exam.cluster.devices_by_ek(exam.ek.sha256)
    if exam.devices or (exam.pool or {"spec": {}})["spec"].get("enrollment", "Refuse") != "Request":
        await device_known(exam)


async def device_not_denied(exam: Exam) -> None:
    """6: people have not denied the Device; one that waits for them is what is asked for."""
    if exam.devices and exam.device["spec"].get("state", "Pending") not in ("Pending", "Approved"):
        raise Denied("attest.device_denied", f"Device {exam.device['metadata']['name']} is denied")


async def device_of_this_node(exam: Exam) -> None:
    """6: the Device, where there is one, belongs to the token's node (threats.md C7)."""
    if exam.devices:
        await device_bound_to_node(exam)


async def device_of_this_pool(exam: Exam) -> None:
    """6: the pool that vouches for the TPM is the Device's, and still there."""
    if exam.pool is None or exam.ek.pool != exam.pool["metadata"]["name"]:
        raise Denied("attest.pool_not_admitted", f"the Device is not of pool {exam.ek.pool}")


_DEVICE: Final[tuple[EnrolmentStep, ...]] = (
    device_known_or_wanted,
    device_not_denied,
    device_of_this_node,
    device_of_this_pool,
    model_allowed,
    registers_not_judged,
)

NODE_ATTEST_STEPS: Final[tuple[EnrolmentStep, ...]] = (
    attest_members,
    *TOKEN_STEPS,
    endorsed,
    *_DEVICE,
    ak_proven,
    ak_unused,
)
"""``/attest`` without 4, and with what is left of 6 where there is no agent."""

NODE_SECRET_STEPS: Final[tuple[EnrolmentStep, ...]] = (secret_members, *TOKEN_STEPS, *PENDING_STEPS, *_DEVICE)
"""``/secret`` without a key, and without 4."""


def sequence(
    agents: tuple[EnrolmentStep, ...], nodes: tuple[EnrolmentStep, ...], exam: Exam
) -> Iterator[EnrolmentStep]:
    """Yield an agent's checks; as soon as the token says that a node asks, what is left of a node's instead."""
    done: set[EnrolmentStep] = set()
    for step in agents:
        if exam.of_node:
            break
        done.add(step)
        yield step
    if exam.of_node:
        yield from (step for step in nodes if step not in done)


async def find_or_propose(kube: Kube, exam: Exam) -> tuple[dict[str, Any], bool]:
    """Return the Device of this endorsement key, and whether it was made just now; the caller lets in one at a time.

    The inventory is read from the API server itself: what was made a moment ago is in no cache yet.

    :raises Denied: ``attest.device_unknown`` or ``attest.node_mismatch`` if the EK became somebody else's meanwhile,
        ``attest.pending_full`` if too many wait already.
    :raises Unavailable: ``attest.unavailable``.
    """
    node, ek = str(exam.review.node_name), exam.ek
    try:
        devices = [one for one in await kube.list(DEVICES) if not is_going(one)]
    except KubeError as error:
        raise Unavailable("attest.unavailable", "the API server does not answer for devices") from error
    mine = [one for one in devices if part(one, "spec", "ek", "publicKeySHA256") == ek.sha256]
    if mine:
        if len(mine) > 1:
            raise Denied("attest.device_unknown", "several Devices claim the same endorsement key")
        if _node_of(mine[0]) != node:
            raise Denied("attest.node_mismatch", f"Device {mine[0]['metadata']['name']} does not belong to this node")
        return mine[0], False
    waiting = [one for one in devices if part(one, "spec", "state") in (None, "Pending")]
    if sum(_node_of(one) == node for one in waiting) >= _PENDING_OF_NODE:
        raise Denied("attest.pending_full", f"a Device of node {node} waits for approval already")
    if len(waiting) >= _PENDING_IN_ALL:
        raise Denied("attest.pending_full", f"{len(waiting)} Devices wait for approval already")
    for name in _names(node, ek.sha256):
        try:
            return await kube.create(DEVICES, device_object(name, exam)), True
        except Conflict:
            continue
        except KubeError as error:
            raise Unavailable("attest.unavailable", "the API server did not take the Device") from error
    raise Unavailable("attest.unavailable", "no name is free for the Device")


def device_object(name: str, exam: Exam) -> dict[str, Any]:
    """Return a Device that waits for a person (crds.md 3.3): the TPM that was seen, on the node where it was seen."""
    return {
        "apiVersion": DEVICES.api_version,
        "kind": DEVICES.kind,
        "metadata": {"name": name},
        "spec": {
            "poolRef": {"name": exam.ek.pool},
            "ek": {"publicKeySHA256": exam.ek.sha256},
            "binding": {"type": "Node", "node": {"name": exam.review.node_name}},
            "state": "Pending",
        },
    }


def _names(node: str, ek_sha256: str) -> tuple[str, str]:
    """Return the node's own name, and for a second TPM there one with the beginning of its digest."""
    digits = ek_sha256.removeprefix("sha256:")[:_DIGITS]
    return node, f"{node[: _LONGEST - _DIGITS - 1].rstrip('.-')}-{digits}"


def _node_of(device: dict[str, Any]) -> str | None:
    name = part(device, "spec", "binding", "node", "name")
    return name if isinstance(name, str) else None
