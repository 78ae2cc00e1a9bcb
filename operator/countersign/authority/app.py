"""The HTTP application: ``/attest`` and ``/secret``, the ACME resources, and one translation of errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from countersign.authority.acme_routes import AcmeRoutes
from countersign.authority.answers import install, peer_of, read_body
from countersign.authority.exam import MAX_BODY

if TYPE_CHECKING:
    from countersign.authority.acme_desk import AcmeDesk
    from countersign.authority.attestation import AttestationDesk

__all__ = ["create_app"]

_BEARER: Final = "bearer "
_MAX_TOKEN: Final = 16384
_NO_STORE: Final = {"cache-control": "no-store"}


def create_app(attestation: AttestationDesk, acme: AcmeDesk, *, body_seconds: float = 10.0) -> FastAPI:
    """Return the application; it holds no state of its own. ``body_seconds`` bounds how slow a client may send."""
    app = FastAPI(title="Countersign authority", docs_url=None, redoc_url=None, openapi_url=None)
    install(app)

    @app.post("/attest")
    async def attest(request: Request) -> Response:
        attestation.askers.address(peer_of(request))
        body = await read_body(request, max_bytes=MAX_BODY, seconds=body_seconds)
        return JSONResponse(await attestation.attest(body, _bearer(request), peer_of(request)), headers=_NO_STORE)

    @app.post("/secret")
    async def secret(request: Request) -> Response:
        attestation.askers.address(peer_of(request))
        body = await read_body(request, max_bytes=MAX_BODY, seconds=body_seconds)
        return JSONResponse(await attestation.secret(body, _bearer(request), peer_of(request)), headers=_NO_STORE)

    AcmeRoutes(acme, body_seconds, attestation.askers).register(app)
    return app


def _bearer(request: Request) -> str | None:
    """Return the token of the one Authorization header, or None."""
    values = request.headers.getlist("authorization")
    if len(values) != 1 or not values[0].lower().startswith(_BEARER) or len(values[0]) > _MAX_TOKEN:
        return None
    return values[0][len(_BEARER) :].strip()
