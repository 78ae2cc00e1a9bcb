"""From a believed request to a decision: the words of the form and the facts of the caller, handed to policy. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from countersign.errors import Invalid
from countersign.policy import Caller, Decision, Question, decide, listable
from countersign_webhook.decide.form import CURRENT

if TYPE_CHECKING:
    from datetime import datetime

    from countersign.policy import Catalogue, RuleSet
    from countersign_webhook.decide.facts import Facts
    from countersign_webhook.decide.form import TokenRequest

__all__ = ["Verdict", "judge"]

_BEFORE_FLOORS: Final = (
    "task.",
    "tool.",
    "request.",
    "mcp.",
    "environment.assurance_too_low",
    "environment.key_tier_too_low",
)


class Verdict(NamedTuple):
    """The decision on one call, and for an allowed ``tools/list`` the names that may be shown."""

    decision: Decision
    tools: tuple[str, ...] | None = None


def judge(
    request: TokenRequest,
    facts: Facts,
    key_tier: str,
    *,
    now: datetime,
    cluster: str,
    rules: RuleSet,
    servers: Catalogue,
) -> Verdict:
    """Decide one call (crds.md 5.2, steps 2 to 5).

    Raises
    ------
    Invalid
        ``request.details`` for a plain HTTP call: that protocol is refused until it is built.

    """
    call = request.call
    if call.protocol != "MCP":
        raise Invalid("request.details", "only protocol MCP is served")
    server = servers.by_audience(call.audience)
    caller = Caller(facts.agent, facts.instance_facts, facts.device, key_tier, cluster)
    question = Question(
        now=now,
        caller=caller,
        server=None if server is None else server.key,
        tool=call.tool,
        arguments=call.arguments,
        protocol=call.protocol,
        method=call.method,
        call_digest=call.digest,
    )
    decision = _with_pool_age(_with_subject(decide(question, rules, servers), request), facts, now)
    tools = listable(question, rules, servers) if decision.allowed and call.method == "tools/list" else None
    return Verdict(decision, tools)


def _with_subject(decision: Decision, request: TokenRequest) -> Decision:
    """Refuse the name of a task where none can be bound: a name can only narrow (wire.md 4, D17).

    That the agent needs a task is policy's to say, and comes first.
    """
    if request.subject == CURRENT or decision.code == "task.required":
        return decision
    return _denied(decision, "task.mismatch")


def _with_pool_age(decision: Decision, facts: Facts, now: datetime) -> Decision:
    """Refuse on evidence older than the pool allows (crds.md 3.2): one more floor, looked at with the others."""
    if not facts.evidence_expired(now) or decision.code.startswith(_BEFORE_FLOORS):
        return decision
    return _denied(decision, "environment.attestation_stale")


def _denied(decision: Decision, code: str) -> Decision:
    return replace(decision, effect="Deny", code=code, policy=None, rule=None, reason=None, settled=(), approval=None)
