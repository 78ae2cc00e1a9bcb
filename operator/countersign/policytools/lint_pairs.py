"""What can only be said of two rules: one shadows the other, or nobody can answer both."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

from countersign.policytools.lint_rules import matched_tools

if TYPE_CHECKING:
    from collections.abc import Iterator

    from countersign.policytools.findings import Finding, RuleAt
    from countersign.policytools.objects import Objects

__all__ = ["approvers_apart", "pairs"]

_CONDITIONS: Final = frozenset({"task", "environment", "unless", "arguments", "when"})


def pairs(rules: list[RuleAt], objects: Objects) -> Iterator[Finding]:
    """Yield what looks wrong between two enforced rules."""
    enforced = [rule for rule in rules if rule.enforced]
    tools = {id(rule): frozenset(matched_tools(rule, objects)) for rule in enforced}
    for one in enforced:
        for other in enforced:
            if one is not other:
                yield from _shadowed(one, other, tools)
    yield from approvers_apart(enforced, objects)


def _shadowed(one: RuleAt, other: RuleAt, tools: dict[int, frozenset[Any]]) -> Iterator[Finding]:
    """Whether ``one`` never counts because ``other`` speaks wherever it does, whatever the call says."""
    if not tools[id(one)] or not tools[id(one)] <= tools[id(other)] or not _whoever(one, other):
        return
    by = f"{other.where}, rule {other.name}"
    if one.effect != "Deny" and other.effect == "Deny":
        yield one.finding("shadowed", "warning", f"denied wherever it speaks, by {by}")
    elif one.effect == "Allow" and other.effect == "RequireApproval":
        yield one.finding("shadowed", "warning", f"an approval is asked for wherever it speaks, by {by}")
    elif one.effect == other.effect == "Allow" and _first(one, other, tools):
        yield one.finding("shadowed", "note", f"allows nothing that {by} does not allow")
    elif one.effect == other.effect == "Deny" and _first(one, other, tools):
        yield one.finding("shadowed", "note", f"denies nothing that {by} does not deny")


def _first(one: RuleAt, other: RuleAt, tools: dict[int, frozenset[Any]]) -> bool:
    """Of two rules that say the same, only one is superfluous."""
    same = tools[id(one)] == tools[id(other)] and _whoever(other, one)
    return not same or (one.where, one.name) > (other.where, other.name)


def _whoever(one: RuleAt, other: RuleAt) -> bool:
    """Whether ``other`` has no condition and speaks about every agent that ``one`` does."""
    if not _CONDITIONS.isdisjoint(other.rule):
        return False
    if not other.everywhere and not (one.namespace and one.namespace == other.namespace):
        return False
    subjects = other.rule.get("subjects")
    if subjects is None:
        return True
    if not isinstance(subjects, dict) or set(subjects) != {"agents"}:
        return False
    mine = (one.rule.get("subjects") or {}).get("agents")
    return mine is not None and _agents(mine, one) <= _agents(subjects["agents"], other)


def _agents(entries: list[dict[str, Any]], rule: RuleAt) -> set[tuple[str, str]]:
    return {(str(one.get("namespace") or rule.namespace), str(one.get("name"))) for one in entries}


def approvers_apart(rules: list[RuleAt], objects: Objects) -> Iterator[Finding]:
    """Yield the rules that may ask about one call, and that no single person could answer: one person decides (5.8)."""
    asking = [rule for rule in rules if rule.effect == "RequireApproval"]
    for one, other in combinations(asking, 2):
        if _apart(one, other) and set(matched_tools(one, objects)) & set(matched_tools(other, objects)):
            message = f"who may approve it may not approve {other.where}, rule {other.name}: a call that both ask about waits for ever"
            yield one.finding("contradictory", "warning", message)


def _apart(one: RuleAt, other: RuleAt) -> bool:
    """Whether the approvers are disjoint as far as names say: both by user, or both by group, and none in common."""
    blocks = [rule.rule.get("approval") or {} for rule in (one, other)]
    for kind, rest in (("users", "groups"), ("groups", "users")):
        if all(kind in block and rest not in block for block in blocks):
            return set(blocks[0][kind]).isdisjoint(blocks[1][kind])
    return False
