"""What the authority counts, and what it knows about the ends of things. Labels come from fixed lists (threats.md E7)."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import Counter, Gauge, Histogram

from countersign.authority.cluster import WATCHED, condition, is_live
from countersign.metrics import follow_audit, follow_certificate, follow_watches, new_registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from countersign.audit import AuditLog
    from countersign.authority.cluster import Cluster
    from countersign.clock import Clock

__all__ = ["Metrics", "is_overdue"]

# A signer renews at two thirds of the life, give or take a tenth (enrolment.md 4): after this part it has failed for a while.
_OVERDUE: Final = 0.9


class Metrics:
    """What ``/metrics`` shows."""

    def __init__(self) -> None:
        """Make a registry of one's own, so that two authorities can live in one test."""
        self.registry = new_registry()
        self.answers = Counter(
            "countersign_authority_answers",
            "Answers, by operation and reason code.",
            ["operation", "code"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "countersign_authority_answer_seconds", "Time to an answer.", ["operation"], registry=self.registry
        )
        self.ready = Gauge("countersign_authority_ready", "1 if ready, else 0.", registry=self.registry)
        self.skew = Gauge(
            "countersign_clock_skew_seconds",
            "By how much this machine's clock is ahead of another's (negative: behind).",
            ["against"],
            registry=self.registry,
        )
        self._ca_expiry = Gauge(
            "countersign_authority_ca_expiry_timestamp_seconds",
            "When the CA that signs ends: that of attestation keys, and the first of those of identities.",
            ["ca"],
            registry=self.registry,
        )
        self._overdue = Gauge(
            "countersign_authority_renewals_overdue",
            "Instances of running pods whose certificate should have been renewed by now and was not.",
            registry=self.registry,
        )

    def follow_cas(self, expiry: Callable[[], tuple[float, float]]) -> None:
        """Export when the CAs end, as ``expiry`` says it of the attestation CA and of the identity CAs."""
        self._ca_expiry.labels("attestation").set_function(lambda: expiry()[0])
        self._ca_expiry.labels("identity").set_function(lambda: expiry()[1])

    def follow(self, cluster: Cluster, audit: AuditLog, certificate: Path, clock: Clock) -> None:
        """Export how old the view of each kind is, how the log keeps up, what ends, and who did not renew."""
        ages = {one.plural: (lambda one=one: cluster.cache.age(one)) for one in WATCHED}
        follow_watches(self.registry, "authority", ages)
        follow_audit(self.registry, "authority", audit)
        follow_certificate(self.registry, "authority", certificate)
        self._overdue.set_function(lambda: sum(is_overdue(one, clock.now()) for one in cluster.instances()))


def is_overdue(instance: dict[str, Any], now: datetime) -> bool:
    """Tell whether an instance's signer should have renewed long ago: its certificate still lives, but not for long.

    One that has ended says nothing: its pod may have done what it was for.
    """
    certificate = (instance.get("status") or {}).get("certificate") or {}
    if not (is_live(instance) and certificate.get("notBefore") and certificate.get("notAfter")):
        return False
    if (condition(instance, "Ready") or {}).get("reason") == "PodNotReady":
        return False
    begin, end = (datetime.fromisoformat(certificate[name]) for name in ("notBefore", "notAfter"))
    return begin + (end - begin) * _OVERDUE <= now < end
