"""Small questions about devices, pools and issuers that enrolment and status both ask. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ASSURANCE",
    "EkFacts",
    "evidence_age_limit",
    "exposed_to",
    "life_of",
    "model_denied",
    "parse_time",
    "selector_matches",
    "spiffe_id",
    "stamp",
    "stamp_seconds",
]

ASSURANCE: Final = ("Software", "Virtual", "Hardware")
"""Lowest first (crds.md 3.4)."""
_DEFAULT_AGE: Final = 28800
_IDENTITY_LIFE: Final = 3600
_ISSUER_LIFE: Final = 14400
_TCG_ID: Final = re.compile(r"id:([0-9A-Fa-f]{1,16})\Z")


@dataclass(frozen=True)
class EkFacts:
    """What is known of a TPM after check 5, and again when its secret comes back."""

    sha256: str
    pool: str
    manufacturer: str
    model: str
    firmware: str


def model_denied(pool: dict[str, Any], manufacturer: str, model: str, firmware: str) -> bool:
    """Tell whether the pool's ``deniedModels`` name this TPM; ids compare as hexadecimal numbers (crds.md 3.2).

    The front door asks the same at each call (``decide/device.py``); a model that is no id is compared as text. A firmware version that cannot be compared counts as older than any.
    """
    for denied in pool["spec"].get("deniedModels") or []:
        if not _same_id(denied["manufacturer"], manufacturer):
            continue
        if denied.get("model") is not None and not _same_id(denied["model"], model):
            continue
        before = denied.get("firmwareBefore")
        if before is None or _older(firmware, before):
            return True
    return False


def evidence_age_limit(pool: dict[str, Any]) -> timedelta:
    """Return the age at which evidence of this pool's devices is no evidence any more."""
    return timedelta(seconds=(pool["spec"].get("attestation") or {}).get("maxAgeSeconds", _DEFAULT_AGE))


def exposed_to(issuer: dict[str, Any], namespace: dict[str, Any]) -> bool:
    """Tell whether an IdentityIssuer may be used from a namespace; without ``exposeTo`` from all (crds.md 3.1)."""
    expose = issuer["spec"].get("exposeTo")
    if expose is None or expose.get("from") == "All":
        return True
    labels = namespace["metadata"].get("labels") or {}
    return expose.get("from") == "Selector" and selector_matches(expose.get("selector") or {}, labels)


def selector_matches(selector: dict[str, Any], labels: Mapping[str, str]) -> bool:
    """Tell whether a LabelSelector matches; an empty one, or an operator that is not known, matches nothing."""
    wanted, expressions = selector.get("matchLabels") or {}, selector.get("matchExpressions") or []
    if not wanted and not expressions:
        return False
    return all(labels.get(name) == value for name, value in wanted.items()) and all(
        _expression(item, labels) for item in expressions
    )


def parse_time(text: str) -> datetime:
    """Return an RFC 3339 time of the API server."""
    return datetime.fromisoformat(text)


def stamp(time: datetime) -> str:
    """Return a time as the API server writes it: whole seconds, UTC."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def stamp_seconds(seconds: int) -> str:
    """Return a time of the store as the API server writes it."""
    return stamp(datetime.fromtimestamp(seconds, UTC))


def spiffe_id(issuer: dict[str, Any], identity: dict[str, Any]) -> str:
    """Return the SPIFFE ID of an agent (wire.md 1.3)."""
    account, namespace = identity["spec"]["serviceAccountName"], identity["metadata"]["namespace"]
    return f"spiffe://{issuer['spec']['trustDomain']}/ns/{namespace}/sa/{account}"


def life_of(identity: dict[str, Any], issuer: dict[str, Any], ca_expires: datetime, now: datetime) -> timedelta:
    """Return min(identity, issuer, what is left of the CA)."""
    return min(
        timedelta(seconds=identity["spec"].get("lifeSeconds", _IDENTITY_LIFE)),
        timedelta(seconds=issuer["spec"].get("lifeSeconds", _ISSUER_LIFE)),
        ca_expires - now,
    )


def _expression(item: dict[str, Any], labels: Mapping[str, str]) -> bool:
    value, values = labels.get(item["key"]), item.get("values") or []
    match item["operator"]:
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case _:
            return False


def _number(text: str) -> int | None:
    found = _TCG_ID.match(text)
    return None if found is None else int(found[1], 16)


def _same_id(one: str, other: str) -> bool:
    left, right = _number(one), _number(other)
    return one == other if left is None or right is None else left == right


def _older(firmware: str, before: str) -> bool:
    left, right = _number(firmware), _number(before)
    return left is None or right is None or left < right
