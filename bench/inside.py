"""The decision's own room, without a network: policy at three sizes; and the policies, calls and records that others use too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from floor import VERIFY
from timing import Case

from countersign.audit import decision_record, new_decision_id
from countersign.policy import Agent, Caller, Catalogue, Device, Instance, Question, RuleSet, decide

__all__ = ["AUDIENCE", "GRANTS", "TOOL", "cases", "policies_of", "policy", "question", "record", "server"]

AUDIENCE = "https://tools.example.com/stripe"
TOOL = "create_refund"
GRANTS = (("https://tools.example.com", ("billing",)),)
_SIZES = (10, 1_000, 10_000)


def server() -> dict[str, Any]:
    """Return a ToolServer with two tools."""
    schema = {"type": "object", "properties": {"charge": {"type": "string"}, "amount": {"type": "integer"}}}
    tools = [{"name": name, "access": "ReadWrite", "inputSchema": schema} for name in (TOOL, "get_charge")]
    return {
        "metadata": {"namespace": "billing", "name": "stripe", "uid": "uid-stripe"},
        "spec": {"audience": AUDIENCE, "protocol": "MCP", "tools": tools, "requires": {"minKeyTier": "TPM"}},
    }


def policies_of(count: int) -> list[dict[str, Any]]:
    """Return ``count`` policies: of other agents, servers and tools, and the one that speaks about the call."""
    return [*(policy(number) for number in range(count - 1)), policy(None)]


def policy(number: int | None, maximum: int = 5000) -> dict[str, Any]:
    """Return the policy that allows the call (``number`` None) unless the charge is disputed, or one of another agent."""
    name = "policy-mine" if number is None else f"policy-{number}"
    rule = {
        "name": "small",
        "effect": "Allow",
        "subjects": {"agents": [{"name": "refund-agent" if number is None else f"agent-{number}"}]},
        "environment": {"minKeyTier": "TPM", "maxAttestationAgeSeconds": 3600},
        "tools": [
            {"server": {"name": "stripe"}, "names": [TOOL if number is None or number % 2 else f"tool-{number}"]}
        ],
        "arguments": [{"pointer": "/amount", "type": "Integer", "integer": {"minimum": 1, "maximum": maximum}}],
    }
    rules = [rule]
    if number is None:
        about = {"subjects": rule["subjects"], "tools": rule["tools"], "reason": "The charge is disputed."}
        disputed = {"pointer": "/charge", "type": "String", "string": {"values": ["ch_disputed"]}}
        rules.append({"name": "disputed", "effect": "Deny", **about, "arguments": [disputed]})
    return {
        "kind": "ToolPolicy",
        "metadata": {"namespace": "billing", "name": name, "uid": f"uid-{name}"},
        "spec": {"rules": rules},
    }


def question(now: datetime, arguments: Any = None) -> Question:
    """Return the call that is decided."""
    return Question(
        now=now,
        caller=Caller(
            agent=Agent("billing", "refund-agent", "Optional", "Virtual", "TPM", {"team": "billing"}),
            instance=Instance("refund-agent-7f9c4", "inst-1", "Pod"),
            device=Device("worker-1", "racks", "Virtual", now - timedelta(minutes=30)),
            key_tier="TPM",
            cluster="bench",
        ),
        server="billing/stripe",
        tool=TOOL,
        arguments=arguments or {"charge": "ch_1", "amount": 1200},
    )


def record(now: datetime) -> dict[str, Any]:
    """Return a record with as many facts as a real one has."""
    return decision_record(
        decision=new_decision_id(),
        now=now,
        code="policy.allowed",
        allowed=True,
        leg="T",
        operation="tools/call",
        service=AUDIENCE,
        tool=TOOL,
        access="ReadWrite",
        agent="spiffe://agents.example.com/ns/billing/sa/refund-agent",
        instance="billing/refund-agent-7f9c4",
        peer="127.0.0.1",
        device_uid="9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d",
        device_name="worker-1",
        args="sha256:" + "a" * 64,
        call_digest="sha256:" + "b" * 64,
        key_tier="TPM",
        jkt="x" * 43,
        assurance="Virtual",
        attested_at=1795521600,
        rule_set="sha256:" + "c" * 64,
        policy="ToolPolicy billing/policy-mine",
        rule="small",
        jti="y" * 22,
    )


def cases() -> list[Case]:
    """Compile the rules, and return what to time."""
    now, catalogue = datetime.now(UTC), Catalogue.build([server()], GRANTS)
    asked = question(now)
    found = []
    for size in _SIZES:
        rules = RuleSet.compile(policies_of(size))
        answer = decide(asked, rules, catalogue)
        if not answer.allowed:
            raise RuntimeError(f"the benchmark's own call was refused: {answer.code}")
        name = f"decide, {size:,} policies"
        found.append(Case(name, lambda rules=rules: decide(asked, rules, catalogue), of=VERIFY))
    return found
