"""Is this Device approved now? Pure: what crds.md 3.2, 3.3 and 4 say of a Device, its pool and its neighbours."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ASSURANCES", "assurance", "attestation_time", "device_fault", "evidence_age_limit", "model_denied"]

ASSURANCES: Final = ("Software", "Virtual", "Hardware")
"""Lowest first (wire.md 1.8)."""

_DEFAULT_AGE_SECONDS: Final = 28800
_TCG_ID: Final = re.compile(r"id:([0-9A-Fa-f]{1,16})")


def device_fault(
    device: dict[str, Any], pool: dict[str, Any] | None, same_ek: Sequence[Any], same_node: Sequence[Any]
) -> str | None:
    """Return why no call may come from ``device``, or None.

    ``same_ek`` and ``same_node`` are the living Devices with its EK, and the approved ones of its pool on its node; both
    contain it. A conflict stops all of them: which one is right is a question for people.
    """
    state = device["spec"].get("state", "Pending")
    if device["metadata"].get("deletionTimestamp") or state != "Approved":
        return f"the Device is {'being deleted' if state == 'Approved' else state}"
    if pool is None or pool["metadata"].get("deletionTimestamp"):
        return f"DevicePool {device['spec']['poolRef']['name']} does not exist"
    if model_denied(pool, device.get("status") or {}):
        return "its pool denies this model or firmware"
    if len(same_ek) > 1:
        return "another Device has the same endorsement key"
    if len(same_node) > pool["spec"].get("devicesPerNode", 1):
        return "its node has more approved Devices than its pool allows"
    return None


def model_denied(pool: dict[str, Any], status: dict[str, Any]) -> bool:
    """Tell whether ``deniedModels`` name this TPM; a firmware that cannot be compared counts as older than any."""
    model, firmware = status.get("model") or "", status.get("firmware") or ""
    for denied in pool["spec"].get("deniedModels") or []:
        if not _same_id(denied["manufacturer"], status.get("manufacturer") or ""):
            continue
        if denied.get("model") is not None and not _same_id(denied["model"], model):
            continue
        before = denied.get("firmwareBefore")
        if before is None or _older(firmware, before):
            return True
    return False


def assurance(device: dict[str, Any], pool: dict[str, Any]) -> str:
    """Return what the pool says a TPM of its kind proves, or the Device's status if that says less."""
    words = [pool["spec"].get("assurance"), (device.get("status") or {}).get("assurance")]
    known = [word for word in words if word is not None]
    return min(known, key=_rank) if known and all(word in ASSURANCES for word in known) else ASSURANCES[0]


def attestation_time(device: dict[str, Any]) -> datetime | None:
    """Return when this Device last attested; None if it never did, or if nobody can read when."""
    text = (device.get("status") or {}).get("attestationTime")
    try:
        time = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return time if time is not None and time.tzinfo is not None else None


def evidence_age_limit(pool: dict[str, Any]) -> timedelta:
    """Return how old an attestation may become under the pool: its ``attestation.maxAgeSeconds`` (crds.md 3.2)."""
    return timedelta(seconds=(pool["spec"].get("attestation") or {}).get("maxAgeSeconds", _DEFAULT_AGE_SECONDS))


def _rank(word: str) -> int:
    return ASSURANCES.index(word)


def _number(text: str) -> int | None:
    found = _TCG_ID.fullmatch(text)
    return None if found is None else int(found[1], 16)


def _same_id(one: str, other: str) -> bool:
    left, right = _number(one), _number(other)
    return one == other if left is None or right is None else left == right


def _older(firmware: str, before: str) -> bool:
    left, right = _number(firmware), _number(before)
    return left is None or right is None or left < right
