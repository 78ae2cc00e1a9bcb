"""What each process registers with Prometheus, read from its own registry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from support.cluster import NOW

from countersign.authority.metrics import Metrics
from countersign.clock import FakeClock
from countersign.controller.metrics import OperatorMetrics
from countersign.node.metrics import NodeMetrics
from countersign.signer.metrics import SignerMetrics
from countersign_webhook.context import WATCHED
from countersign_webhook.metrics import WebhookMetrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

_LOG: Any = SimpleNamespace(ready=True, backlog=0, write_seconds=0.0, subscribe=lambda _callback: None)
_FILE: Final = Path("/nowhere/tls.crt")


@dataclass(frozen=True)
class Metric:
    """A metric under the name that a query uses."""

    kind: str
    labels: tuple[str, ...]
    help: str


def _webhook() -> CollectorRegistry:
    metrics = WebhookMetrics()
    metrics.follow({one.plural: lambda: 0.0 for one in WATCHED}, _LOG, _FILE)
    return metrics.registry


def _authority() -> CollectorRegistry:
    metrics = Metrics()
    cluster: Any = SimpleNamespace(cache=SimpleNamespace(age=lambda _kind: 0.0), instances=list)
    metrics.follow(cluster, _LOG, _FILE, FakeClock(NOW))
    metrics.follow_cas(lambda: (0.0, 0.0))
    return metrics.registry


REGISTRIES: Final[dict[str, Callable[[], CollectorRegistry]]] = {
    "operator": lambda: OperatorMetrics().registry,
    "webhook": _webhook,
    "authority": _authority,
    "node": lambda: NodeMetrics().registry,
    "signer": lambda: SignerMetrics().registry,
}


def exported(process: str) -> dict[str, Metric]:
    """Return what a process exports: counters as ``…_total``; a histogram by its own name, without its three series."""
    registry = REGISTRIES[process]()
    found = {}
    for collector in set(registry._names_to_collectors.values()):
        labels = tuple(getattr(collector, "_labelnames", ()))
        for family in collector.describe() if hasattr(collector, "describe") else collector.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = Metric(family.type, labels, family.documentation)
    return found
