"""Who asks for records, and what may they see? The API server's word for both, in numbered checks (wire.md 9.1)."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from countersign.audit import READER_SIGNER, Question, Statement, read_question
from countersign.errors import Denied, Invalid, Unavailable
from countersign.kube import AGENT_INSTANCES, CERTIFICATE_REQUESTS, KubeError, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from countersign.kube import Resource

__all__ = ["Accounts", "Readers"]

_ASKED_SECONDS: Final = 60
_STATEMENT_SECONDS: Final = 600
_VERB: Final = "audit"


class Accounts(Protocol):
    """What ``kube.Kube`` does: what the API server says of people."""

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> dict[str, Any]:
        """Return one object as it is now. Raises NotFound and KubeError."""

    async def review_access(self, who: Mapping[str, Any], attributes: Mapping[str, str]) -> bool:
        """Tell whether somebody may do something. Raises KubeError if nobody can say."""


class Readers:
    """Admits questions to the log of ``issuer``; without ``accounts`` nobody may ask."""

    def __init__(self, accounts: Accounts | None, *, issuer: str) -> None:
        """Keep both."""
        self._accounts, self._issuer = accounts, issuer

    async def admit(self, text: str | None, now: datetime) -> tuple[Question, str]:
        """Return the question of somebody who may have it answered, and that person's name.

        Raises
        ------
        Invalid
            ``audit.question`` for what is none.
        Denied
            ``audit.reader`` if it is not proven who asks, ``audit.not_allowed`` if they may not see these records.
        Unavailable
            ``audit.unavailable`` if the API server does not say.

        """
        statement = self._read(text)
        self._require_for_us(statement.question, now)
        request = await self._request(statement.question.reader)
        _require_statement(request, now)
        question = _verified(statement, request)
        who = _person(request)
        await self._require_allowed(who, question.namespace)
        return question, who["user"]

    def _read(self, text: str | None) -> Statement:
        """1: there is a question, of the right form."""
        try:
            return read_question(text or "")
        except ValueError as error:
            raise Invalid("audit.question", "Countersign-Question holds no question") from error

    def _require_for_us(self, question: Question, now: datetime) -> None:
        """2: it is asked of this issuer, and now: what was seen on its way is good for a minute, for the same answer."""
        if question.aud != self._issuer:
            raise Denied("audit.reader", "the question is for another webhook")
        if abs(now.timestamp() - question.iat) > _ASKED_SECONDS:
            raise Denied("audit.reader", f"asked more than {_ASKED_SECONDS} s ago or in the future; see the clocks")

    async def _request(self, name: str) -> dict[str, Any]:
        """3: the API server has the request that names the reader."""
        if self._accounts is None:
            raise Unavailable("audit.unavailable", "this process asks no API server")
        try:
            return await self._accounts.get(CERTIFICATE_REQUESTS, name)
        except NotFound as error:
            raise Denied("audit.reader", "no such CertificateSigningRequest") from error
        except KubeError as error:
            raise Unavailable("audit.unavailable", "the API server does not say who asks") from error

    async def _require_allowed(self, who: dict[str, Any], namespace: str | None) -> None:
        """6: the API server lets that person ``audit`` AgentInstances there; no namespace is every namespace."""
        attributes = {
            "group": AGENT_INSTANCES.group,
            "resource": AGENT_INSTANCES.plural,
            "verb": _VERB,
            **({} if namespace is None else {"namespace": namespace}),
        }
        if self._accounts is None:
            raise Unavailable("audit.unavailable", "this process asks no API server")
        try:
            allowed = await self._accounts.review_access(who, attributes)
        except KubeError as error:
            raise Unavailable("audit.unavailable", "the API server does not say what they may see") from error
        if allowed is not True:
            where = "all namespaces" if namespace is None else f"namespace {namespace}"
            raise Denied("audit.not_allowed", f"{who['user']} may not audit agentinstances.countersign.dev in {where}")


def _require_statement(request: dict[str, Any], now: datetime) -> None:
    """4: the request is a statement for us, made a few minutes ago, and nobody has denied it."""
    spec, status = request.get("spec") or {}, request.get("status") or {}
    if spec.get("signerName") != READER_SIGNER:
        raise Denied("audit.reader", f"the CertificateSigningRequest is not for {READER_SIGNER}")
    made = datetime.fromisoformat(request["metadata"]["creationTimestamp"])
    if (now - made).total_seconds() > _STATEMENT_SECONDS:
        raise Denied("audit.reader", "the CertificateSigningRequest is too old")
    if any(one.get("type") == "Denied" for one in status.get("conditions") or []):
        raise Denied("audit.reader", "the CertificateSigningRequest was denied")


def _verified(statement: Statement, request: dict[str, Any]) -> Question:
    """5: the question is signed by the key of the request."""
    try:
        csr = x509.load_pem_x509_csr(base64.b64decode(request["spec"]["request"], validate=True))
        key = csr.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise Denied("audit.reader", "a reader's key is P-256")
        if not csr.is_signature_valid:
            raise Denied("audit.reader", "the CertificateSigningRequest is not signed by its own key")
        return statement.verify(key)
    except (ValueError, KeyError, TypeError, binascii.Error, UnsupportedAlgorithm) as error:
        raise Denied("audit.reader", "the question is not signed by the key of the request") from error


def _person(request: dict[str, Any]) -> dict[str, Any]:
    """Return who made the request, by the API server's word: nobody can write or change these fields."""
    spec = request["spec"]
    if not isinstance(spec.get("username"), str) or not spec["username"]:
        raise Denied("audit.reader", "the CertificateSigningRequest names nobody")
    who: dict[str, Any] = {"user": spec["username"], "groups": spec.get("groups") or []}
    who |= {name: spec[name] for name in ("uid", "extra") if spec.get(name)}
    return who
