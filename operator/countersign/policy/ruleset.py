"""All policies of a cluster, compiled and filed so that a decision looks at the few rules that could speak about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import rfc8785

from countersign.policy.logic import Unreadable
from countersign.policy.model import RuleMark
from countersign.policy.rule import Rule, compile_rule
from countersign.policy.selector import Selector, compile_selector

if TYPE_CHECKING:
    from countersign.policy.facts import CallFacts

__all__ = ["Policy", "RuleSet", "compile_policy", "policy_digest"]

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
    def places(self) -> tuple[tuple[_Key, Entry], ...]:
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


def _digest_of_digests(digests: Iterable[str]) -> str:
    """Return what :func:`_digest` does of the sorted list: digests need no escaping, so this form is the RFC 8785 one."""
    data = json.dumps(sorted(digests), separators=(",", ":")).encode("ascii")
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


Entry = tuple[Policy, "Rule | None"]
_Key = tuple[str, str, str]


@dataclass(frozen=True)
class RuleSet:
    """Compiled policies and their index. Make one with :meth:`compile`; it never changes."""

    policies: tuple[Policy, ...]
    digest: str
    _index: Mapping[_Key, tuple[Entry, ...]] = field(repr=False)
    _grants: Mapping[tuple[str, str], tuple[Entry, ...]] = field(repr=False)
    _selecting: tuple[Policy, ...] = field(repr=False)
    cache: Mapping[tuple[str, ...], Policy] = field(repr=False)

    @classmethod
    def compile(cls, policies: Iterable[Any], *, previous: RuleSet | None = None) -> RuleSet:
        """Compile ToolPolicy and ClusterToolPolicy objects as the API server stores them. Total: never raises for data.

        ``previous`` saves work: an object with the same UID and resourceVersion is not compiled again.
        """
        known = previous.cache if previous else {}
        cache: dict[tuple[str, ...], Policy] = {}
        compiled: list[Policy] = []
        for value in policies:
            metadata = _mapping(_mapping(value).get("metadata"))
            if metadata.get("deletionTimestamp") is not None:
                continue
            version = _version(value, metadata)
            policy = (known.get(version) if version else None) or compile_policy(value)
            if version:
                cache[version] = policy
            compiled.append(policy)
        index: dict[_Key, list[Entry]] = {}
        grants: dict[tuple[str, str], list[Entry]] = {}
        for policy in compiled:
            for key, entry in policy.places:
                index.setdefault(key, []).append(entry)
                if _grants(entry):
                    grants.setdefault(key[:2], []).append(entry)
        return cls(
            policies=tuple(compiled),
            digest=_digest_of_digests(policy.digest for policy in compiled),
            _index={key: tuple(entries) for key, entries in index.items()},
            _grants={key: tuple(entries) for key, entries in grants.items()},
            _selecting=tuple(policy for policy in compiled if policy.selector is not None),
            cache=cache,
        )

    def about(self, facts: CallFacts) -> Iterator[Entry]:
        """Yield, once each, the rules that could be other than false for this call; a rule None is an unreadable policy."""
        seen: set[int] = set()
        namespace = facts.caller.agent.namespace
        for agent in (facts.agent, namespace, ""):
            for server, tools in ((facts.server, (facts.tool, "")), ("", (facts.tool, ""))):
                for tool in tools:
                    for entry in self._index.get((agent, server, tool), ()):
                        if id(entry) not in seen:
                            seen.add(id(entry))
                            yield entry

    def unselectable(self, facts: CallFacts) -> tuple[Policy, ...]:
        """Return the policies whose selector needs the labels of a Namespace that is not known."""
        return self._selecting if facts.caller.agent.namespace_labels is None else ()

    def names(self, facts: CallFacts) -> bool:
        """Whether an Allow or RequireApproval rule names this server for this agent, whatever its other parts say."""
        return any(
            policy.speaks(facts)
            and rule is not None
            and (rule.agents is None or facts.agent in rule.agents)
            and any(one.server == facts.server for one in rule.tools or ())
            for agent in (facts.agent, facts.caller.agent.namespace, "")
            for policy, rule in self._grants.get((agent, facts.server), ())
        )


def _grants(entry: Entry) -> bool:
    """Whether the rule could grant something: enforced, readable so far, and not Deny."""
    policy, rule = entry
    return policy.enforced and not policy.all_undecided and rule is not None and rule.effect != "Deny"


def _version(value: Any, metadata: Mapping[str, Any]) -> tuple[str, ...] | None:
    parts = (_mapping(value).get("kind"), metadata.get("uid"), metadata.get("resourceVersion"))
    texts = tuple(part for part in parts if isinstance(part, str) and part)
    return texts if len(texts) == len(parts) else None


def _places(policy: Policy) -> Iterator[tuple[_Key, Entry]]:
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
