"""The canonical call (wire.md 1.6, 1.7, 2.4): what policy decides on, a token names and a verifier compares."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, Final

from countersign.canonical import canonical
from countersign.errors import Invalid
from countersign.wire.lazy import lazy
from countersign.wire.strict_json import parse_value

__all__ = ["DETAILS_TYPE", "TOOL_NAME", "Call", "canonical", "digest_of", "parse_details"]

DETAILS_TYPE: Final = "countersign_call"
"""The ``type`` of our ``authorization_details``, in requests and in tokens."""
TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")

_MAX_DETAILS: Final = 1 << 20
_MEMBERS: Final = frozenset({"type", "protocol", "method", "tool", "arguments"})
_MCP_METHOD: Final = re.compile(r"[A-Za-z0-9_./$-]{1,128}")
_HTTP_METHOD: Final = re.compile(r"[A-Z]{1,32}")
_HTTP_INPUT: Final = frozenset({"body", "path", "query"})


def digest_of(data: bytes) -> str:
    """Return the digest of ``data`` as the wire writes it: ``sha256:`` and 64 lower-case hex digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True)
class Call:
    """One call. ``protocol`` is ``MCP`` or ``HTTP``; ``tool`` is empty unless a tool is called by name.

    ``arguments`` is the digest input of wire.md 2.4. They are secret: they show in no ``repr``, and leave as digests.
    """

    protocol: str
    method: str
    tool: str
    arguments: dict[str, Any] = field(repr=False)
    audience: str

    @lazy
    def args(self) -> str:
        """The digest of the arguments' RFC 8785 bytes."""
        return digest_of(canonical(self.arguments))

    @lazy
    def digest(self) -> str:
        """The call digest, by which approvals and audit records know the call."""
        return digest_of(
            canonical({"args": self.args, "audience": self.audience, "method": self.method, "tool": self.tool})
        )

    @property
    def details(self) -> dict[str, str]:
        """The call as tokens and answers name it: by its ``args`` digest (wire.md 5)."""
        return {
            "type": DETAILS_TYPE,
            "protocol": self.protocol,
            "method": self.method,
            "tool": self.tool,
            "args": self.args,
        }


def parse_details(text: str, *, audience: str) -> Call:
    """Read the ``authorization_details`` of a token request (wire.md 4) for the server at ``audience``.

    Raises
    ------
    Invalid
        ``parse.*`` for the JSON, ``request.details`` for anything but one whole description of one call.

    """
    value = parse_value(text.encode("utf-8", "surrogatepass"), max_bytes=_MAX_DETAILS)
    if not isinstance(value, list) or len(value) != 1 or not isinstance(value[0], dict):
        raise Invalid("request.details", "an array with one object")
    entry: dict[str, Any] = value[0]
    if entry.keys() != _MEMBERS or entry["type"] != DETAILS_TYPE:
        raise Invalid("request.details", f"exactly {', '.join(sorted(_MEMBERS))}, of type {DETAILS_TYPE}")
    protocol, method, tool, arguments = entry["protocol"], entry["method"], entry["tool"], entry["arguments"]
    if not (isinstance(method, str) and isinstance(tool, str) and isinstance(arguments, dict)):
        raise Invalid("request.details", "method and tool are strings, arguments an object")
    if protocol == "MCP":
        good = _is_mcp(method, tool, arguments)
    else:
        good = protocol == "HTTP" and _is_http(method, tool, arguments)
    if not good:
        raise Invalid("request.details", "protocol, method, tool and arguments do not describe one call")
    return Call(protocol, method, tool, arguments, audience)


def _is_mcp(method: str, tool: str, arguments: dict[str, Any]) -> bool:
    if method == "tools/call":
        return TOOL_NAME.fullmatch(tool) is not None
    return _MCP_METHOD.fullmatch(method) is not None and not tool and not arguments


def _is_http(method: str, tool: str, arguments: dict[str, Any]) -> bool:
    return _HTTP_METHOD.fullmatch(method) is not None and not tool and arguments.keys() == _HTTP_INPUT
