"""Refusals as bytes: each code's status and form on leg T, and on legs C and G."""

from __future__ import annotations

import json

import pytest

from countersign.errors import CODES, title
from countersign.wire import oauth_error, problem


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("parse.syntax", 400, "invalid_request"),
        ("parse.size", 413, "invalid_request"),
        ("parse.encoding", 415, "invalid_request"),
        ("mcp.http_method", 405, "invalid_request"),
        ("mcp.batch", 400, "invalid_request"),
        ("http.path", 400, "invalid_request"),
        ("request.parameter", 400, "invalid_request"),
        ("request.grant", 400, "unsupported_grant_type"),
        ("request.resource", 400, "invalid_target"),
        ("request.details", 400, "invalid_authorization_details"),
        ("proof.missing", 400, "invalid_client"),
        ("digest.mismatch", 400, "invalid_client"),
        ("cert.chain", 400, "invalid_client"),
        ("session.life", 400, "invalid_client"),
        ("nonce.expired", 400, "use_nonce"),
        ("instance.revoked", 403, "access_denied"),
        ("device.not_approved", 403, "access_denied"),
        ("task.required", 403, "access_denied"),
        ("tool.unknown", 403, "access_denied"),
        ("policy.denied", 403, "access_denied"),
        ("approval.denied", 403, "access_denied"),
        ("approval.pending", 400, "authorization_pending"),
        ("approval.slow_down", 400, "slow_down"),
        ("environment.attestation_stale", 403, "use_fresh_attestation"),
        ("environment.key_tier_too_low", 403, "access_denied"),
        ("rate.limited", 429, "slow_down"),
        ("decide.failed", 503, "temporarily_unavailable"),
        ("decide.unavailable", 503, "temporarily_unavailable"),
        ("audit.unavailable", 503, "temporarily_unavailable"),
        ("replay.unavailable", 503, "temporarily_unavailable"),
        ("replay.store_reset", 503, "temporarily_unavailable"),
    ],
)
def test_oauth_errors(code: str, status: int, error: str) -> None:
    found, headers, body = oauth_error(code)
    fields = dict(headers)

    assert found == status
    assert json.loads(body) == {"error": error, "error_description": title(code), "code": code}
    assert fields["content-type"] == "application/json"
    assert fields["cache-control"] == "no-store"
    assert ("retry-after" in fields) is (status in (429, 503))


def test_an_oauth_error_says_what_is_known() -> None:
    _, headers, body = oauth_error(
        "approval.pending", description="ask", decision="d", approval="ns/a", interval=5, retry_after=7
    )

    assert json.loads(body) == {
        "error": "authorization_pending",
        "error_description": "ask",
        "code": "approval.pending",
        "decision": "d",
        "approval": "ns/a",
        "interval": 5,
    }
    assert dict(headers)["retry-after"] == "7"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("token.expired", 401),
        ("dpop.key", 401),
        ("proof.replayed", 401),
        ("digest.missing", 401),
        ("cert.chain", 401),
        ("session.key", 401),
        ("nonce.invalid", 401),
        ("pep.unknown", 401),
        ("pep.not_allowed", 403),
        ("call.args", 403),
        ("environment.attestation_stale", 403),
        ("tool.unknown", 403),
        ("request.origin", 403),
        ("parse.syntax", 400),
        ("mcp.params", 400),
        ("parse.size", 413),
        ("parse.encoding", 415),
        ("mcp.http_method", 405),
        ("replay.unavailable", 503),
        ("replay.store_reset", 503),
    ],
)
def test_problems(code: str, status: int) -> None:
    found, headers, body = problem(code, detail="why", decision="d")
    fields = dict(headers)

    assert found == status
    assert json.loads(body) == {
        "type": f"https://countersign.dev/problems/{code}",
        "title": title(code),
        "status": status,
        "code": code,
        "detail": "why",
        "decision": "d",
    }
    assert fields["content-type"] == "application/problem+json"
    assert fields.get("www-authenticate") == (
        f'Countersign error="invalid_token", code="{code}"' if status == 401 else None
    )
    assert fields.get("allow") == ("POST" if status == 405 else None)
    assert fields.get("retry-after") == ("1" if status == 503 else None)


def test_a_problem_without_more_says_no_more() -> None:
    assert set(json.loads(problem("parse.syntax")[2])) == {"type", "title", "status", "code"}


@pytest.mark.parametrize("code", sorted(CODES))
def test_no_code_is_a_yes(code: str) -> None:
    assert oauth_error(code)[0] >= 400
    assert problem(code)[0] >= 400
    assert oauth_error(code, description="\ud800\u00e9")[2].isascii()
