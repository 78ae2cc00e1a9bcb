"""What a record says: OCSF 1.7 API Activity with the facts of one decision (wire.md 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypedDict, Unpack

from countersign import __version__
from countersign.canonical import is_certain
from countersign.errors import CODES

__all__ = ["Certain", "DecisionFacts", "Mark", "decision_record", "head_record", "open_record"]

_READ: Final = 2
_OTHER: Final = 99
_ALLOW, _POLICY_DENY, _THEFT = 1, 2, 4
_UNKNOWN: Final = "unknown"
# What looks like a stolen or forged credential is worth more attention than a rule that said no.
_THEFT_FAMILIES: Final = ("proof.", "token.", "session.")


class Mark(TypedDict):
    """A rule that took part. ``rule`` is left out for a policy that could not be read."""

    policy: str
    rule: str | None
    effect: str


class DecisionFacts(TypedDict, total=False):
    """The facts of one decision; those that are unknown, or None, are left out of the record.

    ``decision``, ``now``, ``code``, ``allowed``, ``leg``, ``operation`` and ``service`` are required. No fact holds a token, a
    proof, a key or an argument: ``args`` and ``call_digest`` are digests, ``recorded_arguments`` are the values that the
    ToolServer lists in ``recordArguments``, by pointer. ``attested_at`` is in whole seconds since 1970.
    """

    decision: str
    now: datetime
    code: str
    allowed: bool
    leg: str
    operation: str
    service: str
    tool: str | None
    access: str | None
    user: str | None
    agent: str | None
    instance: str | None
    peer: str | None
    device_uid: str | None
    device_name: str | None
    args: str | None
    call_digest: str | None
    key_tier: str | None
    jkt: str | None
    assurance: str | None
    attested_at: int | None
    task: str | None
    purpose: str | None
    rule_set: str | None
    policy: str | None
    rule: str | None
    reason: str | None
    settled: Sequence[Mark]
    audited: Sequence[Mark]
    approval: str | None
    jti: str | None
    actors: Sequence[str]
    pep: str | None
    proof: str | None
    recorded_arguments: Mapping[str, Any]


_OURS: Final = frozenset(
    {
        "leg",
        "pep",
        "proof",
        "args",
        "call_digest",
        "key_tier",
        "jkt",
        "assurance",
        "attested_at",
        "task",
        "purpose",
        "rule_set",
        "policy",
        "rule",
        "reason",
        "approval",
        "jti",
    }
)
_DEVICE: Final = (("uid", "device_uid"), ("name", "device_name"))
_STRUCTURED: Final = ("settled", "audited", "actors", "recorded_arguments")
_MARKS: Final = frozenset({"settled", "audited"})
_NO_STRUCTURE: Final = dict.fromkeys(_STRUCTURED)
_PLAIN: Final = frozenset({str, int, bool, type(None), datetime})
_PRODUCT: Final = {"name": "Countersign", "vendor_name": "Countersign", "version": __version__}


class Certain(dict[str, Any]):
    """A record whose RFC 8785 form the compiled encoder writes (``canonical.is_certain``): its maker has looked."""


def decision_record(**facts: Unpack[DecisionFacts]) -> dict[str, Any]:
    """Return the record of one decision, without its place in a chain.

    Raises
    ------
    ValueError
        If the code is not a registered one: then the caller is wrong, not the data.

    """
    code, allowed = facts["code"], facts["allowed"]
    known: Mapping[str, Any] = facts
    if code not in CODES:
        msg = f"unregistered reason code {code!r}"
        raise ValueError(msg)
    record = _frame(
        facts["decision"],
        facts["now"],
        code,
        activity=_READ if facts.get("access") == "ReadOnly" else _OTHER,
        status=1 if allowed else 2,
        severity=_ALLOW if allowed else _severity(code),
    )
    record["action_id"] = 1 if allowed else 2
    record["api"] = {"operation": facts["operation"], "service": {"name": facts["service"]}}
    # OCSF wants actor and source in each record, also where nobody knows them.
    record["actor"] = _actor(facts) or {"app_name": _UNKNOWN}
    if tool := facts.get("tool"):
        record["resources"] = [{"type": "tool", "name": tool}]
    peer = facts.get("peer")
    record["src_endpoint"] = {"ip": peer} if peer else {"name": _UNKNOWN}
    device = {name: value for name, key in _DEVICE if (value := known.get(key))}
    if device:
        record["device"] = device
    ours = _ours(known)
    record["unmapped"] = {"countersign": ours}
    structured = {name: _structured(name, value) for name in _STRUCTURED if (value := known.get(name))}
    ours |= structured
    # Every value in the record is one of the facts, or made of one, under a name of ours.
    rest = {**known, **_NO_STRUCTURE}
    return Certain(record) if is_certain(structured) and _PLAIN.issuperset(map(type, rest.values())) else record


def _actor(facts: DecisionFacts) -> dict[str, Any]:
    actor: dict[str, Any] = {}
    if user := facts.get("user"):
        actor["user"] = {"name": user}
    if agent := facts.get("agent"):
        actor["app_name"] = agent
    if instance := facts.get("instance"):
        actor["app_uid"] = instance
    return actor


def open_record(
    decision: str, now: datetime, ended: Sequence[Mapping[str, Any]], beside: Sequence[str], *, process: str
) -> dict[str, Any]:
    """Return the first record of a log.

    ``ended`` are ``{"log","seq","head","torn"?}`` of the logs that it continues, the last one first; ``beside`` are the names
    of those that were still being written.
    """
    record = _own(decision, now, "audit.open", process)
    facts = {
        "follows": dict(ended[0]) if ended else None,
        "also": [dict(one) for one in ended[1:]],
        "beside": list(beside),
    }
    record["unmapped"] = {"countersign": {name: value for name, value in facts.items() if value or name == "beside"}}
    return record


def head_record(decision: str, now: datetime, head: str, *, process: str) -> dict[str, Any]:
    """Return the record of a signed head, a JWS."""
    record = _own(decision, now, "audit.head", process)
    record["unmapped"] = {"countersign": {"head": head}}
    return record


def _own(decision: str, now: datetime, code: str, process: str) -> dict[str, Any]:
    """Return a record of what the log does itself: the process is actor and source."""
    record = _frame(decision, now, code, activity=_OTHER, status=1, severity=_ALLOW)
    record["actor"] = {"app_name": process}
    record["api"] = {"operation": code, "service": {"name": "audit"}}
    record["src_endpoint"] = {"name": process}
    return record


def _frame(decision: str, now: datetime, code: str, *, activity: int, status: int, severity: int) -> dict[str, Any]:
    return {
        "activity_id": activity,
        "category_uid": 6,
        "class_uid": 6003,
        "metadata": {
            "product": _PRODUCT,
            "uid": decision,
            "version": "1.7.0",
        },
        "severity_id": severity,
        "status_code": code,
        "status_id": status,
        "time": int(now.timestamp() * 1000),
        "type_uid": 600300 + activity,
    }


def _severity(code: str) -> int:
    return _THEFT if code.startswith(_THEFT_FAMILIES) or code == "instance.revoked" else _POLICY_DENY


def _ours(known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that OCSF has no place for."""
    ours = {name: value for name in _OURS & known.keys() if (value := known[name])}
    if known.get("attested_at") == 0:
        ours["attested_at"] = 0
    return ours


def _structured(name: str, value: Any) -> Any:
    return _marks(value) if name in _MARKS else _plain(value)


def _marks(marks: Sequence[Mark]) -> list[dict[str, Any]]:
    return [{name: value for name, value in mark.items() if value is not None} for mark in marks]


def _plain(value: Any) -> Any:
    """Return sequences and mappings as JSON has them, without members that are None."""
    if type(value) is dict or isinstance(value, Mapping):
        return {name: one for name, one in value.items() if one is not None}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value
