"""What every process exports: names and labels by one rule, and gauges that tell what time has done."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from support.cluster import NOW
from support.exported import REGISTRIES, Metric, exported

from countersign.controller.serving import ca_members, serving_members
from countersign.metrics import follow_audit, follow_certificate, follow_watches

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Each has a bounded set of values: kinds, codes of the registry, paths of ours, words of ours.
LABELS = {
    "against",
    "ca",
    "code",
    "endpoint",
    "health",
    "kind",
    "operation",
    "outcome",
    "reason",
    "secret",
    "state",
    "version",
    "what",
}


@pytest.mark.parametrize("process", REGISTRIES)
def test_names_and_labels_are_by_the_rule(process: str) -> None:
    ours = {name: one for name, one in exported(process).items() if not name.startswith("process_")}
    assert len(ours) >= 5
    for name, one in ours.items():
        assert name.startswith(
            (f"countersign_{process}_", "countersign_build_info", "countersign_clock_skew_seconds")
        ), name
        assert set(one.labels) <= LABELS, name
        assert one.kind != "counter" or name.endswith("_total"), name
        assert one.kind != "histogram" or name.endswith("_seconds"), name
        assert "expiry" not in name or name.endswith("_timestamp_seconds"), name
        assert "age" not in name.split("_") or name.endswith("_seconds"), name
        assert one.help.endswith("."), name


@pytest.mark.parametrize("process", REGISTRIES)
def test_what_prometheus_expects_of_any_process_is_there(process: str) -> None:
    text = generate_latest(REGISTRIES[process]()).decode()
    assert "process_resident_memory_bytes " in text
    assert "process_cpu_seconds_total " in text
    assert 'countersign_build_info{version="0.1.0"} 1.0' in text


@pytest.mark.parametrize("process", ["webhook", "authority"])
@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("ready", "gauge"),
        ("watch_age_seconds", "gauge"),
        ("audit_backlog_records", "gauge"),
        ("audit_accepting", "gauge"),
        ("audit_write_seconds", "histogram"),
        ("certificate_expiry_timestamp_seconds", "gauge"),
    ],
)
def test_both_that_decide_tell_how_old_their_view_is_and_how_their_log_keeps_up(
    process: str, what: str, kind: str
) -> None:
    found: Metric = exported(process)[f"countersign_{process}_{what}"]
    assert found.kind == kind


def test_the_age_of_each_watch_is_read_when_it_is_asked_for() -> None:
    registry, ages = CollectorRegistry(), {"pods": math.inf, "devices": 3.0}
    follow_watches(registry, "webhook", {kind: lambda kind=kind: ages[kind] for kind in ages})

    def age(kind: str) -> float | None:
        return registry.get_sample_value("countersign_webhook_watch_age_seconds", {"kind": kind})

    assert (age("pods"), age("devices")) == (math.inf, 3.0)
    ages["pods"] = 0.5
    assert age("pods") == 0.5


@dataclass
class Log:
    """An audit log as far as it is looked at."""

    ready: bool = True
    backlog: int = 7
    write_seconds: float = 0.004
    listeners: list[Callable[[], None]] = field(default_factory=list)

    def subscribe(self, callback: Callable[[], None]) -> None:
        self.listeners.append(callback)


def test_a_log_tells_what_waits_and_how_long_each_write_took() -> None:
    registry, log = CollectorRegistry(), Log()
    follow_audit(registry, "webhook", log)
    for listener in log.listeners:
        listener()
    log.ready = False
    text = generate_latest(registry).decode()
    assert "countersign_webhook_audit_backlog_records 7.0" in text
    assert "countersign_webhook_audit_accepting 0.0" in text
    assert 'countersign_webhook_audit_write_seconds_bucket{le="0.002"} 0.0' in text
    assert 'countersign_webhook_audit_write_seconds_bucket{le="0.005"} 1.0' in text


def test_the_end_of_the_certificate_is_that_of_the_file_of_now(tmp_path: Path) -> None:
    registry, file = CollectorRegistry(), tmp_path / "tls.crt"
    follow_certificate(registry, "authority", file)

    def end() -> float:
        found = registry.get_sample_value("countersign_authority_certificate_expiry_timestamp_seconds")
        assert found is not None
        return found

    assert math.isnan(end())
    file.write_bytes(serving_members({}, ca_members({}, NOW), ["localhost"], NOW)["tls.crt"])
    assert end() == NOW.timestamp() + 60 * 86400
    file.write_bytes(b"half a certificate")
    assert math.isnan(end())
