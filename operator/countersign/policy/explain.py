"""Why was it decided so? What every rule that could speak says of one call, part by part. For people; nothing decides by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from countersign.policy.decide import facts_for_rules, order_of
from countersign.policy.logic import all_of

if TYPE_CHECKING:
    from countersign.policy.catalogue import Catalogue
    from countersign.policy.compiled import Policy
    from countersign.policy.facts import CallFacts
    from countersign.policy.model import Question, RuleMark
    from countersign.policy.rule import Rule
    from countersign.policy.ruleset import RuleSet

__all__ = ["RuleView", "explain"]


@dataclass(frozen=True)
class RuleView:
    """What one rule says. ``parts`` has its fields with their values; True, False, or None for undecided."""

    mark: RuleMark
    enforced: bool
    value: bool | None
    parts: tuple[tuple[str, bool | None], ...]


def explain(question: Question, rules: RuleSet, servers: Catalogue) -> tuple[RuleView, ...]:
    """Return what the rules of every policy about this agent say, in reporting order; nothing if no rule is asked."""
    facts = facts_for_rules(question, servers)
    if facts is None:
        return ()
    found = [(one, rule, _view(one, rule, facts)) for one in rules.policies for rule in _asked(one, facts)]
    return tuple(view for _policy, _rule, view in sorted(found, key=lambda entry: order_of(*entry[:2])))


def _asked(policy: Policy, facts: CallFacts) -> tuple[Rule | None, ...]:
    if policy.speaks(facts) is False:
        return ()
    return policy.rules if policy.readable else (None,)


def _view(policy: Policy, rule: Rule | None, facts: CallFacts) -> RuleView:
    """Look at one rule alone: here nothing is used up by another."""
    mark = policy.mark(rule)
    if rule is None:
        return RuleView(mark, policy.enforced, None, (("policy", None),))
    parts = [(name, part(facts.aside())) for name, part in zip(rule.part_names, rule.parts, strict=True)]
    if policy.all_undecided:
        return RuleView(mark, policy.enforced, None, (("policy", None), *parts))
    if policy.speaks(facts) is None:
        return RuleView(mark, policy.enforced, None, (("namespaceSelector", None), *parts))
    return RuleView(mark, policy.enforced, all_of(value for _name, value in parts), tuple(parts))
