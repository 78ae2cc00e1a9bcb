"""May this call happen? Steps 2 to 5 of crds.md 5.2, in their order; the first that fails gives the code.

Pure and total: no clock, no cluster, and no data makes it raise. What is not built yet refuses: a rule with ``when`` has an
undecided part, and a RequireApproval rule that is not false denies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from countersign.policy.facts import CallFacts
from countersign.policy.logic import ASSURANCE, KEY_TIER, rank
from countersign.policy.model import Decision, RuleMark
from countersign.policy.task import task_fault, task_includes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from countersign.policy.catalogue import Catalogue, Floors, Tool, ToolServer
    from countersign.policy.model import Question
    from countersign.policy.rule import Rule
    from countersign.policy.ruleset import Policy, RuleSet

__all__ = ["BASE_METHODS", "decide", "judged", "listable", "names_server", "order_of"]

_CALL: Final = "tools/call"
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
    code = task_fault(question)
    if code is not None:
        return _deny(code)
    server = servers.find(question.server)
    if server is None:
        return _deny("tool.server_unknown")
    agent = question.caller.agent
    if not server.exposed(agent.namespace, agent.namespace_labels):
        return _deny("tool.server_not_exposed")
    if server.protocol != question.protocol:
        return _deny("request.details")
    if server.protocol == "MCP" and question.method != _CALL:
        return _base_method(question, rules, server)
    tool = server.tools.get(question.tool)
    code = _tool_fault(question, server, tool)
    if code is not None or tool is None:
        return _deny(code or "tool.unknown")
    facts = CallFacts.of(question, server=server.key, tool=tool.name, access=tool.access)
    code = _floor_fault(facts, server.floors)
    return _deny(code) if code is not None else _combine(facts, rules)


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
    unselectable = rules.unselectable(facts)
    for policy in unselectable:
        for rule in policy.rules if policy.readable else (None,):
            yield policy, rule, None
    for policy, rule in rules.about(facts):
        if not policy.speaks(facts):
            continue
        value = None if rule is None or policy.all_undecided else rule.value(facts)
        if value is not False:
            yield policy, rule, value


def order_of(policy: Policy, rule: Rule | None) -> tuple[str, ...]:
    """Return the reporting order: kind, namespace, policy, rule; an unreadable policy comes before its rules.

    What follows the name only keeps the answer the same where an old schema let one name occur twice.
    """
    return (*policy.order, *((rule.name, rule.effect, rule.reason or "") if rule else ("",)))


def _combine(facts: CallFacts, rules: RuleSet) -> Decision:
    """Combine what the rules say (5.3): a true Deny, then what is undecided, then Allow, then the default."""
    denying: list[tuple[Policy, Rule | None]] = []
    undecided: list[tuple[Policy, Rule | None]] = []
    allowing: list[tuple[Policy, Rule | None]] = []
    recorded: list[tuple[Policy, Rule | None]] = []
    for policy, rule, value in judged(facts, rules):
        effect = rule.effect if rule else "Deny"
        if not policy.enforced:
            if rule is not None and (value or effect != "Allow"):
                recorded.append((policy, rule))
        elif effect == "Allow":
            if value:
                allowing.append((policy, rule))
        elif effect == "Deny" and value:
            denying.append((policy, rule))
        else:
            # An undecided Deny or RequireApproval, and for now a true RequireApproval: nobody can approve yet.
            undecided.append((policy, rule))
    audit = _marks(recorded)
    for settled, code in ((denying, "policy.denied"), (undecided, "policy.undecided"), (allowing, "policy.allowed")):
        if settled:
            return _settled(settled, code, audit)
    return Decision("Deny", "policy.default_deny", audit=audit)


def _marks(found: list[tuple[Policy, Rule | None]]) -> tuple[RuleMark, ...]:
    return tuple(policy.mark(rule) for policy, rule in sorted(found, key=lambda pair: order_of(*pair)))


def _settled(found: list[tuple[Policy, Rule | None]], code: str, audit: tuple[RuleMark, ...]) -> Decision:
    policy, rule = min(found, key=lambda pair: order_of(*pair))
    allowed = code == "policy.allowed"
    return Decision(
        effect="Allow" if allowed else "Deny",
        code=code,
        policy=policy.label,
        rule=rule.name if rule else None,
        reason=rule.reason if rule and not allowed else None,
        audit=audit,
        settled=_marks(found),
    )


def _facts_without_call(question: Question, server: ToolServer, tool: Tool | None) -> CallFacts:
    return CallFacts.of(
        question,
        server=server.key,
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

    A courtesy: the call is decided again. What is not built helps nobody here either: a rule with ``when`` shows no tool.
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
        if rule is None or (rule.effect != "Allow" and value):
            return False
        shown = shown or (rule.effect == "Allow" and not rule.builds_on_when)
    return shown
