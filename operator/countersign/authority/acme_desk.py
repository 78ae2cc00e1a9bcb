"""The ACME CA: what each resource of RFC 8555 section 7 does; HTTP is ``app``'s business.

An account is a key and nothing more: what an order may get follows from the attestation, never from the account (A12).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509

from countersign.acme import (
    AcmeProblem,
    Finalize,
    Jws,
    NewAccount,
    NewOrder,
    RevokeCertificate,
    check_algorithm,
    check_jwk_only,
    check_kid_only,
    check_url,
    from_base64url,
    jwk_of,
    key_authorization,
    key_from_jwk,
    parse_jws,
    read_payload,
    thumbprint,
    verify,
)
from countersign.acme.encoding import read_json
from countersign.authority.issuance import Issuance, record_of
from countersign.authority.issue import prepare_identity
from countersign.authority.order_checks import CHALLENGE_STEPS, FINALIZE_STEPS, ORDER_STEPS, OrderExam, OrderStep
from countersign.authority.orders import (
    Action,
    OrderStatus,
    advance,
    authorization_of,
    challenge_of,
    order_of,
    status_of,
)
from countersign.authority.refusals import translated
from countersign.authority.tables import AccountRecord, CertificateRecord, OrderRecord
from countersign.authority.trust import life_of, spiffe_id
from countersign.errors import Denied, Unavailable

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from countersign.authority.ca import CertificateAuthority
    from countersign.authority.cluster import Cluster
    from countersign.authority.store import OrderStore
    from countersign.clock import Clock

__all__ = ["AcmeDesk", "Request"]

_NONCE_LIFE: Final = timedelta(hours=1)
_ORDER_LIFE: Final = timedelta(hours=1)
_TOKEN_BYTES: Final = 32
_ID_BYTES: Final = 16


@dataclass(frozen=True)
class Request:
    """A request whose signature, address and nonce are good; ``payload`` is empty for POST-as-GET."""

    account: AccountRecord
    payload: bytes
    issuer: str
    base: str


@dataclass(frozen=True)
class AcmeDesk:
    """Everything that the ACME resources need; ``url`` is the authority's public base URL."""

    cluster: Cluster
    store: OrderStore
    ak_roots: Callable[[], Sequence[x509.Certificate]]
    identity_cas: Callable[[str], CertificateAuthority | None]
    issuance: Issuance
    clock: Clock
    cluster_name: str
    url: str
    lock: asyncio.Lock
    order_steps: Sequence[OrderStep] = ORDER_STEPS
    challenge_steps: Sequence[OrderStep] = CHALLENGE_STEPS
    finalize_steps: Sequence[OrderStep] = FINALIZE_STEPS

    def base(self, issuer: str) -> str:
        """Return the base URL of an issuer's ACME resources."""
        return f"{self.url}/acme/{issuer}"

    def directory_url(self, issuer: str) -> str:
        """Return the URL of an issuer's directory."""
        return f"{self.base(issuer)}/directory"

    def directory(self, issuer: str) -> dict[str, Any]:
        """Answer the directory (7.1.1).

        :raises AcmeProblem: ``malformed`` with status 404 if there is no such Embedded issuer.
        """
        found = self.cluster.issuer(issuer)
        if found is None or found["spec"]["type"] != "Embedded":
            raise AcmeProblem("malformed", "no such directory", status=404)
        base = self.base(issuer)
        return {
            "newNonce": f"{base}/new-nonce",
            "newAccount": f"{base}/new-account",
            "newOrder": f"{base}/new-order",
            "revokeCert": f"{base}/revoke-cert",
            "meta": {"externalAccountRequired": False},
        }

    async def nonce(self) -> str:
        """Return a fresh nonce (6.5)."""
        value = secrets.token_urlsafe(_ID_BYTES)
        await self.store.add_nonce(value, int((self.clock.now() + _NONCE_LIFE).timestamp()))
        return value

    async def open(self, issuer: str, path: str, body: bytes) -> Request:
        """Check a request by a known account: form, algorithm, address, key, signature, nonce, in this order."""
        jws = self._parse(issuer, path, body)
        prefix = f"{self.base(issuer)}/account/"
        kid = check_kid_only(jws)
        account = await self.store.account(kid.removeprefix(prefix)) if kid.startswith(prefix) else None
        if account is None:
            raise AcmeProblem("accountDoesNotExist", "kid names no account of this server")
        verify(jws, key_from_jwk(dict(account.jwk)))
        await self._take_nonce(jws)
        return Request(account, jws.payload, issuer, self.base(issuer))

    async def new_account(self, issuer: str, path: str, body: bytes) -> tuple[AccountRecord, bool]:
        """Answer newAccount (7.3): return the account of the key, and whether it is new."""
        jws = self._parse(issuer, path, body)
        jwk = check_jwk_only(jws)
        key = key_from_jwk(jwk)
        verify(jws, key)
        await self._take_nonce(jws)
        wanted = read_payload(NewAccount, jws.payload)
        jkt = thumbprint(jwk)
        account = await self.store.account_by_key(jkt)
        if account is not None:
            return account, False
        if wanted.only_return_existing:
            raise AcmeProblem("accountDoesNotExist", "no account has this key")
        fresh = AccountRecord(_id(), jkt, jwk_of(key), int(self.clock.now().timestamp()))
        kept = await self.store.add_account(fresh)
        return kept, kept.id == fresh.id

    async def new_order(self, request: Request) -> tuple[str, dict[str, Any]]:
        """Answer newOrder (7.4): return the order's id and document."""
        exam = self._exam(request)
        exam.wanted = read_payload(NewOrder, request.payload)
        with translated("newOrder"):
            await _run(self.order_steps, exam)
        instance = exam.instance or {}
        order = OrderRecord(
            id=_id(),
            account=request.account.id,
            issuer=request.issuer,
            identifier=exam.identifier,
            namespace=exam.namespace,
            instance=exam.name,
            instance_uid=instance["metadata"]["uid"],
            token=secrets.token_urlsafe(_TOKEN_BYTES),
            created=int(exam.now.timestamp()),
            expires=int((exam.now + _ORDER_LIFE).timestamp()),
        )
        await self.store.add_order(order)
        return order.id, order_of(order, None, request.base, exam.now).document()

    async def order(self, request: Request, order_id: str) -> dict[str, Any]:
        """Answer an order; one whose certificate waits for its instance's status is tried again."""
        order = await self._order(request, order_id)
        certificate = await self.store.certificate_of_order(order.id)
        if status_of(order, certificate, self.clock.now()) is OrderStatus.PROCESSING and certificate is not None:
            certificate = await self.issuance.publish(order, certificate)
        return order_of(order, certificate, request.base, self.clock.now()).document()

    async def authorization(self, request: Request, order_id: str) -> dict[str, Any]:
        """Answer an authorization (7.5)."""
        order = await self._order(request, order_id)
        return authorization_of(order, request.base, self.clock.now()).document()

    async def challenge(self, request: Request, order_id: str) -> dict[str, Any]:
        """Answer a challenge (7.5.1): the first payload gets the verdict, later ones are told it."""
        order = await self._order(request, order_id)
        now = self.clock.now()
        if request.payload and status_of(order, None, now) is OrderStatus.PENDING:
            verdict = await self._judge(request, order)
            order = await self.store.decide_challenge(order.id, verdict)
        return challenge_of(order, request.base, now).document()

    async def finalize(self, request: Request, order_id: str) -> dict[str, Any]:
        """Answer finalize (7.4): issue once, and answer only when the instance's status names the certificate."""
        order = await self._order(request, order_id)
        csr = read_payload(Finalize, request.payload).csr
        async with self.lock:
            certificate = await self.store.certificate_of_order(order.id)
            if certificate is None:
                advance(status_of(order, None, self.clock.now()), Action.FINALIZE)
                certificate = await self._issue(request, order, csr)
            certificate = await self.issuance.publish(order, certificate)
        return order_of(order, certificate, request.base, self.clock.now()).document()

    async def certificate(self, request: Request, certificate_id: str) -> str:
        """Answer a certificate (7.4.2) as PEM, leaf first."""
        found = await self.store.certificate(certificate_id)
        if found is None or found.account != request.account.id or found.published is None:
            raise AcmeProblem("malformed", "no such certificate", status=404)
        return found.chain

    async def revoke(self, request: Request) -> None:
        """Answer revokeCert (7.6): the instance forgets the key, so the decision point does too.

        Only the account that ordered the certificate may ask; the certificate's own key signs no ACME requests here.
        """
        wanted = read_payload(RevokeCertificate, request.payload)
        try:
            leaf = x509.load_der_x509_certificate(from_base64url(wanted.certificate))
        except ValueError as error:
            raise AcmeProblem("malformed", "not a certificate") from error
        found = await self.store.certificate_by_serial(f"{leaf.serial_number:x}")
        if found is None or found.account != request.account.id or not _same(found, leaf):
            raise AcmeProblem("unauthorized", "not a certificate of this account")
        if found.revoked is not None:
            raise AcmeProblem("alreadyRevoked", "revoked before")
        await self.store.mark_certificate(found.id, "revoked", int(self.clock.now().timestamp()))
        await self.issuance.forget(found)

    def _parse(self, issuer: str, path: str, body: bytes) -> Jws:
        self.directory(issuer)
        jws = parse_jws(body)
        check_algorithm(jws)
        check_url(jws, f"{self.base(issuer)}{path}")
        return jws

    async def _take_nonce(self, jws: Jws) -> None:
        if not await self.store.take_nonce(jws.nonce, int(self.clock.now().timestamp())):
            raise AcmeProblem("badNonce", "the nonce is not one of ours, or was used")

    async def _order(self, request: Request, order_id: str) -> OrderRecord:
        order = await self.store.order(order_id)
        if order is None or order.account != request.account.id or order.issuer != request.issuer:
            raise AcmeProblem("malformed", "no such order", status=404)
        return order

    def _exam(self, request: Request, order: OrderRecord | None = None) -> OrderExam:
        exam = OrderExam(
            cluster=self.cluster,
            store=self.store,
            ak_roots=self.ak_roots(),
            identity_cas=self.identity_cas,
            cluster_name=self.cluster_name,
            issuer_name=request.issuer,
            now=self.clock.now(),
            order=order,
        )
        if order is not None:
            exam.identifier, exam.namespace, exam.name = order.identifier, order.namespace, order.instance
            exam.spki, exam.ak_serial = order.spki or b"", order.ak_serial or ""
        return exam

    async def _judge(self, request: Request, order: OrderRecord) -> dict[str, Any]:
        """Return the verdict on an attestation statement; an outage is no verdict."""
        exam = self._exam(request, order)
        exam.key_authorization = key_authorization(order.token, request.account.jkt)
        try:
            with translated("challenge"):
                exam.payload = _payload(request.payload)
                await self._told(self.challenge_steps, exam)
        except AcmeProblem as problem:
            return {"error": problem.document()}
        return {"validated": int(exam.now.timestamp()), "spki": exam.spki, "ak_serial": exam.ak_serial}

    async def _told(self, steps: Sequence[OrderStep], exam: OrderExam) -> None:
        """Run the checks; a refusal of the instance itself, known by its attestation key, is an Event on it."""
        try:
            await _run(steps, exam)
        except Denied as refusal:
            if exam.order is not None and await self._is_of_instance(exam, exam.order):
                await self.issuance.not_renewed(exam.instance, refusal)
            raise

    async def _is_of_instance(self, exam: OrderExam, order: OrderRecord) -> bool:
        """Tell whether an order is by who holds the instance's attestation key: anybody may make one in its name."""
        ak = exam.ak or (await self.store.ak_certificate(exam.ak_serial) if exam.ak_serial else None)
        return ak is not None and ak.instance_uid == order.instance_uid

    async def _issue(self, request: Request, order: OrderRecord, csr: str) -> CertificateRecord:
        """Check again, sign, and keep the certificate; it is not published yet."""
        exam = self._exam(request, order)
        with translated("finalize"):
            exam.csr = _csr(csr)
            await self._told(self.finalize_steps, exam)
        if exam.ca is None or exam.issuer is None or exam.identity is None or exam.public_key is None:
            raise Unavailable("attest.failed", "a check was left out that issuance needs")
        certificate = prepare_identity(
            exam.ca,
            public_key=exam.public_key,
            spiffe_id=spiffe_id(exam.issuer, exam.identity),
            life=life_of(exam.identity, exam.issuer, exam.ca.certificate.not_valid_after_utc, exam.now),
            now=exam.now,
        ).sign()
        return await self.store.add_certificate(record_of(_id(), order, certificate, exam.public_key))


async def _run(steps: Sequence[OrderStep], exam: OrderExam) -> None:
    for step in steps:
        await step(exam)


def _payload(data: bytes) -> dict[str, Any]:
    try:
        return read_json(data)
    except AcmeProblem as problem:
        raise Denied("attest.payload", "the payload is not strict JSON") from problem


def _csr(text: str) -> bytes:
    try:
        return from_base64url(text)
    except AcmeProblem as problem:
        raise Denied("attest.csr_format", "the CSR is not base64url without padding") from problem


def _same(found: CertificateRecord, leaf: x509.Certificate) -> bool:
    return x509.load_pem_x509_certificates(found.chain.encode())[0] == leaf


def _id() -> str:
    return secrets.token_hex(_ID_BYTES)
