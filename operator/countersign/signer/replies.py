"""The forms in which a signer answers by itself (wire.md 4.1): JSON-RPC errors at 200, problem documents otherwise."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from countersign.errors import CountersignError, Denied, Unavailable, title

if TYPE_CHECKING:
    from collections.abc import Sequence

    from countersign.signer.catalogue import Server
    from countersign.signer.refusal import Refused

__all__ = ["MODERN", "Reply", "error_reply", "plain_reply", "refusal_reply", "servers_reply", "status_of"]

MODERN: Final = "2026-07-28"
"""The revision of MCP whose transport has HTTP statuses and codes of its own for two kinds of refusal."""

_JSON: Final = (b"content-type", b"application/json")
_PROBLEM: Final = (b"content-type", b"application/problem+json")
_STATUS: Final = {"parse.size": 413, "parse.encoding": 415, "mcp.http_method": 405, "request.origin": 403}
_MODERN: Final = {
    "mcp.header_missing": (400, -32020),
    "mcp.header_mismatch": (400, -32020),
    "mcp.method_unknown": (404, -32601),
}


@dataclass(frozen=True)
class Reply:
    """A whole answer without its ``Content-Length``."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes


def status_of(error: CountersignError) -> int:
    """Return the HTTP status that an error of our own stands for (wire.md section 4)."""
    if isinstance(error, Unavailable):
        return 429 if error.code == "rate.limited" else 503
    if error.code in _STATUS:
        return _STATUS[error.code]
    return 403 if isinstance(error, Denied) else 400


def refusal_reply(request_id: str | int | None, refused: Refused, *, version: str | None = None) -> Reply:
    """Answer a refusal: a JSON-RPC error where the request has an id, else a problem document.

    ``version`` is the request's ``MCP-Protocol-Version``: 2026-07-28 wants its own status for some refusals, everything
    else is HTTP 200, the one form whose reason every client shows its caller.
    """
    if request_id is None:
        headers = [_PROBLEM]
        if refused.status == HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append((b"allow", b"POST"))
        if refused.retry_after is not None:
            headers.append((b"retry-after", str(refused.retry_after).encode()))
        return Reply(refused.status, headers, _problem(refused))
    data: dict[str, Any] = {"code": refused.code}
    for name in ("decision", "approval", "retry_after"):
        if (value := getattr(refused, name)) is not None:
            data[name] = value
    status, code = _MODERN.get(refused.code, (200, refused.status)) if version == MODERN else (200, refused.status)
    return _rpc(request_id, status, code, _message(refused), data)


def error_reply(request_id: str | int | None, status: int, message: str) -> Reply:
    """Answer a failure that is nobody's refusal: no reason code, so none is invented."""
    if request_id is None:
        body = {"type": "about:blank", "title": message, "status": status}
        return Reply(status, [_PROBLEM], json.dumps(body).encode())
    return _rpc(request_id, 200, status, message, {})


def plain_reply(status: int, detail: str) -> Reply:
    """Answer what is no tool call at all, for example an unknown path."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return Reply(status, [_PROBLEM], json.dumps(body).encode())


def servers_reply(servers: Sequence[Server]) -> Reply:
    """Say what is there: names, namespaces, protocols and paths, and nothing that an agent could not try anyway."""
    found = [
        {"name": one.name, "namespace": one.namespace, "protocol": one.protocol, "path": f"/{one.namespace}.{one.name}"}
        for one in servers
    ]
    return Reply(200, [_JSON], json.dumps({"servers": found}).encode())


def _rpc(request_id: str | int, status: int, code: int, message: str, data: dict[str, Any]) -> Reply:
    error: dict[str, Any] = {"code": code, "message": message, "data": data}
    return Reply(status, [_JSON], json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error}).encode())


def _message(refused: Refused) -> str:
    """Return the title, and behind it the reason of the rule that denied: crds.md 3.8 says that the caller sees it."""
    words = title(refused.code)
    by_rule = refused.code.startswith("policy.") and refused.detail not in {"", words}
    return f"{words}: {refused.detail}" if by_rule else words


def _problem(refused: Refused) -> bytes:
    document: dict[str, Any] = {
        "type": f"https://countersign.dev/problems/{refused.code}",
        "title": title(refused.code),
        "status": refused.status,
        "code": refused.code,
    }
    for name in ("detail", "decision", "approval"):
        if value := getattr(refused, name):
            document[name] = value
    return json.dumps(document).encode()
