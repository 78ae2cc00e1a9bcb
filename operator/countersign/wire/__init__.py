"""The bytes of one tool call (wire.md): read them strictly, name them by digest, sign them, and check who signed.

The signer builds, signs and sends; the webhook verifies leg T and mints tokens; the verifier at a tool server checks token,
proof and call. All three use these functions, so that there is one reading of a request and one set of refusals.

This room is pure: it opens no connection, reads no clock and no file, knows no web framework, and keeps nothing but the
nonces' key and the replay cache that its caller holds. What it refuses, it refuses with a code of the registry; a detail
never repeats input.
"""

from countersign.wire.call import DETAILS_TYPE, TOOL_NAME, Call, canonical, digest_of, parse_details
from countersign.wire.http_call import parse_http
from countersign.wire.mcp import MCP_VERSIONS, McpRequest, base_methods, parse_mcp
from countersign.wire.message import ONCE_FIELDS, TRAVELLING_FIELDS, Message, travels
from countersign.wire.problem import oauth_error, problem, status_of_code
from countersign.wire.strict_json import MAX_BODY, parse_json, parse_value

__all__ = [
    "DETAILS_TYPE",
    "MAX_BODY",
    "MCP_VERSIONS",
    "ONCE_FIELDS",
    "TOOL_NAME",
    "TRAVELLING_FIELDS",
    "Call",
    "McpRequest",
    "Message",
    "base_methods",
    "canonical",
    "digest_of",
    "oauth_error",
    "parse_details",
    "parse_http",
    "parse_json",
    "parse_mcp",
    "parse_value",
    "problem",
    "status_of_code",
    "travels",
]
