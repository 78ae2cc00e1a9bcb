"""``GET /catalogue`` (wire.md 4.2): the servers that this agent may know, and what its signer needs to reach them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from countersign.errors import Invalid, Unavailable
from countersign_webhook.decide.http import NO_STORE, Answer
from countersign_webhook.decide.signed import SignedEndpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from countersign.wire import Message
    from countersign_webhook.decide.case import Case

__all__ = ["CatalogueEndpoint", "header_arguments", "server_entry"]


class CatalogueEndpoint(SignedEndpoint):
    """Tells a signer where to go. It decides no call, so it leaves no record."""

    path: ClassVar[str] = "/catalogue"
    method: ClassVar[str] = "GET"

    async def answer(self, case: Case, message: Message) -> Answer:
        """List what is exposed to the agent's namespace."""
        if message.body or "?" in message.target:
            raise Invalid("request.parameter", "the catalogue takes no body and no query")
        if case.facts is None:
            raise Unavailable("decide.failed", "a step before the catalogue is missing")
        agent = case.facts.agent
        servers = self.context.book.servers.exposed_to(agent.namespace, agent.namespace_labels)
        return Answer.of_json({"servers": [server_entry(one.source) for one in servers]}, NO_STORE)


def server_entry(server: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ToolServer as the catalogue shows it."""
    meta, spec = server["metadata"], server["spec"]
    entry = {
        "name": meta["name"],
        "namespace": meta["namespace"],
        "audience": spec["audience"],
        "endpoint": spec.get("endpoint"),
        "protocol": spec["protocol"],
        "enforcement": spec.get("enforcement", "Verifier"),
        "ca_bundle": spec.get("caBundle"),
        "tools": [_tool_entry(tool) for tool in spec["tools"]],
    }
    return {name: value for name, value in entry.items() if value is not None}


def _tool_entry(tool: Mapping[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": tool["name"]}
    if tool.get("definitionDigest"):
        entry["definition"] = tool["definitionDigest"]
    if headers := dict(header_arguments(tool.get("inputSchema") or {})):
        entry["header_arguments"] = headers
    return entry


def header_arguments(schema: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Yield (JSON pointer, header name) of each argument that ``inputSchema`` marks ``x-mcp-header``."""
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("x-mcp-header"), str) and at:
        yield at, schema["x-mcp-header"]
    properties = schema.get("properties")
    for name, inner in properties.items() if isinstance(properties, dict) else ():
        yield from header_arguments(inner, f"{at}/{name.replace('~', '~0').replace('/', '~1')}")
