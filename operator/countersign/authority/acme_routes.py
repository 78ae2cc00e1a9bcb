"""HTTP for the ACME resources: read the JWS, ask the desk, write the answer with a fresh nonce (RFC 8555 section 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI, Request  # noqa: TC002 - FastAPI resolves the annotations of its handlers
from fastapi.responses import JSONResponse, Response

from countersign.acme import AcmeProblem
from countersign.authority.answers import peer_of, read_body
from countersign.authority.exam import MAX_BODY
from countersign.errors import Invalid

if TYPE_CHECKING:
    from countersign.authority.acme_desk import AcmeDesk
    from countersign.authority.acme_desk import Request as AcmeRequest
    from countersign.authority.limits import Askers

__all__ = ["AcmeRoutes"]

_JOSE: Final = "application/jose+json"
_PEM: Final = "application/pem-certificate-chain"


@dataclass(frozen=True)
class AcmeRoutes:
    """The resources of every issuer below ``/acme/<issuer>``; ``seconds`` bounds how slow a body may come."""

    desk: AcmeDesk
    seconds: float
    askers: Askers

    def register(self, app: FastAPI) -> None:
        """Add the routes to ``app``."""
        app.get("/acme/{issuer}/directory")(self.directory)
        app.api_route("/acme/{issuer}/new-nonce", methods=["GET", "HEAD"])(self.nonce)
        for path, handler in (
            ("new-account", self.new_account),
            ("account/{name}", self.account),
            ("new-order", self.new_order),
            ("order/{name}", self.order),
            ("order/{name}/finalize", self.finalize),
            ("authz/{name}", self.authorization),
            ("challenge/{name}", self.challenge),
            ("certificate/{name}", self.certificate),
            ("revoke-cert", self.revoke),
        ):
            app.post(f"/acme/{{issuer}}/{path}")(handler)

    async def directory(self, request: Request, issuer: str) -> Response:
        """Answer the directory."""
        self.askers.address(peer_of(request))
        return JSONResponse(self.desk.directory(issuer), headers={"cache-control": "no-store"})

    async def nonce(self, request: Request, issuer: str) -> Response:
        """Answer newNonce: 200 to HEAD, 204 to GET."""
        self.askers.address(peer_of(request))
        self.desk.directory(issuer)
        return Response(status_code=200 if request.method == "HEAD" else 204, headers=await self._headers(issuer))

    async def new_account(self, request: Request, issuer: str) -> Response:
        """Answer newAccount."""
        account, made = await self.desk.new_account(issuer, "/new-account", await self._body(request, issuer))
        where = {"location": f"{self.desk.base(issuer)}/account/{account.id}"}
        return _json(request, {"status": "valid"}, status=201 if made else 200, more=where)

    async def account(self, request: Request, issuer: str, name: str) -> Response:
        """Answer an account, to itself."""
        found = await self._open(request, issuer, f"/account/{name}")
        if found.account.id != name:
            raise AcmeProblem("unauthorized", "not the account of this key")
        if found.payload:
            raise AcmeProblem("malformed", "an account is a key and has nothing to change")
        return _json(request, {"status": "valid"})

    async def new_order(self, request: Request, issuer: str) -> Response:
        """Answer newOrder."""
        name, document = await self.desk.new_order(await self._open(request, issuer, "/new-order"))
        return _json(request, document, status=201, more={"location": f"{self.desk.base(issuer)}/order/{name}"})

    async def order(self, request: Request, issuer: str, name: str) -> Response:
        """Answer an order."""
        found = await self._open(request, issuer, f"/order/{name}")
        return _json(request, await self.desk.order(found, name))

    async def finalize(self, request: Request, issuer: str, name: str) -> Response:
        """Answer finalize."""
        found = await self._open(request, issuer, f"/order/{name}/finalize")
        where = {"location": f"{self.desk.base(issuer)}/order/{name}"}
        return _json(request, await self.desk.finalize(found, name), more=where)

    async def authorization(self, request: Request, issuer: str, name: str) -> Response:
        """Answer an authorization."""
        found = await self._open(request, issuer, f"/authz/{name}")
        return _json(request, await self.desk.authorization(found, name))

    async def challenge(self, request: Request, issuer: str, name: str) -> Response:
        """Answer a challenge, with the way up to its authorization (7.5.1)."""
        found = await self._open(request, issuer, f"/challenge/{name}")
        index = f'<{self.desk.directory_url(issuer)}>;rel="index"'
        up = f'<{self.desk.base(issuer)}/authz/{name}>;rel="up"'
        return _json(request, await self.desk.challenge(found, name), more={"link": f"{index}, {up}"})

    async def certificate(self, request: Request, issuer: str, name: str) -> Response:
        """Answer a certificate."""
        found = await self._open(request, issuer, f"/certificate/{name}")
        pem = await self.desk.certificate(found, name)
        return Response(pem, media_type=_PEM, headers=request.state.acme_headers)

    async def revoke(self, request: Request, issuer: str) -> Response:
        """Answer revokeCert."""
        await self.desk.revoke(await self._open(request, issuer, "/revoke-cert"))
        return Response(status_code=200, headers=request.state.acme_headers)

    async def _open(self, request: Request, issuer: str, path: str) -> AcmeRequest:
        return await self.desk.open(issuer, path, await self._body(request, issuer))

    async def _body(self, request: Request, issuer: str) -> bytes:
        """Return the JWS; from here on every answer, a problem too, brings a nonce."""
        self.askers.address(peer_of(request))
        self.desk.directory(issuer)
        request.state.acme_headers = await self._headers(issuer)
        if request.headers.get("content-type", "").strip().lower() != _JOSE:
            raise AcmeProblem("malformed", f"Content-Type must be {_JOSE}", status=415)
        try:
            return await read_body(request, max_bytes=MAX_BODY, seconds=self.seconds)
        except Invalid as error:
            raise AcmeProblem("malformed", error.detail, error.code, status=413) from error

    async def _headers(self, issuer: str) -> dict[str, str]:
        return {
            "replay-nonce": await self.desk.nonce(),
            "link": f'<{self.desk.directory_url(issuer)}>;rel="index"',
            "cache-control": "no-store",
        }


def _json(request: Request, document: object, *, status: int = 200, more: dict[str, str] | None = None) -> Response:
    return JSONResponse(document, status_code=status, headers=request.state.acme_headers | (more or {}))
