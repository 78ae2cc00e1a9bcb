"""The forms in which a signer answers by itself (wire.md 4.1): JSON-RPC errors at 200, problem documents otherwise."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from countersign.errors import CountersignError, Denied, Unavailable, title

if TYPE_CHECKING:
    from collections.abc import Sequence

    from countersign.signer.catalogue import Server
    from countersign.signer.refusal import Refused

__all__ = ["Reply", "error_reply", "plain_reply", "refusal_reply", "servers_reply", "status_of"]

_JSON: Final = (b"content-type", b"application/json")
_PROBLEM: Final = (b"content-type", b"application/problem+json")
_STATUS: Final = {"parse.size": 413, "parse.encoding": 415, "mcp.http_method": 405, "request.origin": 403}


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


def refusal_reply(request_id: str | int | None, refused: Refused) -> Reply:
    """Answer a refusal: 200 with a JSON-RPC error where the request has an id, else a problem document."""
    if request_id is None:
        headers = [_PROBLEM]
        if refused.status == 405:  # noqa: PLR2004 - Method Not Allowed
            headers.append((b"allow", b"POST"))
        if refused.retry_after is not None:
            headers.append((b"retry-after", str(refused.retry_after).encode()))
        return Reply(refused.status, headers, _problem(refused))
    data: dict[str, Any] = {"code": refused.code}
    if refused.decision:
        data["decision"] = refused.decision
    if refused.retry_after is not None:
        data["retry_after"] = refused.retry_after
    message = f"{title(refused.code)}: {refused.detail}" if refused.detail else title(refused.code)
    return _rpc(request_id, refused.status, message, data)


def error_reply(request_id: str | int | None, status: int, message: str) -> Reply:
    """Answer a failure that is nobody's refusal: no reason code, so none is invented."""
    if request_id is None:
        body = {"type": "about:blank", "title": message, "status": status}
        return Reply(status, [_PROBLEM], json.dumps(body).encode())
    return _rpc(request_id, status, message, {})


def plain_reply(status: int, detail: str) -> Reply:
    """Answer what is no tool call at all, for example an unknown path."""
    body = {"type": "about:blank", "title": "Not Found", "status": status, "detail": detail}
    return Reply(status, [_PROBLEM], json.dumps(body).encode())


def servers_reply(servers: Sequence[Server]) -> Reply:
    """Say what is there: names, namespaces, protocols and paths, and nothing that an agent could not try anyway."""
    found = [{"name": one.name, "namespace": one.namespace, "protocol": one.protocol} for one in servers]
    return Reply(200, [_JSON], json.dumps({"servers": found}).encode())


def _rpc(request_id: str | int, status: int, message: str, data: dict[str, Any]) -> Reply:
    error: dict[str, Any] = {"code": status, "message": message, "data": data}
    return Reply(200, [_JSON], json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error}).encode())


def _problem(refused: Refused) -> bytes:
    document: dict[str, Any] = {
        "type": f"https://countersign.dev/problems/{refused.code}",
        "title": title(refused.code),
        "status": refused.status,
        "code": refused.code,
    }
    if refused.detail:
        document["detail"] = refused.detail
    if refused.decision:
        document["decision"] = refused.decision
    return json.dumps(document).encode()
