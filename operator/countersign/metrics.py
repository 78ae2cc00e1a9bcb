"""What every process exports: its registry, and gauges of what time alone can make bad.

Names are ``countersign_<process>_<what>_<unit>``; labels come from fixed lists (threats.md E7). Gauges are read when Prometheus
asks, so that a process that does nothing any more still says how old its knowledge is.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Final, Protocol

from cryptography import x509
from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["AuditWriter", "expiry_of", "follow_audit", "follow_certificate", "follow_watches", "new_registry"]

_WRITE_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class AuditWriter(Protocol):
    """What is looked at of an audit log."""

    @property
    def ready(self) -> bool:
        """Whether records are accepted."""

    @property
    def backlog(self) -> int:
        """How many records wait for the disk."""

    @property
    def write_seconds(self) -> float:
        """How long the last write took."""

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after each write."""


def new_registry() -> CollectorRegistry:
    """Return a registry with what Prometheus expects of any process (``process_…``) and our version."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    built = Gauge("countersign_build_info", "1, with the version that runs.", ["version"], registry=registry)
    built.labels(version("countersign")).set(1)
    return registry


def follow_watches(registry: CollectorRegistry, process: str, ages: Mapping[str, Callable[[], float]]) -> None:
    """Export for each kind (its plural name) how many seconds ago the API server last said anything about it."""
    gauge = Gauge(
        f"countersign_{process}_watch_age_seconds",
        "Time since the API server was last heard about a kind; infinite before the first time.",
        ["kind"],
        registry=registry,
    )
    for kind, age in ages.items():
        gauge.labels(kind).set_function(age)


def follow_audit(registry: CollectorRegistry, process: str, log: AuditWriter) -> None:
    """Export how an audit log keeps up with its disk."""
    backlog = Gauge(
        f"countersign_{process}_audit_backlog_records", "Records that wait for the disk.", registry=registry
    )
    backlog.set_function(lambda: log.backlog)
    accepting = Gauge(f"countersign_{process}_audit_accepting", "1 while records are accepted.", registry=registry)
    accepting.set_function(lambda: log.ready)
    seconds = Histogram(
        f"countersign_{process}_audit_write_seconds",
        "Time to write waiting records and sync them.",
        buckets=_WRITE_SECONDS,
        registry=registry,
    )
    log.subscribe(lambda: seconds.observe(log.write_seconds))


def follow_certificate(registry: CollectorRegistry, process: str, path: Path) -> None:
    """Export when the serving certificate in the file ends; not a number while it cannot be read."""
    gauge = Gauge(
        f"countersign_{process}_certificate_expiry_timestamp_seconds",
        "When the serving certificate ends.",
        registry=registry,
    )

    def read() -> float:
        try:
            return expiry_of(path.read_bytes())
        except (OSError, ValueError):
            return float("nan")

    gauge.set_function(read)


def expiry_of(pem: bytes) -> float:
    """Return when the first certificate of a PEM text ends, in seconds since 1970. Raises ValueError."""
    return x509.load_pem_x509_certificates(pem)[0].not_valid_after_utc.timestamp()
