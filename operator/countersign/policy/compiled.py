"""One policy, compiled: what it speaks about, its rules, where they are filed, and its digest (crds.md 5.1, 5.3)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import rfc8785

from countersign.policy.logic import Unreadable
from countersign.policy.model import RuleMark
from countersign.policy.rule import Rule, compile_rule
from countersign.policy.selector import Selector, compile_selector

if TYPE_CHECKING:
    from countersign.policy.facts import CallFacts

__all__ = ["Entry", "Place", "Policy", "compile_policy", "fingerprint", "policy_digest"]

_KINDS: Final = frozenset({"ToolPolicy", "ClusterToolPolicy"})
_SPEC: Final = frozenset({"mode", "description", "rules"})
# A rule that would be filed in more places than this is filed more coarsely: the index must not outgrow the rules.
_PLACES_MAX: Final = 128


@dataclass(frozen=True)
class Policy:
    """A compiled policy.

    ``namespace`` is None for a ClusterToolPolicy and for an object so broken that it must be taken to speak about everybody.
    ``readable`` is False where 5.3 says that the whole policy is undecided; ``all_undecided`` where every rule is.
    """

    label: str
    order: tuple[str, str, str]
    namespace: str | None
    selector: Selector | None
    enforced: bool
    readable: bool
    all_undecided: bool
    rules: tuple[Rule, ...]
    digest: str

    @cached_property
    def places(self) -> tuple[tuple[Place, Entry], ...]:
        """Where its rules are filed; worked out once, however often other policies change."""
        return tuple(_places(self))

    def speaks(self, facts: CallFacts) -> bool | None:
        """Whether it speaks about calls of this agent (5.1); None if that needs a Namespace that is not known."""
        agent = facts.caller.agent
        if self.namespace is not None:
            return agent.namespace == self.namespace
        if self.selector is None:
            return True
        return None if agent.namespace_labels is None else self.selector(agent.namespace_labels)

    def mark(self, rule: Rule | None) -> RuleMark:
        """Return how ``rule`` of this policy is reported; None is the policy as a whole."""
        return RuleMark(self.label, rule.name if rule else None, rule.effect if rule else "Deny")


Entry = tuple[Policy, "Rule | None"]
"""A rule and its policy; None is the policy as a whole, which cannot be read."""
Place = tuple[str, str, str]
"""Agent, server and tool, each ``""`` for any."""


def fingerprint(value: Any) -> bytes | None:
    """Return a digest of all that :func:`compile_policy` reads of an object; None for one that is no JSON.

    Two objects with one fingerprint compile to the same policy, whatever else, such as their status, has changed.
    """
    source = _mapping(value)
    metadata = _mapping(source.get("metadata"))
    read = [source.get("kind"), metadata.get("namespace"), metadata.get("name"), source.get("spec")]
    try:
        return hashlib.sha256(json.dumps(read, sort_keys=True).encode("ascii")).digest()
    except (TypeError, ValueError, RecursionError):
        return None


def compile_policy(value: Any) -> Policy:
    """Compile one ToolPolicy or ClusterToolPolicy object. Total: what cannot be read becomes an unreadable policy."""
    source = value if isinstance(value, Mapping) else {}
    kind, metadata, spec = source.get("kind"), _mapping(source.get("metadata")), _mapping(source.get("spec"))
    kind = kind if isinstance(kind, str) and kind in _KINDS else ""
    name = metadata.get("name") if isinstance(metadata.get("name"), str) else ""
    own = metadata.get("namespace") if kind == "ToolPolicy" else None
    own = own if isinstance(own, str) and own else None
    named = bool(kind and name and (own is not None or kind == "ClusterToolPolicy"))
    mode = spec.get("mode", "Enforce")
    rules = _rules(spec.get("rules"), own)
    selector, selected = _selector(kind, spec)
    return Policy(
        label=f"{kind or 'Unknown'} {own}/{name}" if own is not None else f"{kind or 'Unknown'} {name}",
        order=(kind, own or "", str(name)),
        namespace=own,
        selector=selector,
        enforced=not (isinstance(mode, str) and mode == "Audit"),
        readable=named and rules is not None and mode in ("Enforce", "Audit"),
        all_undecided=not selected or not _known(kind).issuperset(spec),
        rules=rules or (),
        digest=_digest([kind, own or "", str(name), _canonical_spec(spec)]),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _known(kind: str) -> frozenset[str]:
    return _SPEC | {"namespaceSelector"} if kind == "ClusterToolPolicy" else _SPEC


def _rules(value: Any, namespace: str | None) -> tuple[Rule, ...] | None:
    """Compile the list of rules; None makes the policy unreadable: an empty list is no list."""
    if not isinstance(value, list) or not value:
        return None
    try:
        return tuple(compile_rule(entry, namespace) for entry in value)
    except Unreadable:
        return None


def _selector(kind: str, spec: Mapping[str, Any]) -> tuple[Selector | None, bool]:
    """Return the selector and whether it could be read; one that could not leaves the policy speaking about everybody."""
    if kind != "ClusterToolPolicy" or "namespaceSelector" not in spec:
        return None, True
    try:
        return compile_selector(spec["namespaceSelector"]), True
    except Unreadable:
        return None, False


def _digest(value: Any) -> str:
    """Return ``sha256:`` of the RFC 8785 form; objects that have none still get a digest that follows their content."""
    try:
        data = rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, RecursionError, ValueError, TypeError):
        data = b"\x00" + _fallback(value)
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _fallback(value: Any) -> bytes:
    try:
        return json.dumps(value, sort_keys=True, default=repr).encode("ascii")
    except (TypeError, ValueError, RecursionError):
        return repr(type(value)).encode("ascii", "backslashreplace")


def _canonical_spec(spec: Mapping[str, Any]) -> Any:
    """Return the spec with each rule replaced by its digest, sorted: the order of rules means nothing."""
    rules = spec.get("rules")
    if not isinstance(rules, list):
        return dict(spec)
    return {**spec, "rules": sorted(_digest(rule) for rule in rules)}


def policy_digest(policy: Mapping[str, Any]) -> str:
    """Return the digest of one policy's rules, as ``status.digest`` shows it; the order of rules does not change it."""
    rules = _mapping(policy.get("spec")).get("rules")
    return _digest(sorted(_digest(rule) for rule in rules) if isinstance(rules, list) else [])


def _places(policy: Policy) -> Iterator[tuple[Place, Entry]]:
    """Yield where each rule of ``policy`` is filed: (agent, server, tool), each ``""`` for any.

    The agent place of a ToolPolicy's rule without ``agents`` is its namespace: no name of an agent has that form.
    """
    anywhere = policy.namespace or ""
    if not policy.readable:
        yield (anywhere, "", ""), (policy, None)
        return
    for rule in policy.rules:
        entry: Entry = (policy, rule)
        agents = {anywhere} if rule.agents is None or policy.all_undecided else rule.agents
        spots = {("", "")} if rule.tools is None or policy.all_undecided else _spots(rule)
        if len(agents) * len(spots) > _PLACES_MAX:
            spots = {(server, "") for server, _tool in spots}
        if len(agents) * len(spots) > _PLACES_MAX:
            agents = {anywhere}
        for agent in agents:
            for server, tool in spots:
                yield (agent, server, tool), entry


def _spots(rule: Rule) -> set[tuple[str, str]]:
    return {(one.server or "", name) for one in rule.tools or () for name in (one.names or {""})}
