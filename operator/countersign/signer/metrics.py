"""What does a signer count? Labels are reason codes of the registry, so their number is bounded (threats.md E7).

A call that nobody refused is ``policy.allowed``, ``unreachable`` (no answer of the tool server) or ``gone`` (the agent).
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from countersign.metrics import new_registry

__all__ = ["SignerMetrics"]


class SignerMetrics:
    """The metrics of one signer, in a registry of its own."""

    def __init__(self) -> None:
        """Register them."""
        self.registry = new_registry()
        self.calls = Counter(
            "countersign_signer_calls", "Calls of the agent by outcome.", ["code"], registry=self.registry
        )
        self.retries = Counter(
            "countersign_signer_retries",
            "Requests that were sent once more, by the code of the refusal that allows it (wire.md, Retries).",
            ["code"],
            registry=self.registry,
        )
        self.skew = Gauge(
            "countersign_clock_skew_seconds",
            "By how much this node's clock was ahead of another's (negative: behind) when that refused for the time.",
            ["against"],
            registry=self.registry,
        )
        self.enrolments = Counter(
            "countersign_signer_enrolments", "Attempts to get a certificate.", ["code"], registry=self.registry
        )
        self.certificate_expiry = Gauge(
            "countersign_signer_certificate_expiry_timestamp_seconds",
            "When the certificate in use ends.",
            registry=self.registry,
        )
        self.ready = Gauge("countersign_signer_ready", "1 when a signed request was answered.", registry=self.registry)
