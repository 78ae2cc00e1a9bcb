"""Why was this decided? One audit record, in the words of a person who was refused or has to answer for it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from countersign.audit import Filters, query, row_of
from countersign.errors import title

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["explanation", "find_record", "lines"]

# What each step of crds.md 5.2 looked at, by the family of the code.
_MEANING: Final[Mapping[str, str]] = {
    "policy.allowed": "an Allow rule matched, or what asks was approved, and nothing denied",
    "policy.default_deny": "no rule allowed it: without a matching rule the answer is no",
    "policy.denied": "a Deny rule matched; no Allow lifts it",
    "policy.undecided": "a rule that denies or asks had a part without an answer (a missing or odd value, an error)",
    "approval.required": "a person has to approve this very call",
    "approval.pending": "a person was asked and has not answered",
    "approval.denied": "a person said no to this very call",
    "environment": "a floor of the agent, the server or the device's pool was not met, before any rule was asked",
    "tool": "server, tool or arguments are not what is registered, before any rule was asked",
    "task": "the task did not admit it, before any rule was asked",
    "instance": "the record of the running agent did not admit it",
    "device": "the device is not admitted",
}


def find_record(paths: Iterable[Path], decision: str) -> dict[str, Any] | None:
    """Return the record of a decision, or None. Raises ``OSError`` for a log that cannot be read."""
    return next(query(paths, Filters(decision=decision)), None)


def explanation(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return who, what, which rule and reason, which facts, and every rule that took part; what is unknown is left out."""
    row, ours = row_of(dict(record)), _ours(record)
    attested = ours.get("attested_at")
    meaning = _MEANING.get(row.code) or _MEANING.get(row.code.partition(".")[0], "")
    return {
        "decision": row.decision,
        "time": row.time.isoformat().replace("+00:00", "Z"),
        "answer": row.answer,
        "code": row.code,
        "meaning": meaning or title(row.code),
        "who": _some(agent=row.agent, instance=row.instance, user=row.user, peer=row.peer)
        | _picked(ours, "task", "purpose"),
        "what": _some(tool=row.tool, operation=row.operation, service=row.service)
        | _picked(ours, "args", "call_digest", "recorded_arguments"),
        "rule": _picked(ours, "policy", "rule", "reason", "approval"),
        "facts": _some(device=row.device, attested=_time(attested))
        | _picked(ours, "assurance", "key_tier", "jkt", "rule_set"),
        "settled": ours.get("settled") or [],
        "audited": ours.get("audited") or [],
    }


def _ours(record: Mapping[str, Any]) -> Mapping[str, Any]:
    unmapped = record.get("unmapped")
    found = unmapped.get("countersign") if isinstance(unmapped, dict) else None
    return found if isinstance(found, dict) else {}


def _time(seconds: Any) -> str | None:
    if not isinstance(seconds, int):
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _picked(found: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return _some(**{name: found.get(name) for name in names})


def _some(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value not in (None, "", {}, [])}


def lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield an explanation as pairs of a word and a text."""
    yield "decision", f"{found['decision']}  {found['time']}"
    yield "answer", f"{found['answer']}  {found['code']}: {found['meaning']}"
    for part in ("who", "what", "rule", "facts"):
        for name, value in found[part].items():
            yield f"{part}.{name}", value if isinstance(value, str) else _text(value)
    for part in ("settled", "audited"):
        for mark in found[part]:
            yield part, f"{mark.get('effect')}  {mark.get('policy')}  {mark.get('rule') or '(cannot be read)'}"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{name}={one!r}" for name, one in sorted(value.items()))
    return str(value)
