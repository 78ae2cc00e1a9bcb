"""ToolPolicy and ClusterToolPolicy: what this version understands of them, and whom and what they name (crds.md 3.8). Pure.

Neither condition is read by the decision: crds.md 5.3 says what a rule does that cannot be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from countersign.controller.plan import Fact, Plan, conditions, is_going, listed, news
from countersign.kube import AGENT_IDENTITIES, NAMESPACES, TOOL_SERVERS
from countersign.policy import exposes, policy_digest, when_fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from countersign.controller.view import View

__all__ = ["plan_policy"]

_WARNED: Final = ("InvalidExpression", "RefNotFound")


def plan_policy(policy: dict[str, Any], view: View, now: datetime) -> Plan:
    """Return status and Events of one policy of either kind."""
    facts = {"Accepted": _accepted(policy), "ResolvedRefs": _resolved(policy, view)}
    status = {
        "observedGeneration": policy["metadata"].get("generation", 0),
        "rules": len(policy["spec"]["rules"]),
        "matchedAgents": sum(1 for one in _spoken_of(policy, view) if _named(policy, one)),
        "digest": policy_digest(policy),
        "conditions": conditions(policy, facts, now),
    }
    return Plan(status, tuple(news(policy, facts, ("Accepted",), _WARNED)))


def _accepted(policy: dict[str, Any]) -> Fact:
    """Say whether every rule can be decided here; one that cannot never helps a caller."""
    rules = policy["spec"]["rules"]
    faults = {rule["name"]: fault for rule in rules if "when" in rule and (fault := when_fault(rule["when"]))}
    if faults:
        first = min(faults)
        message = f"undecided, so Allow is no help and Deny denies: {listed(faults)}; rule {first}: {faults[first]}"
        return "False", "InvalidExpression", message
    if waiting := [rule["name"] for rule in rules if "approval" in rule or rule["effect"] == "RequireApproval"]:
        message = f"this version asks nobody for approval; undecided, so these deny: {listed(waiting)}"
        return "False", "UnknownField", message
    return "True", "Accepted", f"{len(rules)} of {len(rules)} rules are understood"


def _resolved(policy: dict[str, Any], view: View) -> Fact:
    missing = sorted(set(_missing(policy, view)))
    if missing:
        return "False", "RefNotFound", f"what names these matches nothing: {listed(missing)}"
    return "True", "ResolvedRefs", "every agent and every server that is named exists"


def _missing(policy: dict[str, Any], view: View) -> Iterator[str]:
    own = policy["metadata"].get("namespace")
    for rule in policy["spec"]["rules"]:
        for agent in (rule.get("subjects") or {}).get("agents") or []:
            where = agent.get("namespace") or own or ""
            if not _living(view.get(AGENT_IDENTITIES, agent["name"], where)):
                yield f"AgentIdentity {where}/{agent['name']}"
        for tool in rule.get("tools") or []:
            if (server := tool.get("server")) is not None:
                where = server.get("namespace") or own or ""
                found = view.get(TOOL_SERVERS, server["name"], where)
                if found is None or is_going(found):
                    yield f"ToolServer {where}/{server['name']}"
                elif own is not None and not _exposed(found, own, view):
                    yield f"ToolServer {where}/{server['name']} (not exposed to namespace {own})"


def _exposed(server: dict[str, Any], namespace: str, view: View) -> bool:
    own = server["metadata"]["namespace"] == namespace
    return exposes(server["spec"].get("exposeTo"), own=own, labels=_labels(view, namespace))


def _spoken_of(policy: dict[str, Any], view: View) -> Iterator[dict[str, Any]]:
    """Yield the agents whose calls the policy speaks about (crds.md 5.1); an unknown Namespace is none."""
    own, selector = policy["metadata"].get("namespace"), policy["spec"].get("namespaceSelector")
    for identity in view.list(AGENT_IDENTITIES, own):
        # `exposes` reads a LabelSelector as strictly as the decision does: what it cannot read selects nothing here.
        labels = _labels(view, identity["metadata"]["namespace"])
        if selector is None or exposes({"from": "Selector", "selector": selector}, own=False, labels=labels):
            yield identity


def _named(policy: dict[str, Any], identity: dict[str, Any]) -> bool:
    """Tell whether a rule could speak about this agent: one that names no agents speaks about all."""
    name, namespace = identity["metadata"]["name"], identity["metadata"]["namespace"]
    for rule in policy["spec"]["rules"]:
        agents = (rule.get("subjects") or {}).get("agents")
        if agents is None or any(
            one["name"] == name and one.get("namespace", namespace) == namespace for one in agents
        ):
            return True
    return False


def _labels(view: View, namespace: str) -> dict[str, str] | None:
    found = view.get(NAMESPACES, namespace)
    return None if found is None else dict(found["metadata"].get("labels") or {})


def _living(found: dict[str, Any] | None) -> bool:
    return found is not None and not is_going(found)
