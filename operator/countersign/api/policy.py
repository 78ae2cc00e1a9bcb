"""ToolPolicy and ClusterToolPolicy: rules about calls (crds.md 3.8). Two kinds, because RBAC can only tell kinds apart."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from countersign.api.argument import Argument  # noqa: TC001 - pydantic reads the annotation
from countersign.api.kind import AGE, Column, Kind, Names, condition
from countersign.api.meta import Count, Digest, DnsLabel, LabelSelector, Status
from countersign.api.scope import (  # noqa: TC001 - pydantic reads the annotations
    ClusterSubjects,
    ClusterTools,
    Environment,
    Principals,
    Subjects,
    Task,
    Tools,
)
from countersign.api.shape import Mark, Rule, Shape

__all__ = ["ClusterToolPolicy", "ClusterToolPolicySpec", "ToolPolicy", "ToolPolicySpec", "ToolPolicyStatus"]


class Approval(Shape):
    """Who may approve. Nobody named: anyone with the verb approve."""

    users: Principals | None = None
    """Approvers by name."""
    groups: Principals | None = None
    """Approvers by group."""
    expires_seconds: Annotated[int, Field(ge=30, le=86400)] = 900
    """How long the request, and the answer, may be used."""


class RuleBase(Shape):
    """One rule: it speaks where all of its parts hold. The order of rules does not matter."""

    cel = (
        Rule("self.effect == 'Deny' || has(self.tools)", "tools is required unless effect is Deny"),
        Rule(
            "self.effect == 'Deny' || !has(self.tools) || self.tools.all(t, has(t.server))",
            "every entry of tools must name its server unless effect is Deny",
        ),
        Rule("self.effect == 'Deny' || !has(self.unless)", "unless is for Deny rules; use environment"),
        Rule(
            "(self.effect == 'RequireApproval') == has(self.approval)",
            "approval is required when effect is RequireApproval and forbidden otherwise",
        ),
        Rule(
            "self.effect != 'Deny' || !has(self.environment) || !(has(self.environment.minAssurance)"
            " || has(self.environment.minKeyTier) || has(self.environment.maxAttestationAgeSeconds)"
            " || has(self.environment.imageDigests))",
            "on a Deny rule put minAssurance, minKeyTier, maxAttestationAgeSeconds and imageDigests"
            " under unless, not under environment",
        ),
    )

    name: DnsLabel
    """Name, unique in the policy; the audit record shows it."""
    effect: Literal["Allow", "Deny", "RequireApproval"]
    """What the rule does where it speaks."""
    reason: Annotated[str, Field(max_length=256)] | None = None
    """Why; shown to the caller and recorded. No secrets."""
    task: Task | None = None
    """What the bound task must be."""
    environment: Environment | None = None
    """Where the call comes from."""
    unless: Environment | None = None
    """Deny only: the rule steps aside when all of this holds."""
    arguments: Annotated[tuple[Argument, ...], Field(min_length=1, max_length=16)] | None = None
    """Typed conditions on the arguments of the call; all must hold."""
    when: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """A condition in CEL over call, args, agent, user, task, device, key, instance, cluster and now."""
    approval: Approval | None = None
    """RequireApproval only: who may approve."""


class PolicyRule(RuleBase):
    """One rule: it speaks where all of its parts hold. The order of rules does not matter."""

    subjects: Subjects | None = None
    """Whom the rule speaks about; left out: every agent of this namespace."""
    tools: Annotated[tuple[Tools, ...], Field(min_length=1, max_length=32)] | None = None
    """Which tools; one entry is enough. Only a Deny rule may leave it out."""


class ClusterPolicyRule(RuleBase):
    """One rule: it speaks where all of its parts hold. The order of rules does not matter."""

    subjects: ClusterSubjects | None = None
    """Whom the rule speaks about; left out: every agent of the namespaces that are selected."""
    tools: Annotated[tuple[ClusterTools, ...], Field(min_length=1, max_length=32)] | None = None
    """Which tools; one entry is enough. Only a Deny rule may leave it out."""


class PolicyBase(Shape):
    """Rules and how they count."""

    mode: Literal["Enforce", "Audit"] = "Enforce"
    """Audit: rules are evaluated and recorded, and never change an outcome."""
    description: Annotated[str, Field(max_length=1024)] | None = None
    """For people."""


class ToolPolicySpec(PolicyBase):
    """Rules about calls of this namespace's agents."""

    rules: Annotated[tuple[PolicyRule, ...], Field(min_length=1, max_length=32), Mark.map("name")]
    """The rules. A Deny that is true or undecided wins over every Allow."""


class ClusterToolPolicySpec(PolicyBase):
    """Rules about calls of agents in the namespaces that are selected."""

    namespace_selector: LabelSelector | None = None
    """Labels of the agent's Namespace; left out: all namespaces."""
    rules: Annotated[tuple[ClusterPolicyRule, ...], Field(min_length=1, max_length=32), Mark.map("name")]
    """The rules. A Deny that is true or undecided wins over every Allow."""


class ToolPolicyStatus(Status):
    """What Countersign observed of the policy. Conditions: Accepted, ResolvedRefs. No decision reads them."""

    rules: Count | None = None
    """How many rules there are."""
    matched_agents: Count | None = None
    """How many AgentIdentities the policy speaks about."""
    digest: Digest | None = None
    """Digest of the rules; every decision records it."""


_COLUMNS = (
    Column("Mode", ".spec.mode"),
    Column("Rules", ".status.rules", "integer"),
    Column("Agents", ".status.matchedAgents", "integer"),
    condition("Accepted", "Accepted"),
    condition("Refs", "ResolvedRefs", wide=True),
    Column("Digest", ".status.digest", wide=True),
    AGE,
)


class ToolPolicy(Kind):
    """Rules about calls of this namespace's agents, wherever the tool server is.

    Without any policy that allows it, a call is denied.
    """

    names = Names("toolpolicies", "cstp", "Namespaced")
    columns = _COLUMNS

    spec: ToolPolicySpec
    """What is wanted."""
    status: ToolPolicyStatus | None = None
    """What is observed."""


class ClusterToolPolicy(Kind):
    """Rules about calls of agents in the namespaces that are selected.

    Written by the platform team.
    """

    names = Names("clustertoolpolicies", "csctp", "Cluster")
    columns = _COLUMNS

    spec: ClusterToolPolicySpec
    """What is wanted."""
    status: ToolPolicyStatus | None = None
    """What is observed."""
