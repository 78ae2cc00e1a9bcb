"""Step 2 of a decision and the last check of step 3: the bound AgentTask (crds.md 3.6, 5.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from countersign.policy.logic import Unreadable
from countersign.policy.scope import compile_tools
from countersign.policy.times import read_time

if TYPE_CHECKING:
    from countersign.policy.model import Question

__all__ = ["task_fault", "task_includes"]


def task_fault(question: Question) -> str | None:
    """Return the code of the first check of step 2 that fails, or None. What cannot be read has failed."""
    task, agent = question.task, question.caller.agent
    if task is None:
        return None if agent.tasks == "Optional" else "task.required"
    metadata, spec, status = (_mapping(task.get(name)) for name in ("metadata", "spec", "status"))
    bound = (
        _mapping(status.get("instanceRef")).get("uid") == question.caller.instance.uid
        and bool(question.caller.instance.uid)
        and metadata.get("namespace") == agent.namespace
        and _mapping(spec.get("agentRef")).get("name") == agent.name
    )
    if not bound:
        return "task.not_bound"
    state = spec.get("state", "Active")
    if state == "Suspended":
        return "task.suspended"
    if state != "Active" or metadata.get("deletionTimestamp") is not None:
        return "task.ended"
    expires = read_time(status.get("expirationTime"))
    if expires is None or question.now >= expires:
        return "task.expired"
    return None if _within_budget(spec, status) else "task.budget_exhausted"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _within_budget(spec: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Whether another call fits; a counter that is not there yet is 0, one that cannot be read is full."""
    if spec.get("budget") is None:
        return True
    limit = _mapping(spec["budget"]).get("calls")
    used = _mapping(status.get("calls")).get("allowed", 0)
    return type(limit) is int and type(used) is int and 0 <= used < limit


def task_includes(task: Mapping[str, Any] | None, server: str, tool: str, access: str) -> bool:
    """Whether the task's own list of tools, if it has one, includes this tool. It narrows, never widens."""
    if task is None:
        return True
    listed = _mapping(task.get("spec")).get("tools")
    if listed is None:
        return True
    namespace = _mapping(task.get("metadata")).get("namespace")
    try:
        entries = compile_tools(listed, namespace if isinstance(namespace, str) else None, server_required=True)
    except Unreadable:
        return False
    return any(entry.matches(server, tool, access) for entry in entries)
