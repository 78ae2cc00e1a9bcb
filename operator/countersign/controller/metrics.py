"""Counters of this process. Every label has a bounded set of values: our kinds, names of our Secrets, outcomes."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from countersign.metrics import new_registry

__all__ = ["OperatorMetrics"]


class OperatorMetrics:
    """A registry of its own, so that two operators in one test do not share numbers."""

    def __init__(self) -> None:
        """Declare the metrics."""
        self.registry = new_registry()
        self.looks = Counter(
            "countersign_operator_looks",
            "Times an object was looked at, by kind and outcome (same, written, failed).",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self.revocations = Counter(
            "countersign_operator_revocations",
            "AgentInstances revoked by the operator, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.rotations = Counter(
            "countersign_operator_secret_writes",
            "Times a Secret was made or rotated, by name.",
            ["secret"],
            registry=self.registry,
        )
        self.skew = Gauge(
            "countersign_clock_skew_seconds",
            "By how much this machine's clock is ahead of another's (negative: behind).",
            ["against"],
            registry=self.registry,
        )
        self.waiting = Gauge("countersign_operator_queue", "Keys that wait to be looked at.", registry=self.registry)
        self.leading = Gauge("countersign_operator_leading", "1 if this replica leads, else 0.", registry=self.registry)
        self.ready = Gauge("countersign_operator_ready", "1 if ready, else 0.", registry=self.registry)
        self.certificate_expiry = Gauge(
            "countersign_operator_certificate_expiry_timestamp_seconds",
            "When the certificate of a Secret ends: the serving CA and the two serving certificates. The leader alone knows.",
            ["secret"],
            registry=self.registry,
        )
        self.token_key_expiry = Gauge(
            "countersign_operator_token_key_expiry_timestamp_seconds",
            "When the last of the token keys stops to sign. The leader alone knows.",
            registry=self.registry,
        )
        self.forget()

    def forget(self) -> None:
        """Say nothing about certificates and keys: another replica leads, and may have made new ones."""
        self.certificate_expiry.clear()
        self.token_key_expiry.set(float("nan"))
