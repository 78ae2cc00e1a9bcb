"""Leg E1 from the device's side (enrolment.md 2): what a signer and a node both send, and how answers are read.

Imported by its own name, because it needs an HTTP client.
"""

from __future__ import annotations

import base64
import json
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import httpx

from countersign.attest.trust import client_context, tls_fault
from countersign.errors import CODES, Denied, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from countersign.attest.device import Ak, AkKind, AttestationDevice, Endorsement
    from countersign.attest.trust import Trust

__all__ = ["AttestationClient", "b64", "prove", "refuses"]

_MAX_ANSWER: Final = 256 * 1024
_SECRET_BYTES: Final = 32
_BEARER: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class AttestationClient:
    """Sends the posts of E1; the bearer token is read from its file for each of them."""

    def __init__(self, http: httpx.AsyncClient, base: str, token_file: Path) -> None:
        """Use :meth:`to`."""
        self._http = http
        self._base = base
        self._token_file = token_file

    @classmethod
    @asynccontextmanager
    async def to(cls, trust: Trust, token_file: Path) -> AsyncIterator[AttestationClient]:
        """Yield a client of the authority: TLS 1.3, its host name checked, no redirect followed, no proxy taken."""
        async with httpx.AsyncClient(
            verify=client_context(trust.ca), timeout=15.0, follow_redirects=False, trust_env=False
        ) as http:
            yield cls(http, trust.authority_url, token_file)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Post ``body`` to ``/attest`` or ``/secret`` and return the answer.

        Raises:
            Denied: the authority's code, or ``attest.failed``.
            Unavailable: it does not answer, says to come back, or there is no token; ``attest.unavailable`` or its code.
        """
        try:
            token = self._token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable("attest.unavailable", "the pod's token is not readable") from error
        if not _BEARER.fullmatch(token):
            raise Unavailable("attest.unavailable", "the pod's token file holds no token")
        headers = {"authorization": f"Bearer {token}"}
        try:
            async with self._http.stream("POST", f"{self._base}{path}", json=body, headers=headers) as answer:
                content = await _bounded(answer)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            detail = f"the authority did not answer ({type(error).__name__}){tls_fault(error)}"
            raise Unavailable("attest.unavailable", detail) from error
        return _answer(answer.status_code, content)


async def prove(device: AttestationDevice, ak_type: AkKind, client: AttestationClient) -> bytes:
    """Make an AK, prove that the first endorsed EK is beside it, and return the secret that only this TPM could read.

    Raises:
        Denied: ``attest.ek_certificate`` without any endorsed EK; the authority's code.
        Unavailable: the TPM or the authority does not answer.
    """
    endorsements = [one for one in await device.endorsements() if one.certificates]
    if not endorsements:
        raise Denied("attest.ek_certificate", "the TPM has no endorsement key with a certificate")
    ak = await device.create_ak(ak_type)
    challenge = await client.post("/attest", _attest_body(endorsements[0], ak))
    secret = await device.activate(_bytes(challenge, "credential"), _bytes(challenge, "secret"))
    if len(secret) != _SECRET_BYTES:
        raise Unavailable("attest.unavailable", "the activated secret has an unexpected length")
    return secret


def refuses(status: int) -> bool:
    """Tell a no from a not now: after a 4xx who enrols waits a minute, after anything else it backs off."""
    return httpx.codes.BAD_REQUEST <= status < httpx.codes.INTERNAL_SERVER_ERROR


def b64(data: bytes) -> str:
    """Return standard base64, as everything in E1 is."""
    return base64.b64encode(data).decode("ascii")


def _attest_body(endorsement: Endorsement, ak: Ak) -> dict[str, Any]:
    return {
        "tpmInfo": {},
        "ek": b64(endorsement.spki),
        "ekCerts": [b64(one) for one in endorsement.certificates],
        "params": {
            "public": b64(ak.public),
            "createData": b64(ak.creation_data),
            "createAttestation": b64(ak.attest),
            "createSignature": b64(ak.signature),
        },
    }


async def _bounded(answer: httpx.Response) -> bytes:
    """Read an answer, but not much more than any of the authority's."""
    content = b""
    async for part in answer.aiter_bytes():
        content += part
        if len(content) > _MAX_ANSWER:
            raise Unavailable("attest.unavailable", "the authority's answer is too long")
    return content


def _answer(status: int, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if status == httpx.codes.OK and isinstance(value, dict):
        return value
    code = value.get("code") if isinstance(value, dict) else None
    known = code if isinstance(code, str) and code in CODES else None
    if refuses(status):
        raise Denied(known or "attest.failed", _text(value, "detail") or f"the authority answered {status}")
    detail = _text(value, "detail") if known else ""
    raise Unavailable(known or "attest.unavailable", detail or f"the authority answered {status}")


def _bytes(answer: dict[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(answer[name], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise Unavailable("attest.unavailable", "the authority's answer to /attest cannot be read") from error


def _text(value: Any, name: str) -> str:
    text = value.get(name, "") if isinstance(value, dict) else ""
    return text if isinstance(text, str) else ""
