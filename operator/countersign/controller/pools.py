"""DevicePool: are its roots usable, and how many devices are in it (crds.md 3.2); what is worth an Event on a Device. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography import x509

from countersign.controller.plan import Fact, Notice, Plan, condition, conditions
from countersign.kube import DEVICES

if TYPE_CHECKING:
    from datetime import datetime

    from countersign.controller.view import View

__all__ = ["device_news", "plan_pool"]


def plan_pool(pool: dict[str, Any], view: View, now: datetime) -> Plan:
    """Return the status of one DevicePool."""
    meta = pool["metadata"]
    status = {
        "observedGeneration": meta.get("generation", 0),
        "devices": {
            "total": view.count(DEVICES, "pool", meta["name"]),
            "approved": view.count(DEVICES, "approved", meta["name"]),
            "attested": view.count(DEVICES, "attested", meta["name"]),
        },
        "conditions": conditions(pool, {"Ready": _roots(pool, now)}, now),
    }
    return Plan(status)


def device_news(before: dict[str, Any], after: dict[str, Any]) -> list[Notice]:
    """Return the Events of a Device between two versions of it: people's approval, and what the authority found out."""
    found = []
    if before["spec"].get("state") != "Approved" and after["spec"].get("state") == "Approved":
        found.append(Notice(after, "Normal", "Approved", f"for pool {after['spec']['poolRef']['name']}"))
    for kind, reason in (("Conflicted", "DuplicateEK"), ("Attested", "ModelDenied")):
        now = condition(after, kind)
        if now.get("reason") == reason and condition(before, kind).get("reason") != reason:
            found.append(Notice(after, "Warning", reason, now.get("message", "")))
    return found


def _roots(pool: dict[str, Any], now: datetime) -> Fact:
    pem = pool["spec"].get("ekRoots")
    if pem is None:
        if pool["spec"].get("assurance") == "Software":
            return "True", "Ready", "a Software pool has no roots"
        return "False", "RootsInvalid", "spec.ekRoots is missing"
    try:
        roots = x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        return "False", "RootsInvalid", "spec.ekRoots is not a list of PEM certificates"
    faults = [fault for fault in (_fault(one, now) for one in roots) if fault is not None]
    if faults:  # what is no root at all is said before what was one
        return min(faults, key=lambda fault: fault[1] != "RootsInvalid")
    until = min(one.not_valid_after_utc for one in roots)
    return "True", "Ready", f"{len(roots)} certificates, valid until {until:%Y-%m-%d}"


def _fault(root: x509.Certificate, now: datetime) -> Fact | None:
    """Return what is wrong with one root; admission asks the same when it is written (crds.md 4)."""
    try:
        subject = root.subject.rfc4514_string() or "(no subject)"
        is_ca = root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    except ValueError:
        return "False", "RootsInvalid", "spec.ekRoots has a certificate that cannot be read"
    if not is_ca:
        return "False", "RootsInvalid", f"{subject} is not a CA"
    if root.not_valid_after_utc <= now:
        return "False", "RootExpired", f"{subject} expired on {root.not_valid_after_utc:%Y-%m-%d}"
    return None
