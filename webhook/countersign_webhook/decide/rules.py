"""The compiled rules and the catalogue of servers: built from the watch cache, and anew after a change, never by time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from countersign.kube import CLUSTER_TOOL_POLICIES, TOOL_POLICIES, TOOL_SERVERS, Resource
from countersign.policy import Catalogue, RuleSet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from countersign_webhook.metrics import WebhookMetrics
    from countersign_webhook.source import PolicySource

__all__ = ["RuleBook"]

_POLICIES = frozenset({TOOL_POLICIES.plural, CLUSTER_TOOL_POLICIES.plural})


class RuleBook:
    """What the rules and servers are now; a change in the cache is seen by the very next decision."""

    def __init__(
        self,
        source: PolicySource,
        metrics: WebhookMetrics,
        *,
        grants: Sequence[tuple[str, Sequence[str]]],
        issuer: str,
    ) -> None:
        """Follow ``source``; ``grants`` say which namespaces may claim which audiences, ``issuer``'s own nobody (crds.md 3.7)."""
        self._source, self._metrics = source, metrics
        self._grants, self._issuer = grants, issuer
        self._rules: RuleSet | None = None
        self._rules_before: RuleSet | None = None
        self._servers: Catalogue | None = None
        self._servers_before: Catalogue | None = None
        source.subscribe(self._changed)

    @property
    def rules(self) -> RuleSet:
        """Every ToolPolicy and ClusterToolPolicy that is not being deleted, compiled."""
        if self._rules is None:
            self._metrics.compiled.labels("rules").inc()
            policies = [*self._source.list(TOOL_POLICIES), *self._source.list(CLUSTER_TOOL_POLICIES)]
            self._rules = self._rules_before = RuleSet.compile(policies, previous=self._rules_before)
        return self._rules

    @property
    def servers(self) -> Catalogue:
        """Every ToolServer that is not being deleted."""
        if self._servers is None:
            self._metrics.compiled.labels("servers").inc()
            self._servers = self._servers_before = Catalogue.build(
                self._source.list(TOOL_SERVERS), self._grants, issuer=self._issuer, previous=self._servers_before
            )
        return self._servers

    def _changed(self, resource: Resource, kind: str, obj: dict[str, Any]) -> None:
        del kind, obj
        if resource.plural in _POLICIES:
            self._rules = None
        elif resource.plural == TOOL_SERVERS.plural:
            self._servers = None
