"""The parts ``subjects``, ``task`` and ``tools``: whom and what a rule speaks about (crds.md 5.4), and their index keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from countersign.policy.facts import CallFacts
from countersign.policy.logic import Unreadable, block, conjunction, items, text, texts

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ACCESS", "Part", "ToolEntry", "compile_subjects", "compile_task", "compile_tools", "tools_part"]

Part = Callable[[CallFacts], bool | None]

ACCESS: Final = frozenset({"ReadOnly", "ReadWrite", "Destructive"})


def compile_subjects(value: Any, namespace: str | None) -> tuple[Part, frozenset[str] | None]:
    """Compile ``subjects`` of a policy in ``namespace`` (None: a ClusterToolPolicy).

    Returns the part, and the agents it names as ``namespace/name``, or None if it names none.
    """
    entry = block(value, frozenset({"agents", "users", "groups"}))
    parts: list[Part] = []
    agents: frozenset[str] | None = None
    if "agents" in entry:
        agents = frozenset(_agent(one, namespace) for one in items(entry["agents"]))
        parts.append(_member(agents, lambda facts: facts.agent))
    if "users" in entry:
        parts.append(_member(texts(entry["users"]), lambda facts: facts.user.name if facts.user else None))
    if "groups" in entry:
        groups = texts(entry["groups"])
        parts.append(lambda facts: facts.user is not None and not groups.isdisjoint(facts.user.groups))
    return conjunction(parts), agents


def _member(names: frozenset[str], read: Callable[[CallFacts], str | None]) -> Part:
    return lambda facts: read(facts) in names


def _agent(value: Any, namespace: str | None) -> str:
    entry = block(value, frozenset({"name"} if namespace is not None else {"namespace", "name"}))
    where = namespace if namespace is not None else text(entry.get("namespace"))
    return f"{where}/{text(entry.get('name'))}"


def compile_task(value: Any) -> Part:
    """Compile ``task``: false without a task or without a purpose."""
    purposes = texts(block(value, frozenset({"purposes"})).get("purposes"))
    return lambda facts: facts.user is not None and facts.user.purpose in purposes


@dataclass(frozen=True)
class ToolEntry:
    """One entry of ``tools``: what is None says nothing. ``server`` is ``namespace/name``."""

    server: str | None
    names: frozenset[str] | None
    access: frozenset[str] | None

    def matches(self, server: str, tool: str, access: str) -> bool:
        """Whether the entry speaks about this registered tool."""
        return (
            (self.server is None or self.server == server)
            and (self.names is None or tool in self.names)
            and (self.access is None or access in self.access)
        )


def compile_tools(value: Any, namespace: str | None, *, server_required: bool) -> tuple[ToolEntry, ...]:
    """Compile ``tools`` of a rule or a task; a server without namespace is of ``namespace`` (None: it must say one)."""
    return tuple(_entry(one, namespace, server_required=server_required) for one in items(value))


def _entry(value: Any, namespace: str | None, *, server_required: bool) -> ToolEntry:
    entry = block(value, frozenset({"server", "names", "access"}))
    if server_required and "server" not in entry:
        raise Unreadable
    access = texts(entry["access"]) if "access" in entry else None
    if access is not None and not ACCESS.issuperset(access):
        raise Unreadable
    return ToolEntry(
        server=_server(entry["server"], namespace) if "server" in entry else None,
        names=texts(entry["names"]) if "names" in entry else None,
        access=access,
    )


def _server(value: Any, namespace: str | None) -> str:
    entry: Mapping[str, Any] = block(value, frozenset({"namespace", "name"}))
    where = text(entry["namespace"]) if "namespace" in entry else namespace
    return f"{text(where)}/{text(entry.get('name'))}"


def tools_part(entries: tuple[ToolEntry, ...]) -> Part:
    """Return the part: one entry is enough."""
    if len(entries) == 1:
        [only] = entries
        return lambda facts: only.matches(facts.server, facts.tool, facts.access)
    return lambda facts: any(entry.matches(facts.server, facts.tool, facts.access) for entry in entries)
