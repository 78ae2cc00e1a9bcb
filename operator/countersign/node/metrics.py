"""What does a node count? Labels are our own words and reason codes of the registry, so their number is bounded."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from countersign.metrics import new_registry

__all__ = ["NodeMetrics"]


class NodeMetrics:
    """The metrics of one process, in a registry of its own."""

    def __init__(self) -> None:
        """Register them."""
        self.registry = new_registry()
        self.slots = Gauge(
            "countersign_node_slots",
            "Slots of countersign.dev/tpm by health (healthy, unhealthy).",
            ["health"],
            registry=self.registry,
        )
        self.allocations = Counter(
            "countersign_node_allocations",
            "Containers that asked for a TPM, by outcome (given, refused).",
            ["outcome"],
            registry=self.registry,
        )
        self.registrations = Counter(
            "countersign_node_registrations",
            "Registrations with kubelet by outcome (done, failed).",
            ["outcome"],
            registry=self.registry,
        )
        self.enrolments = Counter(
            "countersign_node_enrolments",
            "Attempts to propose a TPM or to tell its facts, by reason code.",
            ["code"],
            registry=self.registry,
        )
        self.devices = Gauge(
            "countersign_node_devices",
            "Devices of this node by what people decided (Pending, Approved, Denied).",
            ["state"],
            registry=self.registry,
        )
        self.ready = Gauge("countersign_node_ready", "1 if ready, else 0.", registry=self.registry)
        self.registered = Gauge(
            "countersign_node_registered", "1 while kubelet knows this plugin.", registry=self.registry
        )
