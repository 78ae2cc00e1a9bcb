"""Audit records of this process (wire.md 9): durable before the answer, or there is another answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from countersign.audit import decision_record
from countersign.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from countersign.audit import AuditLog, DecisionFacts, Mark
    from countersign.policy import Catalogue, RuleMark, Tool
    from countersign_webhook.decide.case import Case
    from countersign_webhook.decide.guard import Refusal

__all__ = ["Recorder"]


class Recorder:
    """Writes one record for each case, and at most one."""

    def __init__(self, log: AuditLog, *, seconds: float) -> None:
        """Keep the log, and how long the record of a refusal is waited for; that of a yes has the decision's own time."""
        self._log, self._seconds = log, seconds

    async def allowed(self, case: Case, servers: Catalogue) -> None:
        """Record a yes; when this returns, ``case.recorded`` says so and the record is on disk.

        Raises
        ------
        Unavailable
            ``audit.unavailable``.

        """
        await self._append(case, {"code": "policy.allowed", "allowed": True, **_facts(case, servers)})
        case.recorded = True

    async def refused(self, case: Case, refusal: Refusal, servers: Catalogue) -> None:
        """Record a no; raises as ``allowed``. A case whose record was tried once is not tried again."""
        if case.attempted:
            return
        try:
            async with asyncio.timeout(self._seconds):
                await self._append(case, {"code": refusal.code, "allowed": False, **_facts(case, servers)})
        except TimeoutError as error:
            raise Unavailable("audit.unavailable", "the record did not get to the disk in time") from error

    async def _append(self, case: Case, facts: DecisionFacts) -> None:
        case.attempted = True
        try:
            record = decision_record(**facts)
        except (ValueError, TypeError, KeyError) as error:
            raise Unavailable("audit.unavailable", "a record could not be made") from error
        await self._log.append(record)


def _facts(case: Case, servers: Catalogue) -> DecisionFacts:
    """Return what is known of a case so far; nothing in it is a token, a proof or an argument that may not be shown."""
    facts: DecisionFacts = {
        "decision": case.id,
        "now": case.now,
        "leg": case.leg,
        "pep": case.pep,
        "proof": None if case.pep is None else "none",
        "peer": case.peer,
        "operation": case.endpoint.strip("/"),
        "service": "",
        "jkt": case.jkt,
        "key_tier": case.key_tier if case.caller is None else case.caller.key_tier,
        "rule_set": case.rule_set,
        "jti": case.jti,
    }
    _add_holder(facts, case)
    _add_call(facts, case, servers)
    _add_decision(facts, case)
    return facts


def _add_holder(facts: DecisionFacts, case: Case) -> None:
    """Add who holds the key by the cluster's word, also where that is why the answer is no."""
    if case.view is None:
        return
    facts["agent"] = case.view.spiffe_id
    facts["instance"] = f"{case.view.namespace}/{case.view.name}"
    facts["assurance"] = case.view.assurance
    if case.facts is not None:
        attested = case.facts.device.attestation_time
        facts["device_uid"] = case.facts.device_uid
        facts["device_name"] = case.facts.device.name
        facts["attested_at"] = None if attested is None else int(attested.timestamp())


def _add_call(facts: DecisionFacts, case: Case, servers: Catalogue) -> None:
    if case.request is None:
        return
    call = case.request.call
    facts["operation"], facts["service"], facts["tool"] = call.method, call.audience, call.tool
    facts["args"], facts["call_digest"] = call.args, call.digest
    tool = _tool(servers, call.audience, call.tool)
    if tool is not None:
        facts["access"] = tool.access
        facts["recorded_arguments"] = _recorded(call.arguments, tool.record_arguments)


def _add_decision(facts: DecisionFacts, case: Case) -> None:
    decision = case.decision
    if decision is None:
        return
    facts["policy"], facts["rule"], facts["reason"] = decision.policy, decision.rule, decision.reason
    facts["approval"] = decision.approval
    facts["settled"], facts["audited"] = _marks(decision.settled), _marks(decision.audit)


def _marks(marks: Sequence[RuleMark]) -> list[Mark]:
    return [{"policy": one.policy, "rule": one.rule, "effect": one.effect} for one in marks]


def _tool(servers: Catalogue, audience: str, name: str) -> Tool | None:
    server = servers.by_audience(audience)
    return None if server is None else server.tools.get(name)


def _recorded(arguments: Any, pointers: Sequence[str]) -> dict[str, Any]:
    """Return the arguments that the ToolServer's owner lists for the record, by pointer; the others stay a digest (E2)."""
    found = {}
    for pointer in pointers:
        value = arguments
        try:
            for segment in pointer.split("/")[1:]:
                key = segment.replace("~1", "/").replace("~0", "~")
                value = value[int(key) if isinstance(value, list) else key]
        except (KeyError, IndexError, ValueError, TypeError):
            continue
        found[pointer] = value
    return found
