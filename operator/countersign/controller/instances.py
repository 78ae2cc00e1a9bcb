"""AgentInstance: is it Ready, must it be Revoked, is it a leftover (crds.md 3.5). Pure.

The authority owns the rest of this status. Whatever is found here stops no call by itself: the decision point asks the
cluster about pod, agent and device at each call; Revoked is how people see it, and how it stays.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from countersign.controller.identities import NO_SIGNER, selecting, wants_signer
from countersign.controller.indexes import SIGNER, is_injected
from countersign.controller.plan import Fact, Notice, Plan, condition, conditions, is_going, is_true, same
from countersign.kube import AGENT_IDENTITIES, DEVICES, PODS
from countersign.kube.pods import has_ended

if TYPE_CHECKING:
    from countersign.controller.view import View
    from countersign.kube.injection import InjectionSettings

__all__ = ["plan_instance"]

_REASONS: Final = ("DeviceDenied", "AgentGone", "PodChanged")
_BY_PERSON: Final = "ByPerson"
_KEPT: Final = timedelta(hours=1)
_INJECTED: Final = "countersign.dev/injected"
_DIGEST: Final = re.compile(r"@(sha256:[0-9a-f]{64})\Z")
_REASON_MAX: Final = 256


def plan_instance(instance: dict[str, Any], view: View, now: datetime, signer: InjectionSettings = NO_SIGNER) -> Plan:
    """Return the two conditions that the operator owns, and whether to revoke or to delete."""
    if _is_leftover(instance, view, now):
        return Plan(delete=True)
    revoked = instance["spec"].get("state", "Active") != "Active"
    fault = None if revoked else _fault(instance, view, signer)
    if revoked or fault is not None:
        reason, message = fault or _why(instance)
        facts: dict[str, Fact] = {"Ready": ("False", "Revoked", message), "Revoked": ("True", reason, message)}
    else:
        facts = {"Ready": _ready(instance, view, now), "Revoked": ("False", "Active", "nobody revoked it")}
    status = {"conditions": conditions(instance, facts, now)}
    told = is_true(instance, "Revoked") or facts["Revoked"][0] != "True"
    note = ": ".join(facts["Revoked"][1:])
    notices = () if told else (Notice(instance, "Warning", "Revoked", note),)
    return Plan(status, notices, revoke=None if fault is None else f"{fault[0]}: {fault[1]}"[:_REASON_MAX])


def _fault(instance: dict[str, Any], view: View, signer: InjectionSettings) -> tuple[str, str] | None:
    """Return for what an Active instance must be revoked: reason and message."""
    spec, namespace = instance["spec"], instance["metadata"]["namespace"]
    identity = view.get(AGENT_IDENTITIES, spec["agentRef"]["name"], namespace)
    if identity is None or not same(identity, spec["agentRef"]):
        return "AgentGone", f"AgentIdentity {spec['agentRef']['name']} was deleted"
    device = view.get(DEVICES, spec["deviceRef"]["name"])
    if device is None or not same(device, spec["deviceRef"]):
        return "DeviceDenied", f"Device {spec['deviceRef']['name']} was deleted"
    if device["spec"].get("state") == "Denied":
        return "DeviceDenied", f"Device {spec['deviceRef']['name']} is Denied"
    pod = _pod(instance, view)
    if pod is None:
        return None
    change = _change(pod, identity, view, signer) or _other_image(pod, instance)
    return None if change is None else ("PodChanged", f"pod {spec['pod']['name']}: {change}")


def _change(pod: dict[str, Any], identity: dict[str, Any], view: View, signer: InjectionSettings) -> str | None:
    """Return how a pod has left the shape in which it enrolled (crds.md 4, enrolment.md 2 check 4).

    Only what a running pod can change is looked at. A signer is measured by this release only if it says that it is of this
    release: an update of Countersign must not revoke what runs. (Admission lets nobody change what it says.)
    """
    if not selecting(pod, view, [identity]):
        return "its labels no longer make it this agent"
    if wants_signer(identity):
        if not is_injected(pod):
            return "it has no signer any more"
        annotations = pod["metadata"].get("annotations") or {}
        images = {one["image"] for one in pod["spec"]["initContainers"] if one["name"] == SIGNER}
        if annotations.get(_INJECTED) == signer.version and images != {signer.image}:
            return "its signer has another image than it was given"
    if pod["spec"].get("ephemeralContainers"):
        return "somebody put an ephemeral container into it"
    return None


def _other_image(pod: dict[str, Any], instance: dict[str, Any]) -> str | None:
    """Return which container runs an image that was not there when the pod enrolled: by its name, else as it was pulled."""
    recorded = instance["spec"]["pod"].get("imageDigests")
    if not recorded:
        return None
    status = pod.get("status") or {}
    ran = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    pulled = {one["name"]: one.get("imageID") or "" for one in ran}
    for container in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]:
        name = container["name"]
        digest = _DIGEST.search(container["image"]) or _DIGEST.search(pulled.get(name, ""))
        if name != SIGNER and digest is not None and digest[1] not in recorded:
            return f"container {name} has another image than when it enrolled"
    return None


def _is_leftover(instance: dict[str, Any], view: View, now: datetime) -> bool:
    """Tell whether nothing can come of an instance any more: its pod is gone or done, or a Run's certificate is long over.

    A Job's pod stays after its end, for its logs; the identity does not.
    """
    if instance["spec"]["type"] == "Pod":
        found = _pod(instance, view)
        return found is None or has_ended(found)
    until = _until(instance)
    made = datetime.fromisoformat(instance["metadata"]["creationTimestamp"])
    return now - (until or made) > _KEPT


def _ready(instance: dict[str, Any], view: View, now: datetime) -> Fact:
    if not is_true(instance, "Attested"):
        known = condition(instance, "Attested")
        reason, message = known.get("reason", "WaitingForCertificate"), known.get("message", "not attested yet")
        return "False", reason, message
    until = _until(instance)
    if until is None:
        return "False", "WaitingForCertificate", "no certificate was issued yet"
    if until <= now:
        return "False", "CertificateExpired", f"since {until:%Y-%m-%dT%H:%M:%SZ}"
    if instance["spec"]["type"] == "Pod":
        pod = _pod(instance, view)
        if pod is None or is_going(pod):
            return "False", "PodNotReady", f"pod {instance['spec']['pod']['name']} is being deleted"
        if not is_true(pod, "Ready"):
            return "False", "PodNotReady", f"pod {instance['spec']['pod']['name']} is not Ready"
    return "True", "Ready", f"certificate valid until {until:%Y-%m-%dT%H:%M:%SZ}"


def _why(instance: dict[str, Any]) -> tuple[str, str]:
    """Return reason and message of an instance that is Revoked already, as whoever did it wrote them down."""
    text = instance["spec"].get("stateReason") or ""
    reason, _, message = text.partition(": ")
    if reason in _REASONS and message:
        return reason, message
    return _BY_PERSON, text or "no reason was given"


def _pod(instance: dict[str, Any], view: View) -> dict[str, Any] | None:
    """Return the very pod of an instance, even while it is being deleted; None for a Run."""
    wanted = instance["spec"].get("pod")
    if wanted is None:
        return None
    found = view.get(PODS, wanted["name"], instance["metadata"]["namespace"])
    return found if found is not None and found["metadata"]["uid"] == wanted["uid"] else None


def _until(instance: dict[str, Any]) -> datetime | None:
    """Return when the instance's certificate ends; None without one."""
    certificate = (instance.get("status") or {}).get("certificate") or {}
    return datetime.fromisoformat(certificate["notAfter"]) if certificate.get("notAfter") else None
