"""Device: one TPM in the inventory (crds.md 3.3)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from countersign.api.kind import AGE, Column, Kind, Names, condition
from countersign.api.meta import Assurance, Count, Digest, DnsName, NameReference, Principal, Status, Time
from countersign.api.shape import Mark, Rule, Shape, frozen, immutable, union

__all__ = ["Device", "DeviceSpec", "DeviceStatus"]

Text = Annotated[str, Field(max_length=256)]
FactName = Annotated[str, Field(min_length=1, max_length=63)]


class EndorsementKey(Shape):
    """The key that the TPM was made with."""

    public_key_sha256: Annotated[Digest, Field(alias="publicKeySHA256")]
    """SHA-256 of the public key as DER SubjectPublicKeyInfo."""


class NodeBinding(Shape):
    """A node of the cluster."""

    name: DnsName
    """Name of the Node."""


class Binding(Shape):
    """Where the device is used."""

    cel = (
        *immutable("type", said="binding."),
        *frozen("node", said="binding."),
        *union("type", {"Node": "node", "Users": "users"}),
    )

    type: Literal["Node", "Users"]
    """Node: pods on that node. Users: countersign run, by these users. Immutable."""
    node: NodeBinding | None = None
    """With type: Node. Immutable."""
    users: Annotated[tuple[Principal, ...], Field(min_length=1, max_length=16)] | None = None
    """With type: Users: who may use countersign run here."""


class DeviceSpec(Shape):
    """Which TPM, where, and whether it is approved."""

    cel = (
        *immutable("poolRef"),
        *frozen("ek"),
        Rule("self.state != 'Pending' || oldSelf.state == 'Pending'", "state cannot go back to Pending"),
    )

    pool_ref: NameReference
    """DevicePool that says what this TPM proves. Immutable."""
    ek: EndorsementKey | None = None
    """Endorsement key; left out only in a Software pool. It may be neither changed, added nor removed."""
    owner: Text | None = None
    """Who answers for the device; for people."""
    binding: Binding
    """Where the device is used."""
    state: Literal["Pending", "Approved", "Denied"] = "Pending"
    """The decision of people. Attested is an observation; a call needs both."""


class Fact(Shape):
    """One fact about the device's posture, from the quote or from outside."""

    name: FactName
    """What is said, such as disk-encryption."""
    value: Text
    """What was seen."""
    source: FactName
    """Who says it. Each source applies its own entries."""
    observed_time: Time
    """When it was seen."""


class DeviceStatus(Status):
    """What Countersign observed of the device. Conditions: Attested, Conflicted."""

    assurance: Assurance | None = None
    """What the last attestation proved."""
    attestation_time: Time | None = None
    """When the device last attested."""
    manufacturer: Text | None = None
    """Manufacturer of the TPM."""
    model: Text | None = None
    """Model of the TPM."""
    firmware: Text | None = None
    """Firmware version of the TPM."""
    instances: Count | None = None
    """How many AgentInstances are joined to the device."""
    facts: Annotated[tuple[Fact, ...], Field(max_length=64), Mark.map("name", "source")] | None = None
    """Posture."""


class Device(Kind):
    """One TPM in the inventory.

    Written by the platform team, or proposed by enrolment. Denied or deleted, its instances become Revoked and calls stop
    within seconds.
    """

    names = Names("devices", "csdev", "Cluster")
    cel = ()  # named like a node, so a DNS subdomain
    columns = (
        Column("Pool", ".spec.poolRef.name"),
        Column("State", ".spec.state"),
        Column("Assurance", ".status.assurance"),
        condition("Attested", "Attested"),
        Column("Node", ".spec.binding.node.name"),
        Column("Last Attested", ".status.attestationTime", "date"),
        Column("Owner", ".spec.owner", wide=True),
        Column("Instances", ".status.instances", "integer", wide=True),
        AGE,
    )

    spec: DeviceSpec
    """What is wanted."""
    status: DeviceStatus | None = None
    """What is observed."""
