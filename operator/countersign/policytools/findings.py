"""What ``lint`` says: one finding, and how bad it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Finding", "RuleAt", "rules_of"]


@dataclass(frozen=True, order=True)
class Finding:
    """``where`` is a policy or another object; ``severity`` is ``error``, ``warning`` or ``note``; ``check`` is stable."""

    where: str
    rule: str
    check: str
    severity: str
    message: str


@dataclass(frozen=True)
class RuleAt:
    """One rule, as it is written, and where.

    ``namespace`` is empty for a ClusterToolPolicy; ``everywhere`` says that it selects every Namespace.
    """

    where: str
    namespace: str
    everywhere: bool
    enforced: bool
    rule: dict[str, Any]

    @property
    def name(self) -> str:
        """The rule's name."""
        return str(self.rule.get("name") or "")

    @property
    def effect(self) -> str:
        """The rule's effect."""
        return str(self.rule.get("effect") or "")

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The entries of ``tools``."""
        return [one for one in self.rule.get("tools") or [] if isinstance(one, dict)]

    def server_of(self, entry: dict[str, Any]) -> str | None:
        """Return ``namespace/name`` of the server that an entry names, or None for any."""
        server = entry.get("server")
        if not isinstance(server, dict):
            return None
        return f"{server.get('namespace') or self.namespace}/{server.get('name')}"

    def finding(self, check: str, severity: str, message: str) -> Finding:
        """Return a finding about this rule."""
        return Finding(self.where, self.name, check, severity, message)


def rules_of(policies: list[dict[str, Any]]) -> Iterator[RuleAt]:
    """Yield every rule that is one."""
    for policy in policies:
        meta, spec = policy["metadata"], policy.get("spec") or {}
        namespace = str(meta.get("namespace") or "") if policy["kind"] == "ToolPolicy" else ""
        where = f"{policy['kind']} {namespace}/{meta['name']}" if namespace else f"{policy['kind']} {meta['name']}"
        for rule in spec.get("rules") or []:
            if isinstance(rule, dict):
                everywhere = not namespace and "namespaceSelector" not in spec
                yield RuleAt(where, namespace, everywhere, spec.get("mode", "Enforce") == "Enforce", rule)
