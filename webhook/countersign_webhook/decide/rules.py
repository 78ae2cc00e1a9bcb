"""The compiled rules and the catalogue of servers: built from the watch cache, and anew after a change, never by time.

An edit costs the compilation of what was edited, and bites at the very next decision. What is more than a moment's work, the
first list or what a long pause of the watch held back, is compiled in slices between requests; until it is whole the old
rules stay in force, never a part of the new, and nobody is ready who never had any.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import structlog

from countersign.kube import CLUSTER_TOOL_POLICIES, TOOL_POLICIES, TOOL_SERVERS, Resource
from countersign.policy import Catalogue, RuleSet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from countersign.clock import Clock
    from countersign_webhook.metrics import WebhookMetrics
    from countersign_webhook.source import PolicySource

__all__ = ["RuleBook"]

_POLICIES: Final = (TOOL_POLICIES, CLUSTER_TOOL_POLICIES)
_PLURALS: Final = frozenset(one.plural for one in _POLICIES)
_AT_ONCE: Final = 32
"""Rules that are compiled without a pause: some 5 ms, or the policy alone that has more."""
_AFTER_A_BUG: Final = 1.0
_LOG: Final = structlog.get_logger("countersign.webhook.rules")

_Name = tuple[str, str | None, str]
_Waiting = dict[_Name, dict[str, Any] | None]
"""By name, the object as it is now; None where it is gone."""


class RuleBook:
    """What the rules and servers are now. :meth:`run` compiles what is much; what is little is seen without it."""

    def __init__(
        self,
        source: PolicySource,
        metrics: WebhookMetrics,
        *,
        clock: Clock,
        grants: Sequence[tuple[str, Sequence[str]]],
        issuer: str,
    ) -> None:
        """Follow ``source``; ``grants`` say which namespaces may claim which audiences, ``issuer``'s own nobody (crds.md 3.7)."""
        self._source, self._metrics, self._clock = source, metrics, clock
        self._grants, self._issuer = grants, issuer
        self._rules, self._whole, self._working = RuleSet(), False, False
        self._waiting: _Waiting = {}
        self._since = clock.monotonic()
        self._some = asyncio.Event()
        self._servers: Catalogue | None = None
        self._servers_before: Catalogue | None = None
        for resource in _POLICIES:
            for found in source.list(resource):
                self._changed(resource, "ADDED", found)
        source.subscribe(self._changed)

    @property
    def rules(self) -> RuleSet:
        """Every ToolPolicy and ClusterToolPolicy that is not being deleted, compiled. Ask :meth:`behind` first."""
        self._catch_up()
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

    def behind(self, seconds: float) -> bool:
        """Tell whether the rules are not what the source has shown for longer than ``seconds``, or never were yet.

        To be asked of a source that has listed everything: before, nothing that waits means nothing.
        """
        self._catch_up()
        if not self._waiting and not self._working:
            self._whole = True
            return False
        return not self._whole or self._clock.monotonic() - self._since > seconds

    async def run(self) -> None:
        """Bring into force what waits, until cancelled."""
        while True:
            await self._some.wait()
            self._some.clear()
            try:
                await self.settle()
            except Exception:  # noqa: BLE001 - compiling is total; were it not, old rules must not become eternal
                _LOG.exception("rules not compiled")
                self._some.set()
                await asyncio.sleep(_AFTER_A_BUG)

    async def settle(self) -> None:
        """Bring into force what waits, in slices; return when nothing does."""
        while self._waiting and not self._working:
            batch, self._waiting, self._working = self._waiting, {}, True
            since, self._since = self._since, self._clock.monotonic()
            rules = self._rules
            try:
                for part in _slices(batch):
                    rules = _edited(rules, part)
                    await asyncio.sleep(0)
                self._put(rules)
                batch = {}
            finally:
                self._working = False
                if batch:
                    self._waiting, self._since = {**batch, **self._waiting}, since

    def _catch_up(self) -> None:
        """Compile at once what waits, if it is little. What came while a batch is being compiled must not overtake it."""
        if self._waiting and not self._working and len(next(_slices(self._waiting))) == len(self._waiting):
            self._put(_edited(self._rules, self._waiting))
            self._waiting = {}

    def _put(self, rules: RuleSet) -> None:
        if rules is not self._rules:
            self._metrics.compiled.labels("rules").inc()
        self._rules = rules

    def _changed(self, resource: Resource, kind: str, obj: dict[str, Any]) -> None:
        if resource.plural in _PLURALS:
            if not self._waiting:
                self._since = self._clock.monotonic()
            meta = obj["metadata"]
            self._waiting[resource.plural, meta.get("namespace"), meta["name"]] = None if kind == "DELETED" else obj
            self._some.set()
        elif resource.plural == TOOL_SERVERS.plural:
            self._servers = None


def _edited(rules: RuleSet, changes: _Waiting) -> RuleSet:
    present = {name: found for name, found in changes.items() if found is not None}
    return rules.edited(present, [name for name, found in changes.items() if found is None])


def _slices(changes: _Waiting) -> Iterator[_Waiting]:
    """Yield changes, in their order, so many that few enough rules are among them; at least one."""
    part: _Waiting = {}
    weight = 0
    for name, found in changes.items():
        more = 1 if found is None else _rules_in(found)
        if part and weight + more > _AT_ONCE:
            yield part
            part, weight = {}, 0
        part[name] = found
        weight += more
    yield part


def _rules_in(found: dict[str, Any]) -> int:
    spec = found.get("spec")
    rules = spec.get("rules") if isinstance(spec, dict) else None
    return max(1, len(rules)) if isinstance(rules, list) else 1
