"""The admission port: read the review, ask one function, translate. Whatever goes wrong is a refusal that says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import structlog
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from countersign.errors import Invalid
from countersign_webhook.absent import no_such_route
from countersign_webhook.admission.kinds import GROUP, KINDS, Judge, validate_kind
from countersign_webhook.admission.pods import mutate_pod
from countersign_webhook.admission.review import NotAReview, Refused, Review, allow, parse_review, refuse
from countersign_webhook.decide.http import Gone, TooLate, read_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from countersign_webhook.context import WebhookContext

__all__ = ["admission_app"]

_MAX_BODY: Final = 8 * 1024 * 1024
_JSON: Final = "application/json"
_log = structlog.get_logger("countersign.webhook.admission")


def admission_app(context: WebhookContext) -> FastAPI:
    """Return the application of the admission port."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    settings = context.settings
    judge = Judge(context.source, issuer=settings.issuer, namespace=settings.namespace, grants=settings.grants)

    async def mutate(review: Review) -> dict[str, Any]:
        patch, warnings = await mutate_pod(review, context.source, context.injection, own_namespace=settings.namespace)
        return allow(review.uid, patch=patch, warnings=warnings)

    async def validate(review: Review) -> dict[str, Any]:
        validate_kind(review, judge, context.clock.now())
        return allow(review.uid)

    for path, answering in (("/mutate-pods", mutate), ("/validate", validate)):
        app.add_api_route(path, _route(context, path, answering), methods=["POST"], response_model=None)
    app.add_exception_handler(HTTPException, no_such_route)
    return app


def _route(
    context: WebhookContext, path: str, answering: Callable[[Review], Awaitable[dict[str, Any]]]
) -> Callable[[Request], Awaitable[Response]]:
    async def route(request: Request) -> Response:
        try:
            review = await _read(context, request)
        except (NotAReview, Invalid) as error:
            context.metrics.admissions.labels(path, "", "malformed").inc()
            return _malformed(error)
        except Gone:
            return Response(status_code=400)
        answer, outcome = await _answered(context, review, answering)
        context.metrics.admissions.labels(path, _bounded(review), outcome).inc()
        return JSONResponse(answer)

    return route


async def _read(context: WebhookContext, request: Request) -> Review:
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    body = await read_body(
        request.scope, request.receive, limit=_MAX_BODY, seconds=context.settings.limits.body_seconds
    )
    if media_type != _JSON:
        raise Invalid("parse.encoding", f"the body is {_JSON}")
    return parse_review(body)


async def _answered(
    context: WebhookContext, review: Review, answering: Callable[[Review], Awaitable[dict[str, Any]]]
) -> tuple[dict[str, Any], str]:
    """Ask; a refusal, stale caches and a bug are all answers with ``allowed: false``."""
    try:
        if context.unseen():
            raise Refused("countersign's view of the cluster is not current; try again", status=503)  # noqa: TRY301
        return await answering(review), "allowed"
    except Refused as refused:
        return refuse(review.uid, refused), "refused"
    except Exception:  # noqa: BLE001 - whatever a strange object does to us, the API server gets a no
        _log.exception("admission failed", kind=review.kind, operation=review.operation)
        return refuse(
            review.uid, Refused("countersign could not judge this object (see its log)", status=500)
        ), "failed"


def _malformed(error: NotAReview | Invalid) -> Response:
    status = 400
    if isinstance(error, Invalid):
        status = 408 if isinstance(error, TooLate) else {"parse.size": 413, "parse.encoding": 415}[error.code]
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "message": str(error)}
    return JSONResponse(body, status_code=status, headers={"connection": "close"})


def _bounded(review: Review) -> str:
    """Return a kind for a label: one of ours, Pod, or nothing."""
    return review.kind if (review.group == GROUP and review.kind in KINDS) or review.kind == "Pod" else ""
