"""``metav1.Condition``: one list, one function, no clock of its own."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = ["set_condition"]

_LONGEST: Final = 32768


def set_condition(
    conditions: Sequence[dict[str, Any]],
    type: str,  # noqa: A002 - the field's name
    status: str,
    reason: str,
    message: str,
    generation: int,
    now: datetime,
) -> list[dict[str, Any]]:
    """Return ``conditions`` with the one of ``type`` made or replaced in its place; the input is not changed.

    ``status`` is ``True``, ``False`` or ``Unknown``; ``now`` becomes ``lastTransitionTime`` only if the status changed, so
    that repeating an observation yields an equal list. Raises ``ValueError`` for another status or an empty reason.
    """
    if status not in {"True", "False", "Unknown"} or not reason:
        raise ValueError(f"condition {type}: status {status!r} with reason {reason!r}")
    old = next((item for item in conditions if item.get("type") == type), None)
    since = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if old is not None and old.get("status") == status:
        since = old.get("lastTransitionTime", since)
    made = {
        "type": type,
        "status": status,
        "reason": reason,
        "message": message[:_LONGEST],
        "observedGeneration": generation,
        "lastTransitionTime": since,
    }
    if old is None:
        return [*conditions, made]
    return [made if item is old else item for item in conditions]
