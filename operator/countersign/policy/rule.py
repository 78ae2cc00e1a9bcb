"""One rule, compiled: its parts, what it is filed under, and its truth value for a call (crds.md 5.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from countersign.policy.approval import Approvers, compile_approvers
from countersign.policy.arguments import compile_argument
from countersign.policy.environment import DENY_ONLY_IN_UNLESS, compile_environment
from countersign.policy.expression import InvalidExpression, compile_when
from countersign.policy.logic import Unreadable, negate
from countersign.policy.scope import Part, ToolEntry, compile_subjects, compile_task, compile_tools, tools_part

if TYPE_CHECKING:
    from countersign.policy.facts import CallFacts
    from countersign.policy.model import Effect

__all__ = ["Rule", "compile_rule"]

_Named = tuple[str, Part]
_EFFECTS: Final[Mapping[str, Effect]] = {"Allow": "Allow", "Deny": "Deny", "RequireApproval": "RequireApproval"}
_FIELDS: Final = frozenset(
    {
        "name",
        "effect",
        "reason",
        "subjects",
        "task",
        "environment",
        "unless",
        "tools",
        "arguments",
        "when",
        "approval",
    }
)


@dataclass(frozen=True)
class Rule:
    """A compiled rule.

    ``part_names`` says for each part which field it is. ``agents`` and ``tools`` are what it can be filed under; None means "any", or that the part could not be read.
    ``approvers`` says who may answer a RequireApproval rule; where that could not be read, a part is undecided.
    """

    name: str
    effect: Effect
    reason: str | None
    parts: tuple[Part, ...]
    part_names: tuple[str, ...]
    agents: frozenset[str] | None
    tools: tuple[ToolEntry, ...] | None
    approvers: Approvers | None

    def value(self, facts: CallFacts) -> bool | None:
        """Return whether the rule is true for this call: False settles it, None is undecided."""
        answer: bool | None = True
        for part in self.parts:
            value = part(facts)
            if value is False:
                return False
            if value is None:
                answer = None
        return answer


def _undecided(_facts: CallFacts) -> bool | None:
    return None


def compile_rule(value: Any, namespace: str | None) -> Rule:
    """Compile a rule of a policy in ``namespace`` (None: a ClusterToolPolicy).

    Raises ``Unreadable`` only for a rule without name or effect, which makes the whole policy unreadable; anything else
    that this replica does not know makes the part undecided, and an unknown effect counts as Deny.
    """
    if not isinstance(value, Mapping):
        raise Unreadable
    name, stated = value.get("name"), value.get("effect")
    if not isinstance(name, str) or not name or not isinstance(stated, str) or not stated:
        raise Unreadable
    effect = _EFFECTS.get(stated, "Deny")
    reason = value.get("reason")
    parts: list[_Named] = [(field, _undecided) for field in sorted(map(str, set(value) - _FIELDS))]
    agents = _scope(value, namespace, parts)
    tools = _tools(value, namespace, effect, parts)
    approvers = _approvers(value, effect, parts)
    _conditions(value, effect, parts)
    return Rule(
        name=name,
        effect=effect,
        reason=reason if isinstance(reason, str) and reason else None,
        parts=tuple(part for _name, part in parts),
        part_names=tuple(name for name, _part in parts),
        agents=agents,
        tools=tools,
        approvers=approvers,
    )


def _scope(rule: Mapping[str, Any], namespace: str | None, parts: list[_Named]) -> frozenset[str] | None:
    if "subjects" not in rule:
        return None
    try:
        part, agents = compile_subjects(rule["subjects"], namespace)
    except Unreadable:
        parts.append(("subjects", _undecided))
        return None
    parts.append(("subjects", part))
    return agents


def _tools(
    rule: Mapping[str, Any], namespace: str | None, effect: Effect, parts: list[_Named]
) -> tuple[ToolEntry, ...] | None:
    """Compile ``tools``; a rule that grants must say which tools, of which server."""
    if "tools" not in rule:
        if effect != "Deny":
            parts.append(("tools", _undecided))
        return None
    try:
        entries = compile_tools(rule["tools"], namespace, server_required=effect != "Deny")
    except Unreadable:
        parts.append(("tools", _undecided))
        return None
    parts.append(("tools", tools_part(entries)))
    return entries


def _conditions(rule: Mapping[str, Any], effect: Effect, parts: list[_Named]) -> None:
    if "task" in rule:
        parts.append(("task", _read(lambda: compile_task(rule["task"]))))
    if "environment" in rule:
        parts.append(("environment", _read(lambda: _environment(rule["environment"], effect))))
    if "unless" in rule:
        parts.append(("unless", _read(lambda: _unless(rule["unless"], effect))))
    if "arguments" in rule:
        parts.extend(_arguments(rule["arguments"]))
    if "when" in rule:
        # Last: a part that costs less and is false settles the rule without it.
        parts.append(("when", _when(rule["when"])))


def _when(value: Any) -> Part:
    try:
        return compile_when(value).holds
    except InvalidExpression:
        return _undecided


def _read(build: Callable[[], Part]) -> Part:
    try:
        return build()
    except Unreadable:
        return _undecided


def _environment(value: Any, effect: Effect) -> Part:
    if effect == "Deny" and isinstance(value, Mapping) and not DENY_ONLY_IN_UNLESS.isdisjoint(value):
        raise Unreadable
    return compile_environment(value)


def _unless(value: Any, effect: Effect) -> Part:
    if effect != "Deny":
        raise Unreadable
    holds = compile_environment(value)
    return lambda facts: negate(holds(facts))


def _arguments(value: Any) -> list[_Named]:
    if not isinstance(value, list) or not value:
        return [("arguments", _undecided)]
    return [(f"arguments[{place}]", _read(partial(_argument, entry))) for place, entry in enumerate(value)]


def _argument(entry: Any) -> Part:
    condition = compile_argument(entry)
    return lambda facts: condition(facts.arguments) if facts.arguments_known else None


def _approvers(rule: Mapping[str, Any], effect: Effect, parts: list[_Named]) -> Approvers | None:
    """Compile ``approval``, which a RequireApproval rule has and no other."""
    if effect != "RequireApproval":
        if "approval" in rule:
            parts.append(("approval", _undecided))
        return None
    try:
        return compile_approvers(rule.get("approval"))
    except Unreadable:
        parts.append(("approval", _undecided))
        return None
