"""Refusals as bytes: the OAuth error of leg T (wire.md 4) and the problem document of legs C and G (wire.md 6)."""

from __future__ import annotations

import json
from typing import Any, Final

from countersign.errors import title

__all__ = ["oauth_error", "problem", "status_of_code"]

Headers = tuple[tuple[str, str], ...]

_NO_STORE: Final = ("cache-control", "no-store")
_PROBLEMS: Final = "https://countersign.dev/problems/"
_DENIED: Final = (403, "access_denied")
_UNAVAILABLE: Final = (503, "temporarily_unavailable")
_TRY_AGAIN: Final = frozenset({429, 503})
_UNAUTHORIZED: Final = 401
_NOT_ALLOWED: Final = 405
_RETRY_SECONDS: Final = 1

_BY_CODE: Final[dict[str, tuple[int, str]]] = {
    "parse.size": (413, "invalid_request"),
    "parse.encoding": (415, "invalid_request"),
    "mcp.http_method": (405, "invalid_request"),
    "request.grant": (400, "unsupported_grant_type"),
    "request.resource": (400, "invalid_target"),
    "request.details": (400, "invalid_authorization_details"),
    "request.origin": (403, "invalid_request"),
    "environment.attestation_stale": (403, "use_fresh_attestation"),
    "approval.pending": (400, "authorization_pending"),
    "approval.slow_down": (400, "slow_down"),
    "rate.limited": (429, "slow_down"),
    "decide.failed": _UNAVAILABLE,
    "replay.store_reset": _UNAVAILABLE,
    "pep.unknown": (401, "invalid_client"),
    "audit.question": (400, "invalid_request"),
    "audit.reader": (401, "invalid_client"),
}
_BY_FAMILY: Final[dict[str, tuple[int, str]]] = {
    **dict.fromkeys(("parse", "mcp", "http", "request"), (400, "invalid_request")),
    **dict.fromkeys(("proof", "digest", "cert", "session"), (400, "invalid_client")),
    "nonce": (400, "use_nonce"),
}
_CREDENTIAL: Final = frozenset({"token", "dpop", "proof", "digest", "cert", "session", "nonce"})
"""Families that are a 401 where the credential is one of HTTP (legs C and G)."""


def oauth_error(
    code: str,
    *,
    description: str = "",
    decision: str | None = None,
    approval: str | None = None,
    interval: int | None = None,
    retry_after: int | None = None,
) -> tuple[int, Headers, bytes]:
    """Return status, headers and body that refuse a request on leg T with ``code``; no ``Content-Length``.

    ``description`` is for people; without one it is the code's title. ``decision`` is an audit record's id,
    ``approval`` a ToolApproval as ``namespace/name``, ``interval`` and ``retry_after`` are in whole seconds.
    """
    status, error = _lookup(code)
    body: dict[str, Any] = {"error": error, "error_description": description or title(code), "code": code}
    body |= _present(decision=decision, approval=approval, interval=interval)
    return status, (("content-type", "application/json"), _NO_STORE, *_retry(status, retry_after)), _dump(body)


def problem(
    code: str, *, detail: str = "", decision: str | None = None, retry_after: int | None = None
) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of the problem document for ``code``, as a verifier or gateway answers it.

    ``detail`` never repeats input. A 401 says which credential is wanted, a 405 which method.
    """
    status = status_of_code(code)
    body: dict[str, Any] = {"type": _PROBLEMS + code, "title": title(code), "status": status, "code": code}
    body |= _present(detail=detail or None, decision=decision)
    headers: Headers = (("content-type", "application/problem+json"), _NO_STORE, *_retry(status, retry_after))
    if status == _UNAUTHORIZED:
        headers = (*headers, ("www-authenticate", f'Countersign error="invalid_token", code="{code}"'))
    if status == _NOT_ALLOWED:
        headers = (*headers, ("allow", "POST"))
    return status, headers, _dump(body)


def status_of_code(code: str) -> int:
    """Return the HTTP status of a refusal on legs C and G."""
    if code.partition(".")[0] in _CREDENTIAL:
        return _UNAUTHORIZED
    return _lookup(code)[0]


def _lookup(code: str) -> tuple[int, str]:
    """Return status and OAuth error; whatever the table does not name is a plain no."""
    family, _, name = code.partition(".")
    if name == "unavailable":
        return _UNAVAILABLE
    return _BY_CODE.get(code) or _BY_FAMILY.get(family, _DENIED)


def _present(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _retry(status: int, retry_after: int | None) -> Headers:
    """Return ``Retry-After`` where the table wants one, or the caller gave one."""
    if retry_after is None:
        if status not in _TRY_AGAIN:
            return ()
        retry_after = _RETRY_SECONDS
    return (("retry-after", str(retry_after)),)


def _dump(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
