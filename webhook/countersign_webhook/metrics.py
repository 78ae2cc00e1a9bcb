"""Counters and times of this process. Every label has a bounded set of values: codes, endpoints and our own kinds (E7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram, generate_latest

from countersign.metrics import follow_audit, follow_certificate, follow_watches, new_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from countersign.audit import AuditLog

__all__ = ["WebhookMetrics"]

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)


class WebhookMetrics:
    """A registry of its own, so that two webhooks in one test do not share numbers."""

    def __init__(self) -> None:
        """Declare the metrics."""
        self.registry = new_registry()
        self.requests = Counter(
            "countersign_webhook_requests",
            "Answers to signers and verifiers, by endpoint and reason code.",
            ["endpoint", "code"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "countersign_webhook_request_seconds",
            "Time from the whole request to the answer.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.admissions = Counter(
            "countersign_webhook_admissions",
            "Answers to the API server, by endpoint, kind and outcome.",
            ["endpoint", "kind", "outcome"],
            registry=self.registry,
        )
        self.skew = Gauge(
            "countersign_clock_skew_seconds",
            "By how much this machine's clock is ahead of another's (negative: behind): the API server's, and that of who"
            " signed the last proof that was refused for its time, which may be anybody.",
            ["against"],
            registry=self.registry,
        )
        self.compiled = Counter(
            "countersign_webhook_rule_sets",
            "Times the rules or the catalogue were built anew after a change.",
            ["what"],
            registry=self.registry,
        )
        # What ``labels`` finds under a lock each time; there are no more than the labels' values.
        self._counts: dict[tuple[str, str], Counter] = {}
        self._times: dict[str, Histogram] = {}
        self.ready = Gauge("countersign_webhook_ready", "1 if ready, else 0.", registry=self.registry)

    def follow(self, ages: Mapping[str, Callable[[], float]], audit: AuditLog, certificate: Path) -> None:
        """Export how old the view of each kind is, how the audit log keeps up, and when the serving certificate ends."""
        follow_watches(self.registry, "webhook", ages)
        follow_audit(self.registry, "webhook", audit)
        follow_certificate(self.registry, "webhook", certificate)

    def answered(self, endpoint: str, code: str, seconds: float | None = None) -> None:
        """Count one answer, and the time that it took."""
        count = self._counts.get((endpoint, code))
        if count is None:
            count = self._counts[endpoint, code] = self.requests.labels(endpoint, code)
        count.inc()
        if seconds is not None:
            timed = self._times.get(endpoint)
            if timed is None:
                timed = self._times[endpoint] = self.seconds.labels(endpoint)
            timed.observe(seconds)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
