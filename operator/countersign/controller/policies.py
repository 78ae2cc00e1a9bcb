"""ToolPolicy and ClusterToolPolicy: what this version understands of them, and whom and what they name (crds.md 3.8). Pure.

Neither condition is read by the decision: crds.md 5.3 says what a rule does that cannot be read.
"""

from __future__ import annotations

from functools import lru_cache
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
        "matchedAgents": _matched(policy, view),
        "digest": policy_digest(policy),
        "conditions": conditions(policy, facts, now),
    }
    return Plan(status, tuple(news(policy, facts, ("Accepted",), _WARNED)))


def _accepted(policy: dict[str, Any]) -> Fact:
    """Say whether every rule can be decided here; one that cannot never helps a caller."""
    rules = policy["spec"]["rules"]
    faults = {rule["name"]: fault for rule in rules if "when" in rule and (fault := _fault(rule["when"]))}
    if faults:
        first = min(faults)
        message = f"undecided, so Allow is no help and Deny denies: {listed(faults)}; rule {first}: {faults[first]}"
        return "False", "InvalidExpression", message
    if waiting := [rule["name"] for rule in rules if "approval" in rule or rule["effect"] == "RequireApproval"]:
        message = f"this version asks nobody for approval; undecided, so these deny: {listed(waiting)}"
        return "False", "UnknownField", message
    return "True", "Accepted", f"{len(rules)} of {len(rules)} rules are understood"


@lru_cache(maxsize=4096)
def _fault(text: str) -> str | None:
    """Compile a condition once, however often its policy, or another that says the same, is looked at."""
    return when_fault(text)


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


def _matched(policy: dict[str, Any], view: View) -> int:
    """Count the agents whose calls a rule could speak about: those that it names, or all where it names none (crds.md 5.1)."""
    own, selector = policy["metadata"].get("namespace"), policy["spec"].get("namespaceSelector")
    named = [(rule.get("subjects") or {}).get("agents") for rule in policy["spec"]["rules"]]
    if any(agents is None for agents in named):
        spaces = [own] if own is not None else view.values(AGENT_IDENTITIES, "namespace")
        chosen = [space for space in spaces if own is not None or selector is None or _selected(selector, space, view)]
        return sum(view.count(AGENT_IDENTITIES, "namespace", space) for space in chosen)
    agents = {(one.get("namespace") or own or "", one["name"]) for agents in named for one in agents or []}
    return sum(
        1
        for space, name in agents
        if own in (None, space)
        and _living(view.get(AGENT_IDENTITIES, name, space))
        and (selector is None or _selected(selector, space, view))
    )


def _selected(selector: Any, namespace: str, view: View) -> bool:
    """Tell whether a selector means a namespace, read as strictly as the decision does; an unknown one it does not."""
    return exposes({"from": "Selector", "selector": selector}, own=False, labels=_labels(view, namespace))


def _labels(view: View, namespace: str) -> dict[str, str] | None:
    found = view.get(NAMESPACES, namespace)
    return None if found is None else dict(found["metadata"].get("labels") or {})


def _living(found: dict[str, Any] | None) -> bool:
    return found is not None and not is_going(found)
