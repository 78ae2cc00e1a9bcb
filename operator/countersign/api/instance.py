"""AgentInstance: one running agent joined to one device (crds.md 3.5)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from countersign.api.identity import SpiffeId  # noqa: TC001 - pydantic reads the annotation
from countersign.api.kind import AGE, Column, Kind, Names, condition
from countersign.api.meta import Assurance, Digest, DnsName, Principal, Status, Time, Uid, UidReference
from countersign.api.shape import Rule, Shape, frozen, immutable, union

__all__ = ["AgentInstance", "AgentInstanceSpec", "AgentInstanceStatus"]


class PodInstance(Shape):
    """The pod that is the agent."""

    name: DnsName
    """Name of the pod."""
    uid: Uid
    """UID of the pod."""
    node_name: DnsName
    """Node that the pod is on."""
    image_digests: Annotated[tuple[Digest, ...], Field(min_length=1, max_length=64)] | None = None
    """Images of all containers but the signer; left out: not all are known."""


class RunInstance(Shape):
    """The user who runs the agent outside the cluster."""

    username: Principal
    """Name of the user."""
    client: Literal["Countersign", "StepCLI"] = "Countersign"
    """The program that enrolled."""


class AgentInstanceSpec(Shape):
    """Which agent, on which device."""

    cel = (
        *immutable("agentRef", "deviceRef", "type"),
        *frozen("pod", "run"),
        *union("type", {"Pod": "pod", "Run": "run"}),
        Rule("oldSelf.state != 'Revoked' || self.state == 'Revoked'", "a revoked instance stays revoked"),
    )

    agent_ref: UidReference
    """The AgentIdentity. Immutable."""
    device_ref: UidReference
    """The Device. Immutable."""
    type: Literal["Pod", "Run"]
    """A pod, or countersign run. Immutable."""
    pod: PodInstance | None = None
    """With type: Pod. Immutable."""
    run: RunInstance | None = None
    """With type: Run. Immutable."""
    state: Literal["Active", "Revoked"] = "Active"
    """The one field that a person may change. Revoked is final."""
    state_reason: Annotated[str, Field(max_length=256)] | None = None
    """Why; for people."""


class Certificate(Shape):
    """The certificate that the instance has now."""

    serial_number: Annotated[str, Field(max_length=128)]
    """Serial number, as hexadecimal with colons."""
    key_thumbprint: Annotated[str, Field(max_length=128)]
    """Thumbprint of the key (RFC 7638); a call finds its instance by it."""
    not_before: Time
    """First moment of its life."""
    not_after: Time
    """Last moment of its life."""


class TaskReference(Shape):
    """The task that the instance works on."""

    name: DnsName
    """Name of the task."""
    uid: Uid | None = None
    """UID of the task."""


class AgentInstanceStatus(Status):
    """What Countersign observed of the instance. Conditions: Attested, Ready, Revoked."""

    spiffe_id: Annotated[SpiffeId | None, Field(alias="spiffeID")] = None
    """The name in the certificate."""
    assurance: Assurance | None = None
    """The Device's, copied for people."""
    attestation_time: Time | None = None
    """The Device's, copied for people."""
    certificate: Certificate | None = None
    """The certificate that the instance has now."""
    task_ref: TaskReference | None = None
    """The task that the instance works on."""


class AgentInstance(Kind):
    """One running agent joined to one device.

    Made by Countersign when a signer enrols. Deleted or Revoked, its calls stop within seconds.
    """

    names = Names("agentinstances", "csinst", "Namespaced")
    columns = (
        Column("Agent", ".spec.agentRef.name"),
        Column("Device", ".spec.deviceRef.name"),
        Column("Assurance", ".status.assurance"),
        condition("Attested", "Attested"),
        condition("Ready", "Ready"),
        condition("Reason", "Ready", "reason"),
        Column("Task", ".status.taskRef.name"),
        Column("Expires", ".status.certificate.notAfter", wide=True),
        Column("Pod", ".spec.pod.name", wide=True),
        Column("SPIFFE ID", ".status.spiffeID", wide=True),
        AGE,
    )

    spec: AgentInstanceSpec
    """What is wanted."""
    status: AgentInstanceStatus | None = None
    """What is observed."""
