"""An ACME client for one purpose: one ``permanent-identifier``, one device-attest-01 challenge, one certificate.

The account key is a P-256 key in memory, new for each client: an enrolment leaves nothing behind that could be stolen.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ValidationError

from countersign.acme.encoding import to_base64url
from countersign.acme.jwk import jwk_of, thumbprint
from countersign.acme.jws import sign
from countersign.acme.messages import Authorization, Challenge, Directory, Order, key_authorization
from countersign.acme.problems import AcmeProblem

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from types import TracebackType

__all__ = ["AcmeClient"]

_MAX_ANSWER: Final = 256 * 1024
_POLLS: Final = 20
_CHALLENGE: Final = "device-attest-01"
_M = TypeVar("_M", bound=BaseModel)


class AcmeClient:
    """Speaks to one ACME directory; use it as an async context manager, or call :meth:`aclose`.

    Everything the CA refuses comes out as :class:`AcmeProblem` with the CA's type, detail and, from ours, code. A CA that
    does not answer, or answers what is no ACME, is ``AcmeProblem("serverInternal")`` with status 503 or 502.
    """

    def __init__(
        self,
        directory_url: str,
        *,
        ssl_context: ssl.SSLContext,
        timeout: float = 15.0,
        poll_seconds: float = 1.0,
    ) -> None:
        """Keep the addresses; nothing is sent yet. ``timeout`` and ``poll_seconds`` are in seconds."""
        self._directory_url = directory_url
        self._origin = _origin(directory_url)
        self._poll = poll_seconds
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._nonces: list[str] = []
        self._kid: str | None = None
        self._directory: Directory | None = None
        self._http = httpx.AsyncClient(verify=ssl_context, timeout=timeout, follow_redirects=False, trust_env=False)

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def obtain(
        self,
        identifier: str,
        *,
        attest: Callable[[str], Awaitable[bytes]],
        csr: Callable[[], Awaitable[bytes]],
    ) -> list[x509.Certificate]:
        """Return the chain of a new certificate for ``identifier``, leaf first.

        ``attest`` gets the key authorization and returns the attestation object (CBOR); ``csr`` returns the CSR (DER).

        :raises AcmeProblem: whatever step the CA refused.
        """
        directory = await self._open()
        order_url, order = await self._order(directory, identifier)
        if order.status == "pending":
            await self._authorize(order, attest)
            order = await self._until(order_url, {"ready", "valid"})
        if order.status == "ready":
            await self._post(order.finalize, {"csr": to_base64url(await csr())})
            order = await self._until(order_url, {"valid"})
        if order.certificate is None:
            raise AcmeProblem("serverInternal", "a valid order names no certificate", status=502)
        return _chain(await self._post(order.certificate, None))

    async def _open(self) -> Directory:
        """Read the directory and register the key, once."""
        if self._directory is None:
            self._directory = _read(Directory, await self._send("GET", self._directory_url))
        if self._kid is None:
            answer = await self._post(self._directory.new_account, {"termsOfServiceAgreed": True})
            self._kid = self._location(answer)
        return self._directory

    async def _order(self, directory: Directory, identifier: str) -> tuple[str, Order]:
        wanted = {"identifiers": [{"type": "permanent-identifier", "value": identifier}]}
        answer = await self._post(directory.new_order, wanted)
        return self._location(answer), _read(Order, answer)

    async def _authorize(self, order: Order, attest: Callable[[str], Awaitable[bytes]]) -> None:
        """Answer the one challenge of the one authorization."""
        if len(order.authorizations) != 1:
            raise AcmeProblem("serverInternal", "expected one authorization", status=502)
        authorization = _read(Authorization, await self._post(order.authorizations[0], None))
        challenge = next((one for one in authorization.challenges if one.type == _CHALLENGE), None)
        if challenge is None:
            raise AcmeProblem("unsupportedIdentifier", f"the CA does not offer {_CHALLENGE}", status=502)
        statement = await attest(key_authorization(challenge.token, thumbprint(jwk_of(self._key.public_key()))))
        answer = _read(Challenge, await self._post(challenge.url, {"attObj": to_base64url(statement)}))
        for _ in range(_POLLS):
            if answer.status == "valid":
                return
            if answer.status == "invalid":
                raise AcmeProblem.read(answer.error, status=403)
            await asyncio.sleep(self._poll)
            answer = _read(Challenge, await self._post(challenge.url, None))
        raise AcmeProblem("serverInternal", "the challenge stayed undecided", status=503)

    async def _until(self, order_url: str, wanted: set[str]) -> Order:
        for _ in range(_POLLS):
            order = _read(Order, await self._post(order_url, None))
            if order.status in wanted:
                return order
            if order.status == "invalid":
                raise AcmeProblem.read(order.error, status=403)
            await asyncio.sleep(self._poll)
        raise AcmeProblem("serverInternal", f"the order stayed {order.status}", status=503)

    async def _post(self, url: str, payload: dict[str, Any] | None) -> httpx.Response:
        """Sign and send; ``badNonce`` is tried again once, with the nonce that came with it (RFC 8555 section 6.5)."""
        try:
            return await self._post_once(url, payload)
        except AcmeProblem as problem:
            if problem.name != "badNonce":
                raise
        return await self._post_once(url, payload)

    async def _post_once(self, url: str, payload: dict[str, Any] | None) -> httpx.Response:
        body = sign(payload, key=self._key, url=url, nonce=await self._nonce(), kid=self._kid)
        headers = {
            "content-type": "application/jose+json",
            "accept": "application/json, application/pem-certificate-chain",
        }
        return await self._send("POST", url, content=body, headers=headers)

    async def _nonce(self) -> str:
        if not self._nonces:
            assert self._directory is not None, "the directory is read before anything is signed"
            await self._send("HEAD", self._directory.new_nonce)
        if not self._nonces:
            raise AcmeProblem("serverInternal", "the CA gave no nonce", status=502)
        return self._nonces.pop()

    async def _send(self, method: str, url: str, **more: Any) -> httpx.Response:
        """Send one request and keep the nonce of its answer.

        An ACME server may name any address; ours and step-ca name their own, and nothing else is followed (D19).
        """
        if _origin(url) != self._origin:
            raise AcmeProblem("serverInternal", "the CA named an address of another origin", status=502)
        try:
            async with self._http.stream(method, url, **more) as answer:
                await _bounded(answer)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise AcmeProblem(
                "serverInternal", f"the CA did not answer ({type(error).__name__})", status=503
            ) from error
        nonce = answer.headers.get("replay-nonce")
        if nonce:
            self._nonces[:] = [nonce]
        if answer.status_code >= httpx.codes.MULTIPLE_CHOICES:
            problem = AcmeProblem.read(_json(answer), status=answer.status_code)
            problem.retry_after = _seconds(answer.headers.get("retry-after"))
            raise problem
        return answer

    def _location(self, answer: httpx.Response) -> str:
        where: str | None = answer.headers.get("location")
        if not where:
            raise AcmeProblem("serverInternal", "the CA gave no Location", status=502)
        return where


async def _bounded(answer: httpx.Response) -> None:
    """Read the body, but no more of it than any ACME answer needs."""
    parts: list[bytes] = []
    size = 0
    async for part in answer.aiter_bytes():
        size += len(part)
        if size > _MAX_ANSWER:
            raise AcmeProblem("serverInternal", "the CA's answer is too long", status=502)
        parts.append(part)
    answer._content = b"".join(parts)  # noqa: SLF001 - what Response.aread does, with a bound


def _origin(url: str) -> tuple[str, str, int | None]:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise AcmeProblem("serverInternal", "the CA named no address", status=502) from error
    if parsed.scheme != "https":
        raise AcmeProblem("serverInternal", "an ACME address is https", status=502)
    return parsed.scheme, parsed.host, parsed.port


def _json(answer: httpx.Response) -> Any:
    try:
        return json.loads(answer.content)
    except (ValueError, RecursionError):
        return None


def _read(model: type[_M], answer: httpx.Response) -> _M:
    try:
        return model.model_validate(_json(answer))
    except ValidationError as error:
        raise AcmeProblem("serverInternal", f"the CA's {model.__name__.lower()} cannot be read", status=502) from error


def _chain(answer: httpx.Response) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(answer.content)
    except ValueError as error:
        raise AcmeProblem("serverInternal", "the CA's certificate cannot be read", status=502) from error


def _seconds(value: str | None) -> int | None:
    return int(value) if value is not None and value.isascii() and value.isdigit() else None
