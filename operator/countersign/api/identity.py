"""AgentIdentity: which pods are which agent, and what they must prove (crds.md 3.4)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from countersign.api.kind import AGE, Column, Kind, Names, condition
from countersign.api.meta import Assurance, Count, DnsName, KeyTier, LabelSelector, NameReference, Principal, Status
from countersign.api.shape import Mark, Rule, Shape, immutable

__all__ = ["AgentIdentity", "AgentIdentitySpec", "AgentIdentityStatus", "SpiffeId"]

SpiffeId = Annotated[str, Field(max_length=2048)]
Quantity = Annotated[
    int | str,
    Field(union_mode="left_to_right"),
    Mark(
        {
            "x-kubernetes-int-or-string": True,
            "pattern": r"^[0-9]+([.][0-9]+)?([numkMGTPE]|[KMGTPE]i|[eE][0-9]{1,2})?$",
            "maxLength": 32,
        }
    ),
]
Quantities = Annotated[dict[str, Quantity], Field(min_length=1, max_length=8)]


class Run(Shape):
    """Who may run the agent outside the cluster."""

    filled = True

    users: Annotated[tuple[Principal, ...], Field(min_length=1, max_length=64)] | None = None
    """Users by name."""
    groups: Annotated[tuple[Principal, ...], Field(min_length=1, max_length=64)] | None = None
    """Users by group."""


class Resources(Shape):
    """What the sidecar asks for, as in a container."""

    filled = True

    requests: Quantities | None = None
    """Least amounts."""
    limits: Quantities | None = None
    """Most amounts."""


class Signer(Shape):
    """The sidecar that holds the key."""

    injection: Literal["Sidecar", "None"] = "Sidecar"
    """Sidecar: pods get one when they are made. None: the pod brings its own signer."""
    port: Annotated[int, Field(ge=1024, le=65534)] = 7080
    """Loopback port of the signer; health and metrics are on the next one."""
    resources: Resources | None = None
    """Of the sidecar."""


class AgentIdentitySpec(Shape):
    """Which pods, and what they must prove."""

    cel = (
        *immutable("serviceAccountName"),
        Rule(
            "self.minAssurance != 'Software' || self.minKeyTier == 'Software'",
            "minAssurance Software needs minKeyTier Software: there is no TPM to hold a better key",
        ),
    )

    service_account_name: DnsName
    """ServiceAccount of the pods. Immutable: the SPIFFE ID is spiffe://DOMAIN/ns/NAMESPACE/sa/THIS."""
    pod_selector: LabelSelector | None = None
    """Labels of the pods; left out: all pods of the ServiceAccount."""
    issuer_ref: NameReference = NameReference(name="default")
    """IdentityIssuer that signs."""
    life_seconds: Annotated[int, Field(ge=300, le=86400)] = 3600
    """Life of a certificate, cut to the issuer's."""
    min_assurance: Assurance = "Hardware"
    """Lowest device assurance. Order: Software, Virtual, Hardware."""
    min_key_tier: KeyTier = "TPMSession"
    """Lowest tier this agent may use. Order: Software, DPoP, TPMSession, TPM."""
    device_pool_refs: Annotated[tuple[NameReference, ...], Field(min_length=1, max_length=16)] | None = None
    """DevicePools whose devices are accepted; left out: any pool."""
    tasks: Literal["Required", "Optional"] = "Required"
    """Optional: the agent may also act as itself, with no user."""
    run: Run | None = None
    """Who may run the agent outside the cluster; left out: nobody."""
    signer: Signer = Signer()
    """The sidecar that holds the key."""


class AgentIdentityStatus(Status):
    """What Countersign observed of the agent. Condition: Ready."""

    spiffe_id: Annotated[SpiffeId | None, Field(alias="spiffeID")] = None
    """The name in the agent's certificates."""
    instances: Count | None = None
    """How many instances there are."""
    ready_instances: Count | None = None
    """How many of them are Ready."""


class AgentIdentity(Kind):
    """Which pods are which agent, and what they must prove.

    Written by the application team. Deleted, the agent's instances are revoked.
    """

    names = Names("agentidentities", "csid", "Namespaced")
    columns = (
        Column("Service Account", ".spec.serviceAccountName"),
        Column("Assurance", ".spec.minAssurance"),
        Column("Key Tier", ".spec.minKeyTier"),
        Column("Tasks", ".spec.tasks"),
        Column("Instances", ".status.instances", "integer"),
        condition("Ready", "Ready"),
        condition("Reason", "Ready", "reason", wide=True),
        Column("SPIFFE ID", ".status.spiffeID", wide=True),
        AGE,
    )

    spec: AgentIdentitySpec
    """What is wanted."""
    status: AgentIdentityStatus | None = None
    """What is observed."""
