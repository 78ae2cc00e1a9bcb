"""ToolServer: a place that runs tools, and what is known about each (crds.md 3.7)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from countersign.api.kind import AGE, Column, Kind, Names, condition
from countersign.api.meta import (
    Access,
    Assurance,
    Count,
    Digest,
    Exposure,
    KeyTier,
    Pem,
    Pointer,
    Status,
    ToolName,
    Url,
)
from countersign.api.shape import Mark, Rule, Shape, immutable

__all__ = ["ToolServer", "ToolServerSpec", "ToolServerStatus"]

# No wildcard and no dot segment: a segment is plain text or {name}, whole.
_PLAIN = r"[A-Za-z0-9_~!$&'()+,;=:@-]"
_SEGMENT = rf"([.]?{_PLAIN}({_PLAIN}|[.])*|[{{][A-Za-z_][A-Za-z0-9_]{{0,62}}[}}])"


class HttpTool(Shape):
    """How a tool of an HTTP API is called."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
    """Method of the request."""
    path: Annotated[str, Field(max_length=512, pattern=rf"^/$|^(/{_SEGMENT})+$")]
    """Path below the audience; {name} is one segment and an argument."""


class Tool(Shape):
    """One tool."""

    name: ToolName
    """Name, compared exactly."""
    access: Access
    """What the tool may do to the world, as the person judges who registers it."""
    input_schema: (
        Annotated[
            dict[str, Any],
            Field(min_length=1, max_length=64),
            Mark({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
        ]
        | None
    ) = None
    """JSON Schema of the arguments (2020-12, no remote references). Required for MCP."""
    record_arguments: Annotated[tuple[Pointer, ...], Field(min_length=1, max_length=16)] | None = None
    """Arguments that the audit record shows in clear; left out: the digest only."""
    definition_digest: Digest | None = None
    """Digest of the published definition in RFC 8785 form; another one cuts the tool off."""
    http: HttpTool | None = None
    """With protocol: HTTP."""


class Requirements(Shape):
    """Floors that no policy can lower."""

    min_assurance: Assurance = "Virtual"
    """Lowest device assurance."""
    min_key_tier: KeyTier = "TPMSession"
    """Lowest tier of a call."""
    max_attestation_age_seconds: Annotated[int, Field(ge=60, le=604800)] | None = None
    """Oldest attestation; left out: what the device's pool allows."""


class ToolServerSpec(Shape):
    """Where the tools are, who may know them, and what exists."""

    cel = (
        *immutable("audience", "protocol"),
        Rule(
            "self.tools.all(t, has(t.http) == (self.protocol == 'HTTP'))",
            "http is required on every tool when protocol is HTTP and forbidden otherwise",
        ),
        Rule(
            "self.protocol != 'MCP' || self.tools.all(t, has(t.inputSchema))",
            "inputSchema is required on every tool of an MCP server",
        ),
        Rule(
            "self.tools.all(t, self.tools.exists_one(u, u.name.lowerAscii() == t.name.lowerAscii()))",
            "two tools whose names differ only in case are refused",
        ),
    )

    audience: Url
    """Exact audience of tokens; unique in the cluster. Immutable."""
    endpoint: Url | None = None
    """Where the signer connects, if that is not the audience."""
    ca_bundle: Pem | None = None
    """Roots for that connection; left out: the system's."""
    protocol: Literal["MCP", "HTTP"]
    """What the server speaks. Immutable."""
    enforcement: Literal["Verifier", "Gateway"] = "Verifier"
    """Who checks the token there."""
    expose_to: Exposure = Exposure()
    """Namespaces whose agents may know the server."""
    requires: Requirements = Requirements()
    """Floors that no policy can lower."""
    tools: Annotated[tuple[Tool, ...], Field(min_length=1, max_length=128), Mark.map("name")]
    """What exists; anything else is unknown and refused."""


class ToolServerStatus(Status):
    """What Countersign observed of the server. Conditions: Accepted, ToolsPinned."""

    tools: Count | None = None
    """How many tools are registered."""
    changed_tools: Annotated[tuple[ToolName, ...], Field(max_length=128)] | None = None
    """Tools whose published definition is not the pinned one."""


class ToolServer(Kind):
    """A place that runs tools, and what is known about each.

    Written by the owner of the tools, who says through exposeTo and requires what no policy can lift.
    """

    names = Names("toolservers", "cssrv", "Namespaced")
    columns = (
        Column("Audience", ".spec.audience"),
        Column("Protocol", ".spec.protocol"),
        Column("Enforcement", ".spec.enforcement"),
        Column("Tools", ".status.tools", "integer"),
        condition("Accepted", "Accepted"),
        condition("Pinned", "ToolsPinned"),
        Column("Min Tier", ".spec.requires.minKeyTier", wide=True),
        AGE,
    )

    spec: ToolServerSpec
    """What is wanted."""
    status: ToolServerStatus | None = None
    """What is observed."""
