"""ToolServer: may it have its audience, can its schemas be evaluated, are its tools pinned (crds.md 3.7). Pure.

The decision point asks the same again at every call (``policy.Catalogue``); this is what people see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from countersign.controller.plan import Fact, Plan, conditions, listed, news, ref
from countersign.kube import TOOL_SERVERS
from countersign.policy import audience_owned, schema_fault

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from countersign.controller.view import View

__all__ = ["Audiences", "plan_server"]

_WARNED: Final = ("AudienceConflict",)


class Audiences:
    """Whose audience is whose: the issuer's URL, and the platform's grants (None: not told, so not judged here)."""

    def __init__(self, issuer: str, grants: Sequence[tuple[str, Sequence[str]]] | None) -> None:
        """Keep both."""
        self.issuer, self.grants = issuer, grants

    def owned(self, audience: str, namespace: str) -> bool:
        """Tell whether ``namespace`` may claim ``audience``, as far as this process was told."""
        grants = [(audience, (namespace,))] if self.grants is None else self.grants
        return audience_owned(audience, namespace, grants, self.issuer)


def plan_server(server: dict[str, Any], view: View, now: datetime, audiences: Audiences) -> Plan:
    """Return status and Events of one ToolServer."""
    facts = {"Accepted": _accepted(server, view, audiences), "ToolsPinned": _pinned(server)}
    status = {
        "observedGeneration": server["metadata"].get("generation", 0),
        "tools": len(server["spec"]["tools"]),
        "conditions": conditions(server, facts, now),
    }
    return Plan(status, tuple(news(server, facts, ("Accepted",), _WARNED)))


def _accepted(server: dict[str, Any], view: View, audiences: Audiences) -> Fact:
    audience, namespace = server["spec"]["audience"], server["metadata"]["namespace"]
    if not audiences.owned(audience, namespace):
        return "False", "AudienceConflict", f"namespace {namespace} may not claim audience {audience}"
    rivals = view.by(TOOL_SERVERS, "audience", audience)
    owner = min((one for one in rivals if audiences.owned(audience, one["metadata"]["namespace"])), key=_age)
    if owner["metadata"]["uid"] != server["metadata"]["uid"]:
        return "False", "AudienceConflict", f"audience {audience} belongs to the older {ref(owner)}"
    for tool in server["spec"]["tools"]:
        fault = schema_fault(tool["inputSchema"]) if "inputSchema" in tool else None
        if fault is not None:
            return "False", "InvalidSchema", f"spec.tools[{tool['name']}].inputSchema{fault}"
    return "True", "Accepted", f"audience {audience}"


def _pinned(server: dict[str, Any]) -> Fact:
    """Say which tools are pinned. What a server publishes is not observed yet, so a pinned tool is cut off until then."""
    tools = server["spec"]["tools"]
    loose = [tool["name"] for tool in tools if "definitionDigest" not in tool]
    if len(loose) == len(tools):
        return "False", "Unpinned", "no tool has a definitionDigest"
    pinned = listed(tool["name"] for tool in tools if "definitionDigest" in tool)
    if loose:
        return "False", "Unpinned", f"without definitionDigest: {listed(loose)}; not observed, so refused: {pinned}"
    return "Unknown", "NotObserved", f"published definitions are not observed yet, so these are refused: {pinned}"


def _age(server: dict[str, Any]) -> tuple[str, str, str]:
    """Order as the decision point does: an object without a time is younger than any that has one."""
    meta = server["metadata"]
    return meta.get("creationTimestamp") or "\U0010ffff", meta["namespace"], meta["name"]
