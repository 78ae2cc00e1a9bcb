"""All policies of a cluster, filed so that a decision looks at the few rules that could speak about it.

A set never changes. :meth:`RuleSet.edited` makes the next one: it compiles what is new, touches the places where that is
filed, and shares everything else. What comes out is the same set that :meth:`RuleSet.compile` makes of all objects at once.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from countersign.policy.compiled import compile_policy, fingerprint

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from countersign.policy.compiled import Entry, Policy
    from countersign.policy.facts import CallFacts

__all__ = ["RuleSet"]

_Found = tuple["Entry", ...]


class _Held(NamedTuple):
    """A policy, and the fingerprint of the object that it was compiled from."""

    fingerprint: bytes | None
    policy: Policy


@dataclass(frozen=True)
class RuleSet:
    """Compiled policies and their index; without arguments, none. It never changes."""

    _held: Mapping[Hashable, _Held] = field(default_factory=dict, repr=False)
    _digests: list[str] = field(default_factory=list, repr=False)
    _index: Mapping[tuple[str, ...], _Found] = field(default_factory=dict, repr=False)
    _grants: Mapping[tuple[str, ...], _Found] = field(default_factory=dict, repr=False)
    _selecting: Mapping[Hashable, Policy] = field(default_factory=dict, repr=False)

    @classmethod
    def compile(cls, policies: Iterable[Any]) -> RuleSet:
        """Compile ToolPolicy and ClusterToolPolicy objects as the API server stores them. Total: never raises for data."""
        return cls().edited(dict(enumerate(policies)))

    def edited(self, present: Mapping[Any, Any], gone: Iterable[Hashable] = ()) -> RuleSet:
        """Return the set in which the objects ``present`` are as they are now, and those named ``gone`` are not. Total.

        The caller chooses the names, one for each object. An object that says what it said is not compiled again, and one
        that is being deleted is gone. If nothing is different this is the same set.
        """
        drafts: dict[Hashable, _Held | None] = {name: None for name in gone if name in self._held}
        for name, value in present.items():
            known = self._held.get(name)
            if _is_going(value):
                if known is not None:
                    drafts[name] = None
                continue
            mark = fingerprint(value)
            if known is None or mark is None or known.fingerprint != mark:
                drafts[name] = _Held(mark, compile_policy(value))
        return self._with(drafts) if drafts else self

    def _with(self, drafts: Mapping[Hashable, _Held | None]) -> RuleSet:
        held, digests, selecting = dict(self._held), list(self._digests), dict(self._selecting)
        index, grants = _Filing(self._index), _Filing(self._grants)
        for name, draft in drafts.items():
            if (old := held.pop(name, None)) is not None:
                del digests[bisect_left(digests, old.policy.digest)]
                selecting.pop(name, None)
                for place, entry in old.policy.places:
                    index.at(place).pop(id(entry), None)
                    grants.at(place[:2]).pop(id(entry), None)
            if draft is None:
                continue
            held[name] = draft
            insort(digests, draft.policy.digest)
            if draft.policy.selector is not None:
                selecting[name] = draft.policy
            for place, entry in draft.policy.places:
                index.at(place)[id(entry)] = entry
                if _can_grant(entry):
                    grants.at(place[:2])[id(entry)] = entry
        return RuleSet(held, digests, index.filed(), grants.filed(), selecting)

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Every policy of the set, in no order that means anything."""
        return tuple(held.policy for held in self._held.values())

    @cached_property
    def digest(self) -> str:
        """``sha256:`` of the RFC 8785 form of the sorted list of the policies' digests: these need no escaping."""
        listed = '","'.join(self._digests)
        data = f'["{listed}"]' if self._digests else "[]"
        return "sha256:" + hashlib.sha256(data.encode("ascii")).hexdigest()

    def about(self, facts: CallFacts) -> Iterator[Entry]:
        """Return, once each, the rules that could be other than false for this call; a rule None is an unreadable policy."""
        server, tool, filed = facts.server, facts.tool, self._index.get
        found: dict[int, Entry] = {}
        for agent in (facts.agent, facts.caller.agent.namespace, ""):
            for place in ((agent, server, tool), (agent, server, ""), (agent, "", tool), (agent, "", "")):
                for entry in filed(place, ()):
                    found[id(entry)] = entry
        return iter(found.values())

    def unselectable(self, facts: CallFacts) -> tuple[Policy, ...]:
        """Return the policies whose selector needs the labels of a Namespace that is not known."""
        return tuple(self._selecting.values()) if facts.caller.agent.namespace_labels is None else ()

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


class _Filing:
    """What is filed where, being changed: only the places that are asked for are made anew, and each once."""

    def __init__(self, before: Mapping[tuple[str, ...], _Found]) -> None:
        self._before = before
        self._fresh: dict[tuple[str, ...], dict[int, Entry]] = {}

    def at(self, place: tuple[str, ...]) -> dict[int, Entry]:
        """Return what lies at a place, by identity, to be changed."""
        if place not in self._fresh:
            self._fresh[place] = {id(entry): entry for entry in self._before.get(place, ())}
        return self._fresh[place]

    def filed(self) -> dict[tuple[str, ...], _Found]:
        """Return everything, with the changed places instead of the old ones."""
        after = dict(self._before)
        for place, entries in self._fresh.items():
            if entries:
                after[place] = tuple(entries.values())
            else:
                after.pop(place, None)
        return after


def _is_going(value: Any) -> bool:
    """Tell whether an object is being deleted, which is as good as gone. What is no object is a policy all the same."""
    metadata = value.get("metadata") if isinstance(value, Mapping) else None
    return isinstance(metadata, Mapping) and metadata.get("deletionTimestamp") is not None


def _can_grant(entry: Entry) -> bool:
    """Whether the rule could grant something: enforced, readable so far, and not Deny."""
    policy, rule = entry
    return policy.enforced and not policy.all_undecided and rule is not None and rule.effect != "Deny"
