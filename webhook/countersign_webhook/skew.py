"""Clocks that differ are told: in metrics, and at most once a minute in the log. Calls fail closed by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from countersign.clock import skew_fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from countersign.clock import Clock
    from countersign_webhook.metrics import WebhookMetrics

__all__ = ["SkewAlarm"]

_EVERY: Final = 60.0
_log = structlog.get_logger("countersign.webhook.clock")


class SkewAlarm:
    """Hears of clocks: the API server's, which ``measured`` asks for, and those of signers whose proofs were untimely."""

    def __init__(self, clock: Clock, metrics: WebhookMetrics, measured: Callable[[], float | None]) -> None:
        """Know of no skew yet. ``measured`` returns by how many seconds ours is ahead of the API server's."""
        self._clock = clock
        self._metrics = metrics
        self._measured = measured
        self._logged: dict[str, float] = {}

    def look(self) -> str | None:
        """Compare with the API server; return what is wrong, or None."""
        seconds = self._measured()
        self._metrics.skew.labels("api_server").set(seconds or 0.0)
        fault = skew_fault(seconds, "the API server")
        self._log("api_server", fault)
        return fault

    def untimely(self, seconds: float) -> None:
        """Hear that a signer's clock seems ``seconds`` ahead of ours: a proof of its was refused for that."""
        self._metrics.skew.labels("signer").set(-seconds)
        self._log("signer", skew_fault(-seconds, "a signer", tolerated=0))

    def _log(self, against: str, fault: str | None) -> None:
        now = self._clock.monotonic()
        if fault is not None and now - self._logged.get(against, float("-inf")) >= _EVERY:
            self._logged[against] = now
            _log.warning("clock.skew", against=against, fault=fault)
