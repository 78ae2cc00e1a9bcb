"""What anybody may ask on the calls port: nonces, the public keys, and the metadata of RFC 8414 (wire.md 3.3.2 and 5)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import structlog
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from countersign.errors import CountersignError, Invalid
from countersign.wire import oauth_error
from countersign_webhook.absent import no_such_route
from countersign_webhook.decide.guard import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from countersign_webhook.context import WebhookContext

__all__ = ["public_app"]

_JKT: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_COUNT: Final = re.compile(r"[1-9]|1[0-6]")
_QUERY: Final = re.compile(r"(?:(?:jkt|count)=[A-Za-z0-9_-]*(?:&(?!$)|$)){1,2}")
_NONCE_SECONDS: Final = 60
_log = structlog.get_logger("countersign.webhook.decide")


def public_app(context: WebhookContext) -> FastAPI:
    """Return the unauthenticated routes of the calls port; every other path of that port is a 404 of this application."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    routes: dict[str, Callable[[Request], Response]] = {
        "/nonce": lambda request: _nonces(context, request),
        "/.well-known/jwks.json": lambda _request: _jwks(context),
        "/.well-known/authzen-configuration": lambda _request: _authzen(context.settings.issuer),
        "/.well-known/oauth-authorization-server": lambda _request: _metadata(context.settings.issuer),
    }
    for path, answering in routes.items():
        app.add_api_route(path, _route(context, path, answering), methods=["GET"], response_model=None)
    app.add_exception_handler(HTTPException, no_such_route)
    return app


def _route(context: WebhookContext, path: str, answering: Callable[[Request], Response]) -> Any:
    async def route(request: Request) -> Response:
        try:
            response, code = answering(request), "ok"
        except CountersignError as error:
            response, code = _refuse(Refusal.of(error)), error.code
        except Exception:  # noqa: BLE001 - a stranger's request may find a bug, not a traceback
            _log.exception("answer failed", path=path)
            response, code = _refuse(Refusal("decide.failed", "see the webhook's log", retry_after=1)), "decide.failed"
        context.metrics.requests.labels(path, code).inc()
        return response

    return route


def _nonces(context: WebhookContext, request: Request) -> Response:
    context.address_rate.take(request.client.host if request.client else "")
    jkt, count = _nonce_query(request.scope["query_string"])
    now = int(context.clock.now().timestamp())
    nonces = [context.nonces.make(jkt, now) for _ in range(count)]
    return JSONResponse({"nonces": nonces, "expires_in": _NONCE_SECONDS}, headers={"cache-control": "no-store"})


def _nonce_query(query: bytes) -> tuple[str, int]:
    """Read ``jkt`` and ``count``, each at most once; raises Invalid ``request.parameter``."""
    text = query.decode("latin-1")
    names = [pair.partition("=")[0] for pair in text.split("&")]
    if not _QUERY.fullmatch(text) or len(set(names)) != len(names):
        raise Invalid("request.parameter", "jkt and count, once each, and nothing else")
    values = dict(pair.split("=", 1) for pair in text.split("&"))
    jkt, count = values.get("jkt", ""), values.get("count", "1")
    if not _JKT.fullmatch(jkt):
        raise Invalid("request.parameter", "jkt is a SHA-256 thumbprint in base64url")
    if not _COUNT.fullmatch(count):
        raise Invalid("request.parameter", "count is 1 to 16")
    return jkt, int(count)


def _jwks(context: WebhookContext) -> Response:
    keys = context.keys.jwks(int(context.clock.now().timestamp()))
    return JSONResponse(keys, headers={"cache-control": "max-age=300"})


def _metadata(issuer: str) -> Response:
    """Describe the token endpoint as RFC 8414 does. It knows no OAuth client: a signature is the authentication."""
    return JSONResponse(
        {
            "issuer": issuer,
            "token_endpoint": f"{issuer}/token",
            "jwks_uri": f"{issuer}/.well-known/jwks.json",
            "response_types_supported": [],
            "grant_types_supported": ["urn:ietf:params:oauth:grant-type:token-exchange"],
            "token_endpoint_auth_methods_supported": [],
            "authorization_details_types_supported": ["countersign_call"],
            "dpop_signing_alg_values_supported": ["ES256"],
        },
        headers={"cache-control": "max-age=300"},
    )


def _authzen(issuer: str) -> Response:
    """Describe the decision point as AuthZEN does; search is not offered, so its members are absent (wire.md 8)."""
    return JSONResponse(
        {
            "policy_decision_point": issuer,
            "access_evaluation_endpoint": f"{issuer}/access/v1/evaluation",
            "access_evaluations_endpoint": f"{issuer}/access/v1/evaluations",
        },
        headers={"cache-control": "max-age=300"},
    )


def _refuse(refusal: Refusal) -> Response:
    status, headers, body = oauth_error(refusal.code, description=refusal.detail, retry_after=refusal.retry_after)
    return Response(body, status, dict(headers))
