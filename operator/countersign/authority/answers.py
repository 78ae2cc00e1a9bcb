"""HTTP's side of an answer: bounded bodies, problem documents, and never a traceback."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import structlog
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from countersign.acme import AcmeProblem
from countersign.errors import CountersignError, Invalid, Unavailable, title

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

__all__ = ["SlowClient", "install", "peer_of", "problem_of", "read_body"]

_PROBLEM: Final = "application/problem+json"
_TYPE: Final = "https://countersign.dev/problems/"
_STATUSES: Final = {"rate.limited": 429, "parse.size": 413, "attest.token_missing": 401, "attest.token_invalid": 401}
_LOG: Final = structlog.get_logger(__name__)


class SlowClient(Exception):
    """A body that did not arrive in time."""


async def read_body(request: Request, *, max_bytes: int, seconds: float) -> bytes:
    """Return the body.

    :raises Invalid: ``parse.size``, before more than ``max_bytes`` were kept.
    :raises SlowClient: it took longer than ``seconds``.
    """
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > max_bytes:
                    raise Invalid("parse.size", f"more than {max_bytes} bytes")
                parts.append(part)
    except TimeoutError as error:
        raise SlowClient from error
    return b"".join(parts)


def peer_of(request: Request) -> str | None:
    """Return the address that the request came from."""
    return request.client.host if request.client is not None else None


def problem_of(error: CountersignError) -> JSONResponse:
    """Return the problem document of a refusal (enrolment.md section 2); ``detail`` holds nothing that was sent."""
    status = _STATUSES.get(error.code, 400 if isinstance(error, Invalid) else 403)
    headers = {"cache-control": "no-store"}
    if isinstance(error, Unavailable):
        status, headers["retry-after"] = _STATUSES.get(error.code, 503), str(error.retry_after)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        headers["connection"] = "close"  # what is left of the body is nobody's
    if status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    document = {
        "type": _TYPE + error.code,
        "title": title(error.code),
        "status": status,
        "detail": error.detail,
        "code": error.code,
    }
    return JSONResponse(document, status_code=status, headers=headers, media_type=_PROBLEM)


def install(app: FastAPI) -> None:
    """Give ``app`` its one translation of errors; what nobody expected is ``attest.failed`` and a log line."""

    @app.exception_handler(CountersignError)
    async def refused(request: Request, error: CountersignError) -> JSONResponse:
        return await acme(request, _as_acme(error)) if request.url.path.startswith("/acme/") else problem_of(error)

    @app.exception_handler(AcmeProblem)
    async def acme(request: Request, error: AcmeProblem) -> JSONResponse:
        headers: dict[str, str] = dict(getattr(request.state, "acme_headers", {}))
        if error.retry_after is not None:
            headers["retry-after"] = str(error.retry_after)
        if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            headers["connection"] = "close"
        return JSONResponse(error.document(), status_code=error.status, headers=headers, media_type=_PROBLEM)

    @app.exception_handler(SlowClient)
    async def slow(_request: Request, _error: SlowClient) -> JSONResponse:
        return _plain(408, "the body did not arrive in time", headers={"connection": "close"})

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: ClientDisconnect) -> JSONResponse:
        return _plain(400, "the body was not finished")

    @app.exception_handler(StarletteHTTPException)
    async def other(_request: Request, error: StarletteHTTPException) -> JSONResponse:
        return _plain(error.status_code, str(error.detail), headers=dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        _LOG.error("unexpected error", path=request.url.path, exc_info=error)
        return problem_of(Unavailable("attest.failed", "an unexpected error; it is in the log", retry_after=5))


def _as_acme(error: CountersignError) -> AcmeProblem:
    """Return what an ACME client is told about an error that no resource translated: an outage, or a bug of ours."""
    if error.code == "rate.limited" and isinstance(error, Unavailable):
        return AcmeProblem("rateLimited", "too many requests", error.code, retry_after=error.retry_after)
    status = 503 if isinstance(error, Unavailable) else 500
    retry_after = error.retry_after if isinstance(error, Unavailable) else None
    return AcmeProblem("serverInternal", error.detail, error.code, status=status, retry_after=retry_after)


def _plain(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": "attest.request",
    }
    return JSONResponse(document, status_code=status, headers=headers, media_type=_PROBLEM)
