"""The bytes of one tool call (wire.md): read them strictly, name them by digest, sign them, and check who signed.

The signer builds, signs and sends; the webhook verifies leg T and mints tokens; the verifier at a tool server checks token,
proof and call. All three use these functions, so that there is one reading of a request and one set of refusals.

This room is pure: it opens no connection, reads no clock and no file, knows no web framework, and keeps nothing but the
nonces' key and the replay cache that its caller holds. What it refuses, it refuses with a code of the registry; a detail
never repeats input.
"""

from countersign.wire.call import DETAILS_TYPE, TOOL_NAME, Call, canonical, digest_of, parse_details
from countersign.wire.chain import chain_header, parse_chain
from countersign.wire.chain_cache import ChainCache
from countersign.wire.http_call import parse_http
from countersign.wire.keys import RequestKey, es256_verifies, jwk_of, raw_signature, read_jwk, thumbprint
from countersign.wire.leg_t import LEG_T_STEPS, InstanceView, LegT, VerifiedCaller, verify_leg_t
from countersign.wire.mcp import MCP_VERSIONS, McpRequest, base_methods, parse_mcp
from countersign.wire.message import ONCE_FIELDS, TRAVELLING_FIELDS, Message, travels
from countersign.wire.nonce import NonceCheck, Nonces
from countersign.wire.problem import oauth_error, problem, status_of_code
from countersign.wire.replay import MemoryReplayCache, ReplayCache
from countersign.wire.shared_replay import CALL_TOKEN_AHEAD, SCRIPT, ReplayCommands, SharedReplayCache
from countersign.wire.signature import content_digest, covered_components, sign_request
from countersign.wire.steps import Step
from countersign.wire.strict_json import MAX_BODY, parse_json, parse_value
from countersign.wire.token import ASSURANCES, KEY_TIERS, TokenClaims, mint_token
from countersign.wire.token_exam import TOKEN_STEPS, TokenExam, VerifiedToken, verify_token

__all__ = [
    "ASSURANCES",
    "CALL_TOKEN_AHEAD",
    "DETAILS_TYPE",
    "KEY_TIERS",
    "LEG_T_STEPS",
    "MAX_BODY",
    "MCP_VERSIONS",
    "ONCE_FIELDS",
    "SCRIPT",
    "TOKEN_STEPS",
    "TOOL_NAME",
    "TRAVELLING_FIELDS",
    "Call",
    "ChainCache",
    "InstanceView",
    "LegT",
    "McpRequest",
    "MemoryReplayCache",
    "Message",
    "NonceCheck",
    "Nonces",
    "ReplayCache",
    "ReplayCommands",
    "RequestKey",
    "SharedReplayCache",
    "Step",
    "TokenClaims",
    "TokenExam",
    "VerifiedCaller",
    "VerifiedToken",
    "base_methods",
    "canonical",
    "chain_header",
    "content_digest",
    "covered_components",
    "digest_of",
    "es256_verifies",
    "jwk_of",
    "mint_token",
    "oauth_error",
    "parse_chain",
    "parse_details",
    "parse_http",
    "parse_json",
    "parse_mcp",
    "parse_value",
    "problem",
    "raw_signature",
    "read_jwk",
    "sign_request",
    "status_of_code",
    "thumbprint",
    "travels",
    "verify_leg_t",
    "verify_token",
]
