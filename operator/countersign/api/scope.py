"""What a rule of a policy speaks about: whom, in which task, from where, which tools (crds.md 3.8 and 5.4).

The blocks of a ClusterToolPolicy differ in one thing: there a namespace must be said.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from countersign.api.meta import Access, Assurance, Digest, DnsLabel, KeyTier, Principal, ToolName
from countersign.api.shape import Mark, Rule, Shape

__all__ = ["ClusterSubjects", "ClusterTools", "Environment", "Principals", "Subjects", "Task", "Tools"]

Principals = Annotated[tuple[Principal, ...], Field(min_length=1, max_length=64)]
Word = Annotated[str, Field(min_length=1, max_length=63)]
Value = Annotated[str, Field(max_length=256)]


class Agent(Shape):
    """An AgentIdentity of the policy's namespace."""

    cel = (
        Rule(
            "!has(self.namespace)",
            "a ToolPolicy speaks about agents of its own namespace: leave out agents[].namespace",
        ),
    )

    namespace: DnsLabel | None = None
    """Refused here: a ToolPolicy speaks about agents of its own namespace."""
    name: DnsLabel
    """Name of the AgentIdentity."""


class ClusterAgent(Shape):
    """An AgentIdentity."""

    namespace: DnsLabel
    """Namespace of the AgentIdentity."""
    name: DnsLabel
    """Name of the AgentIdentity."""


class Server(Shape):
    """A ToolServer."""

    namespace: DnsLabel | None = None
    """Namespace of the ToolServer; left out: the policy's."""
    name: DnsLabel
    """Name of the ToolServer. One that does not exist matches nothing."""


class ClusterServer(Shape):
    """A ToolServer."""

    namespace: DnsLabel
    """Namespace of the ToolServer."""
    name: DnsLabel
    """Name of the ToolServer. One that does not exist matches nothing."""


class People(Shape):
    """Who the call is for."""

    filled = True

    users: Principals | None = None
    """Names of users, as the API server authenticated them."""
    groups: Principals | None = None
    """Groups of users."""


class Subjects(People):
    """Whom a rule speaks about: all lists that are given must match, one entry of each is enough."""

    agents: Annotated[tuple[Agent, ...], Field(min_length=1, max_length=64)] | None = None
    """Agents of this namespace."""


class ClusterSubjects(People):
    """Whom a rule speaks about: all lists that are given must match, one entry of each is enough."""

    agents: Annotated[tuple[ClusterAgent, ...], Field(min_length=1, max_length=64)] | None = None
    """Agents."""


class Task(Shape):
    """What the bound task must be."""

    purposes: Annotated[tuple[DnsLabel, ...], Field(min_length=1, max_length=32)]
    """Purposes, one of which the task has."""


class FactCondition(Shape):
    """A fact about the device, fresh, with one of the values. A fact that is missing leaves the rule undecided."""

    name: Word
    """Name of the fact."""
    values: Annotated[tuple[Value, ...], Field(min_length=1, max_length=32)]
    """Accepted values."""
    source: Word | None = None
    """Who says it; left out: anybody but the node itself."""
    max_age_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """Oldest observation; left out: whatever its age."""


class Environment(Shape):
    """Where the call comes from: all that is given must hold."""

    filled = True

    min_assurance: Assurance | None = None
    """Lowest device assurance. Order: Software, Virtual, Hardware."""
    min_key_tier: KeyTier | None = None
    """Lowest tier of this call. Order: Software, DPoP, TPMSession, TPM."""
    max_attestation_age_seconds: Annotated[int, Field(ge=1, le=604800)] | None = None
    """Oldest attestation."""
    image_digests: Annotated[tuple[Digest, ...], Field(min_length=1, max_length=64)] | None = None
    """Images, among which every image of the agent's pod is."""
    device_pools: Annotated[tuple[DnsLabel, ...], Field(min_length=1, max_length=64)] | None = None
    """DevicePools."""
    clusters: Annotated[tuple[Principal, ...], Field(min_length=1, max_length=64)] | None = None
    """Clusters by name."""
    sources: (
        Annotated[tuple[Literal["Pod", "OwnSigner", "Run", "StepCLI"], ...], Field(min_length=1, max_length=4)] | None
    ) = None
    """How the agent runs: Pod, OwnSigner (a pod with injection: None), Run, StepCLI."""
    facts: Annotated[tuple[FactCondition, ...], Field(min_length=1, max_length=16), Mark.map("name")] | None = None
    """Posture of the device."""


class ToolsBase(Shape):
    """Which tools: all that is given in an entry must match. Without names and access: every tool registered there."""

    filled = True

    names: Annotated[tuple[ToolName, ...], Field(min_length=1, max_length=64)] | None = None
    """Names of tools, compared exactly."""
    access: Annotated[tuple[Access, ...], Field(min_length=1, max_length=3)] | None = None
    """What the tools may do to the world."""


class Tools(ToolsBase):
    """Which tools: all that is given in an entry must match. Without names and access: every tool registered there."""

    server: Server | None = None
    """Their ToolServer. Only a Deny rule may leave it out."""


class ClusterTools(ToolsBase):
    """Which tools: all that is given in an entry must match. Without names and access: every tool registered there."""

    server: ClusterServer | None = None
    """Their ToolServer. Only a Deny rule may leave it out."""
