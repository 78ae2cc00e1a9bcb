"""What is not there: the answer of all three ports to a path or method that they do not have, also one not built yet."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from fastapi import Request

__all__ = ["no_such_route"]


async def no_such_route(request: Request, error: Exception) -> Response:
    """Answer unknown paths (also ext_authz, which is not built) and methods with a problem document."""
    del request
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    return JSONResponse(body, status, headers, media_type="application/problem+json")
