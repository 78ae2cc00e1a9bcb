"""May this call happen? Steps 2 to 5 of crds.md 5.2, in their order; the first that fails gives the code.

Pure and total: no clock, no cluster, and no data makes it raise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from countersign.policy.approval import Asking, answer_of
from countersign.policy.facts import CallFacts
from countersign.policy.logic import ASSURANCE, KEY_TIER, rank
from countersign.policy.model import Decision, RuleMark
from countersign.policy.task import task_fault, task_includes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from countersign.policy.catalogue import Catalogue, Floors, Tool, ToolServer
    from countersign.policy.compiled import Policy
    from countersign.policy.model import Effect, Question
    from countersign.policy.rule import Rule
    from countersign.policy.ruleset import RuleSet

    _Entry = tuple[Policy, Rule | None]

__all__ = ["BASE_METHODS", "decide", "facts_for_rules", "judged", "listable", "names_server", "order_of"]

_CALL: Final = "tools/call"
_SEVERAL: Final = 2
BASE_METHODS: Final = frozenset(
    {
        "initialize",
        "notifications/cancelled",
        "notifications/initialized",
        "ping",
        "server/discover",
        "tools/list",
    }
)
"""Methods of MCP that need no rule of their own (wire.md 2.3.7); which version has which is the wire's business."""


def decide(question: Question, rules: RuleSet, servers: Catalogue) -> Decision:
    """Decide one call. Allow is the only yes; a base method of MCP asks no rule beyond :func:`names_server`."""
    server = _server_of(question, servers)
    if isinstance(server, str):
        return _deny(server)
    if _is_base(question, server):
        return _base_method(question, rules, server)
    facts = _facts_of_call(question, server)
    return _deny(facts) if isinstance(facts, str) else _combine(question, facts, rules)


def facts_for_rules(question: Question, servers: Catalogue) -> CallFacts | None:
    """Return what the rules are asked about, or None for a call that does not get as far as step 5, or needs no rule."""
    server = _server_of(question, servers)
    if isinstance(server, str) or _is_base(question, server):
        return None
    facts = _facts_of_call(question, server)
    return None if isinstance(facts, str) else facts


def _server_of(question: Question, servers: Catalogue) -> ToolServer | str:
    """Return the server of the call, or the code of the first check of step 2 or 3 that fails."""
    if (code := task_fault(question)) is not None:
        return code
    server = servers.find(question.server)
    if server is None:
        return "tool.server_unknown"
    agent = question.caller.agent
    if not server.exposed(agent.namespace, agent.namespace_labels):
        return "tool.server_not_exposed"
    return server if server.protocol == question.protocol else "request.details"


def _is_base(question: Question, server: ToolServer) -> bool:
    return server.protocol == "MCP" and question.method != _CALL


def _facts_of_call(question: Question, server: ToolServer) -> CallFacts | str:
    """Return the facts of the call, or the code of the first check of step 3 or 4 that fails."""
    tool = server.tools.get(question.tool)
    code = _tool_fault(question, server, tool)
    if code is not None or tool is None:
        return code or "tool.unknown"
    facts = CallFacts.of(question, server=server.key, audience=server.audience, tool=tool.name, access=tool.access)
    return _floor_fault(facts, server.floors) or facts


def _deny(code: str) -> Decision:
    return Decision("Deny", code)


def _base_method(question: Question, rules: RuleSet, server: ToolServer) -> Decision:
    if question.method not in BASE_METHODS or question.tool:
        return _deny("mcp.method_unknown")
    facts = _facts_without_call(question, server, None)
    if not rules.names(facts):
        return _deny("tool.server_not_exposed")
    code = _floor_fault(facts, server.floors)
    return _deny(code) if code is not None else Decision("Allow", "policy.allowed")


def _tool_fault(question: Question, server: ToolServer, tool: Tool | None) -> str | None:
    """Return the code of the first check of step 3 that fails."""
    if tool is None:
        return "tool.unknown"
    if tool.changed:
        return "tool.definition_changed"
    if not tool.fits(question.arguments):
        return "tool.arguments_invalid"
    return None if task_includes(question.task, server.key, tool.name, tool.access) else "task.tool_not_included"


def _floor_fault(facts: CallFacts, floors: Floors) -> str | None:
    """Return the code of the first floor that is not met: the agent's, then the server's."""
    agent = facts.caller.agent
    for least_assurance, least_tier in (
        (agent.min_assurance, agent.min_key_tier),
        (floors.assurance, floors.key_tier),
    ):
        if not _reaches(facts.assurance, rank(ASSURANCE, least_assurance)):
            return "environment.assurance_too_low"
        if not _reaches(facts.key_tier, rank(KEY_TIER, least_tier)):
            return "environment.key_tier_too_low"
    most = floors.max_age_seconds
    fresh = most is None or (facts.age_seconds is not None and facts.age_seconds <= most)
    return None if fresh else "environment.attestation_stale"


def _reaches(place: int | None, least: int | None) -> bool:
    """Whether a place reaches a floor; a word that the order does not know never does, and is never reached."""
    return place is not None and least is not None and place >= least


def judged(facts: CallFacts, rules: RuleSet) -> Iterator[tuple[Policy, Rule | None, bool | None]]:
    """Yield every policy and rule that is not false for this call, with its value; a rule None is an unreadable policy."""
    aside: CallFacts | None = None
    unselectable = rules.unselectable(facts)
    for policy in unselectable:
        for rule in policy.rules if policy.readable else (None,):
            yield policy, rule, None
    for policy, rule in rules.about(facts):
        if not policy.speaks(facts):
            continue
        if not policy.enforced:
            aside = aside or facts.aside()
        known = facts if policy.enforced or aside is None else aside
        value = None if rule is None or policy.all_undecided else rule.value(known)
        if value is not False:
            yield policy, rule, value


def order_of(policy: Policy, rule: Rule | None) -> tuple[str, ...]:
    """Return the reporting order: kind, namespace, policy, rule; an unreadable policy comes before its rules.

    What follows the name only keeps the answer the same where an old schema let one name occur twice.
    """
    return (*policy.order, *((rule.name, rule.effect, rule.reason or "") if rule else ("",)))


class _Found:
    """The rules that are not false, by what they lead to (5.3)."""

    __slots__ = ("allowing", "asking", "denying", "recorded", "undecided")

    def __init__(self) -> None:
        self.denying: list[_Entry] = []
        self.undecided: list[_Entry] = []
        self.asking: list[_Entry] = []
        self.allowing: list[_Entry] = []
        self.recorded: list[_Entry] = []

    def add(self, policy: Policy, rule: Rule | None, value: bool | None) -> None:  # noqa: FBT001 - a truth value
        """File one rule. An undecided Allow is as if absent; a policy that cannot be read counts as an undecided Deny."""
        effect = rule.effect if rule else "Deny"
        if not policy.enforced:
            if rule is not None and (value or effect != "Allow"):
                self.recorded.append((policy, rule))
        elif effect == "Allow":
            if value:
                self.allowing.append((policy, rule))
        elif not value or (effect == "RequireApproval" and _asking((policy, rule)) is None):
            self.undecided.append((policy, rule))
        else:
            (self.denying if effect == "Deny" else self.asking).append((policy, rule))


def _combine(question: Question, facts: CallFacts, rules: RuleSet) -> Decision:
    """Combine what the rules say (5.3): a true Deny, what is undecided, what asks, what allows, then the default."""
    found = _Found()
    for policy, rule, value in judged(facts, rules):
        found.add(policy, rule, value)
    audit = _marks(found.recorded)
    if found.denying:
        return _settled(found.denying, "policy.denied", audit)
    if found.undecided:
        return _settled(found.undecided, "policy.undecided", audit)
    if found.asking:
        answer = answer_of(question, [one for entry in found.asking if (one := _asking(entry)) is not None])
        return replace(_settled(found.asking, answer.code, audit), approval=answer.approval)
    if found.allowing:
        return _settled(found.allowing, "policy.allowed", audit)
    return Decision("Deny", "policy.default_deny", audit=audit)


def _asking(entry: _Entry) -> Asking | None:
    """Return what an approval must answer. A rule that is true has approvers that could be read."""
    policy, rule = entry
    return Asking(policy.order, rule.name, rule.approvers) if rule is not None and rule.approvers is not None else None


_EFFECT_OF: Final[Mapping[str, Effect]] = {
    "policy.allowed": "Allow",
    "approval.required": "RequireApproval",
    "approval.pending": "RequireApproval",
}


def _marks(found: list[_Entry]) -> tuple[RuleMark, ...]:
    if len(found) < _SEVERAL:  # nothing to sort, at nearly every call
        return tuple([policy.mark(rule) for policy, rule in found])
    return tuple(policy.mark(rule) for policy, rule in sorted(found, key=lambda pair: order_of(*pair)))


def _settled(found: list[_Entry], code: str, audit: tuple[RuleMark, ...]) -> Decision:
    policy, rule = found[0] if len(found) < _SEVERAL else min(found, key=lambda pair: order_of(*pair))
    effect = _EFFECT_OF.get(code, "Deny")
    return Decision(
        effect=effect,
        code=code,
        policy=policy.label,
        rule=rule.name if rule else None,
        reason=rule.reason if rule and effect != "Allow" else None,
        audit=audit,
        settled=_marks(found),
    )


def _facts_without_call(question: Question, server: ToolServer, tool: Tool | None) -> CallFacts:
    return CallFacts.of(
        question,
        server=server.key,
        audience=server.audience,
        tool=tool.name if tool else "",
        access=tool.access if tool else "",
        arguments_known=False,
    )


def names_server(question: Question, rules: RuleSet, servers: Catalogue) -> bool:
    """Whether a rule that grants names this server for this agent (wire.md 2.3.7): what base methods need.

    A rule names the server by ``tools[].server`` and the agent by ``subjects.agents``, or by leaving that out; it must be
    Allow or RequireApproval, enforced, and readable so far. No other part of it is asked.
    """
    server = servers.find(question.server)
    return server is not None and rules.names(_facts_without_call(question, server, None))


def listable(question: Question, rules: RuleSet, servers: Catalogue) -> tuple[str, ...]:
    """Return, sorted, the tools of ``question.server`` that some call of this caller might be allowed (5.7).

    A courtesy: the call is decided again. A rule whose ``arguments`` or ``when`` would have to be asked counts as true where
    it allows or asks, and as false where it denies.
    """
    server = servers.find(question.server)
    agent = question.caller.agent
    if task_fault(question) is not None or server is None:
        return ()
    if not server.exposed(agent.namespace, agent.namespace_labels):
        return ()
    return tuple(sorted(tool.name for tool in server.tools.values() if _shown(question, rules, server, tool)))


def _shown(question: Question, rules: RuleSet, server: ToolServer, tool: Tool) -> bool:
    if tool.changed or not task_includes(question.task, server.key, tool.name, tool.access):
        return False
    facts = _facts_without_call(question, server, tool)
    if _floor_fault(facts, server.floors) is not None:
        return False
    shown = False
    for policy, rule, value in judged(facts, rules):
        if not policy.enforced:
            continue
        if rule is None or (rule.effect == "Deny" and value):
            return False
        shown = shown or rule.effect != "Deny"
    return shown
