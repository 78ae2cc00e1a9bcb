"""Was it the clock? A refusal that depends on two clocks is compared with the ``Date`` of the answer that brought it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from countersign.clock import ahead_of, skew_fault
from countersign.signer.refusal import Refused

if TYPE_CHECKING:
    from datetime import datetime

    from countersign.signer.metrics import SignerMetrics

__all__ = ["explained"]

_TIMELY: Final = frozenset(
    {"cert.expired", "nonce.expired", "proof.expired", "proof.future", "token.expired", "token.future"}
)
_TOLERATED: Final = 5.0
_WHO: Final = {"front_door": "the front door", "tool_server": "the tool server"}
_log = structlog.get_logger("signer")


def explained(refused: Refused, date: str | None, now: datetime, metrics: SignerMetrics, *, by: str) -> Refused:
    """Return ``refused``, and say in it, in the log and in a metric if our clock and the other's differ.

    ``by`` is ``front_door`` or ``tool_server``; the answer came over TLS or from the tool server that policy names.
    """
    if refused.code not in _TIMELY:
        return refused
    seconds = ahead_of(date, now)
    if seconds is not None:
        metrics.skew.labels(against=by).set(seconds)
    fault = skew_fault(seconds, _WHO[by], tolerated=_TOLERATED)
    if fault is None:
        return refused
    _log.warning("clock.skew", code=refused.code, fault=fault)
    detail = f"{refused.detail}; {fault}" if refused.detail else fault
    return Refused(
        refused.code,
        refused.status,
        detail=detail,
        decision=refused.decision,
        approval=refused.approval,
        retry_after=refused.retry_after,
    )
