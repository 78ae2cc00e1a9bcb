"""An MCP request as one call (wire.md 2.3): the body decides, and each header that repeats it must agree.

The checks are a sequence, so that each refusal has one place and a test can leave one check out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from countersign.errors import Denied, Invalid
from countersign.wire.call import TOOL_NAME, Call
from countersign.wire.mcp_headers import check_params, mirrors
from countersign.wire.strict_json import parse_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from countersign.wire.message import Message

__all__ = ["JSON_TYPES", "MCP_CHECKS", "MCP_VERSIONS", "McpRequest", "base_methods", "parse_mcp"]

JSON_TYPES: Final = frozenset({"application/json", "application/json; charset=utf-8"})
"""The media types of a body that is JSON; SDKs decode by the charset, so that there is one."""
MCP_VERSIONS: Final = ("2026-07-28", "2025-11-25", "2025-06-18")

_NEWEST: Final = MCP_VERSIONS[0]
_ASSUMED: Final = "2025-11-25"
"""The version of an ``initialize`` that names none in its header."""
_CALL: Final = "tools/call"
_NOTIFICATION: Final = "notifications/"
_MEMBERS: Final = frozenset({"jsonrpc", "id", "method", "params"})
_PARAMS: Final = frozenset({"name", "arguments", "_meta"})
_OURS: Final = "io.modelcontextprotocol/"
_META: Final = frozenset(
    {
        "progressToken",
        "traceparent",
        "tracestate",
        "baggage",
        *(_OURS + name for name in ("protocolVersion", "clientInfo", "clientCapabilities", "logLevel")),
    }
)
_BASE_NEWEST: Final = frozenset({"server/discover", "tools/list"})
_BASE_EARLIER: Final = frozenset(
    {"initialize", "ping", "notifications/initialized", "notifications/cancelled", "tools/list"}
)


def base_methods(version: str) -> frozenset[str]:
    """Return the methods besides ``tools/call`` that ``version`` may use; everything else is unknown (wire.md 2.3.7)."""
    return _BASE_NEWEST if version == _NEWEST else _BASE_EARLIER


@dataclass(frozen=True)
class McpRequest:
    """One MCP request or notification. ``tool`` is empty and ``arguments`` is ``{}`` unless it is ``tools/call``."""

    id: str | int | None
    method: str
    tool: str
    arguments: dict[str, Any] = field(repr=False)
    version: str

    @property
    def is_notification(self) -> bool:
        """Whether nobody waits for an answer."""
        return self.id is None

    def call(self, audience: str) -> Call:
        """Return the call that this is at the server ``audience``."""
        return Call("MCP", self.method, self.tool, self.arguments, audience)


@dataclass
class _Read:
    """What is known of a request so far. ``schemas`` is None where the reader has no catalogue."""

    message: Message
    path: str | None
    schemas: Mapping[str, Any] | None
    body: dict[str, Any] = field(default_factory=dict)
    version: str = ""

    @property
    def method(self) -> str:
        method: str = self.body["method"]
        return method

    @property
    def params(self) -> dict[str, Any]:
        params: dict[str, Any] = self.body.get("params", {})
        return params


def parse_mcp(
    message: Message,
    *,
    path: str | None,
    input_schemas: Mapping[str, Any] | None,
    checks: Sequence[Callable[[_Read], None]] | None = None,
) -> McpRequest:
    """Read an MCP message whose fields passed ``Message.build``.

    ``path`` is the endpoint's path where the reader knows it. ``input_schemas`` maps each tool of the server to its
    ``inputSchema``, of which only ``x-mcp-header`` is looked at; None where the reader does not know them.
    ``checks`` is for tests, which leave one out.

    Raises
    ------
    Invalid
        ``parse.*``, ``http.path``, ``mcp.*``: the first check that fails.
    Denied
        ``tool.unknown`` for a tool that ``input_schemas`` does not have.

    """
    read = _Read(message, path, input_schemas)
    for check in MCP_CHECKS if checks is None else checks:
        check(read)
    if read.method != _CALL:
        return McpRequest(read.body.get("id"), read.method, "", {}, read.version)
    return McpRequest(read.body["id"], _CALL, read.params["name"], read.params.get("arguments", {}), read.version)


def _check_post(read: _Read) -> None:
    if read.message.method != "POST":
        raise Invalid("mcp.http_method", "MCP messages are sent by POST")


def _check_media_type(read: _Read) -> None:
    if (read.message.get("content-type") or "").lower() not in JSON_TYPES:
        raise Invalid("parse.encoding", "the body is application/json in UTF-8")


def _check_target(read: _Read) -> None:
    target = read.message.target
    if "?" in target or (read.path is not None and target != read.path):
        raise Invalid("http.path", "the target is the endpoint's path, without a query")


def _read_body(read: _Read) -> None:
    body = parse_value(read.message.body, max_bytes=len(read.message.body))  # Message.build judged its size
    if isinstance(body, list):
        raise Invalid("mcp.batch", "one message a request")
    if not isinstance(body, dict):
        raise Invalid("parse.type", "the top level is no object")
    read.body = body


def _check_envelope(read: _Read) -> None:
    body = read.body
    method = body.get("method")
    good = body.keys() <= _MEMBERS and body.get("jsonrpc") == "2.0" and isinstance(method, str)
    if not good or not isinstance(body.get("params", {}), dict):
        raise Invalid("mcp.envelope", "a JSON-RPC 2.0 request or notification, and nothing else")
    found = body.get("id")
    identified = isinstance(found, str | int) and not isinstance(found, bool)
    silent = read.method.startswith(_NOTIFICATION)
    if "id" in body if silent else not identified:
        raise Invalid("mcp.envelope", "a request has an id, a string or an integer; a notification has none")


def _check_version(read: _Read) -> None:
    version = read.message.get("mcp-protocol-version")
    if version is None and read.method == "initialize":
        version = _ASSUMED
    if version not in MCP_VERSIONS:
        raise Invalid("mcp.version", f"MCP-Protocol-Version is one of {', '.join(MCP_VERSIONS)}")
    read.version = version


def _check_method(read: _Read) -> None:
    if read.method != _CALL and read.method not in base_methods(read.version):
        raise Invalid("mcp.method_unknown", "no method of this version that is served")


def _check_body_version(read: _Read) -> None:
    if read.version != _NEWEST:
        return
    meta = read.params.get("_meta")
    if not isinstance(meta, dict) or meta.get(f"{_OURS}protocolVersion") != read.version:
        raise Invalid("mcp.header_mismatch", "the body's protocol version is not the header's")


def _check_required_headers(read: _Read) -> None:
    if read.version != _NEWEST:
        return
    for name in ("mcp-method", "mcp-name") if read.method == _CALL else ("mcp-method",):
        if read.message.get(name) is None:
            raise Invalid("mcp.header_missing", f"{name} is required in this version")


def _check_mirrors(read: _Read) -> None:
    name = read.params.get("name") if read.method == _CALL else None
    for header, value in (("mcp-method", read.method), ("mcp-name", name)):
        sent = read.message.get(header)
        if sent is not None and not mirrors(sent, value):
            raise Invalid("mcp.header_mismatch", f"{header} is not what the body says")


def _check_call(read: _Read) -> None:
    if read.method != _CALL:
        return
    params = read.params
    name, meta = params.get("name"), params.get("_meta", {})
    if not params.keys() <= _PARAMS or not isinstance(params.get("arguments", {}), dict):
        raise Invalid("mcp.params", "tools/call has name, arguments (an object) and _meta, and nothing else")
    if not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
        raise Invalid("mcp.params", f"the name of a tool is {TOOL_NAME.pattern}")
    if not isinstance(meta, dict) or not meta.keys() <= _META:
        raise Invalid("mcp.params", "a member of _meta is unknown: the call's digest does not cover it")


def _check_param_headers(read: _Read) -> None:
    """Compare ``Mcp-Param-*`` with the arguments; where the schema is not known, the signature covers them (2.3.5)."""
    if read.method != _CALL:
        check_params(read.message, None, {}, required=False)
        return
    if read.schemas is None:
        return
    name = read.params["name"]
    if name not in read.schemas:
        raise Denied("tool.unknown", "no such tool at this server")
    check_params(read.message, read.schemas[name], read.params.get("arguments", {}), required=read.version == _NEWEST)


MCP_CHECKS: Final[tuple[Callable[[_Read], None], ...]] = (
    _check_post,
    _check_media_type,
    _check_target,
    _read_body,
    _check_envelope,
    _check_version,
    _check_method,
    _check_body_version,
    _check_required_headers,
    _check_mirrors,
    _check_call,
    _check_param_headers,
)
"""The steps of :func:`parse_mcp` in their order."""
