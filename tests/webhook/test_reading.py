"""Who may read the log of decisions, and what of it: each check of wire.md 9.1 has a case that fails there."""

from __future__ import annotations

import base64
import copy
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from support.world import ISSUER, START, World

from countersign.audit import Filters, Question, sign_question
from countersign.console.asking import statement
from countersign.kube import CERTIFICATE_REQUESTS, KubeError, NotFound, Resource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

NAME = "countersign-audit-reader-x2x9p"
PERSON = {"username": "ana@example.com", "groups": ["support"], "uid": "u1", "extra": {"scope": ["a"]}}


class TwinAccounts:
    """The API server's word on people, in memory: one request, and who may audit which namespace."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.request = statement(self.key)
        self.request["metadata"] = {"name": NAME, "creationTimestamp": START.strftime("%Y-%m-%dT%H:%M:%SZ")}
        self.request["spec"] |= PERSON
        self.may: set[str | None] = {"billing"}
        self.asked: list[tuple[dict[str, Any], dict[str, str]]] = []
        self.down: set[str] = set()

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> dict[str, Any]:
        if "get" in self.down:
            raise KubeError("down")
        if (resource, name, namespace) != (CERTIFICATE_REQUESTS, NAME, None):
            raise NotFound("no such object", status=404)
        return copy.deepcopy(self.request)

    async def review_access(self, who: dict[str, Any], attributes: dict[str, str]) -> bool:
        if "review" in self.down:
            raise KubeError("down")
        self.asked.append((who, dict(attributes)))
        return attributes.get("namespace") in self.may


@pytest.fixture
def accounts() -> TwinAccounts:
    return TwinAccounts()


@pytest.fixture
async def world(tmp_path: Path, accounts: TwinAccounts) -> AsyncIterator[World]:
    world = await World.make(tmp_path, accounts=accounts)
    await world.call()
    await world.call("create_refund", {"charge": "ch_1"})
    yield world
    await world.context.aclose()


async def ask(
    world: World,
    accounts: TwinAccounts,
    *,
    namespace: str | None = "billing",
    key: ec.EllipticCurvePrivateKey | None = None,
    method: str = "GET",
    path: str = "/audit/decisions",
    filters: Filters | None = None,
    **claims: Any,
) -> httpx.Response:
    said = {"aud": ISSUER, "reader": NAME, "iat": int(world.clock.now().timestamp()), "limit": 10, **claims}
    question = sign_question(Question(namespace=namespace, filters=filters or Filters(), **said), key or accounts.key)
    transport = httpx.ASGITransport(app=world.app)
    async with httpx.AsyncClient(transport=transport, base_url=ISSUER) as client:
        return await client.request(method, path, headers={"countersign-question": question})


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "records" not in answer.json()


async def test_a_person_reads_the_records_of_a_namespace_and_the_api_server_is_asked(
    world: World, accounts: TwinAccounts
) -> None:
    answer = await ask(world, accounts, filters=Filters(answer="deny"))

    assert answer.status_code == 200
    [record] = answer.json()["records"]
    assert (record["status_code"], record["resources"][0]["name"]) == ("policy.default_deny", "create_refund")
    assert (answer.json()["more"], answer.json()["log"]) == (False, world.context.audit.name)
    who = {"user": "ana@example.com", "groups": ["support"], "uid": "u1", "extra": {"scope": ["a"]}}
    attributes = {"group": "countersign.dev", "resource": "agentinstances", "verb": "audit", "namespace": "billing"}
    assert accounts.asked == [(who, attributes)]


async def test_all_namespaces_take_the_right_to_all(world: World, accounts: TwinAccounts) -> None:
    refused(await ask(world, accounts, namespace=None), 403, "audit.not_allowed")

    accounts.may = {None}
    assert len((await ask(world, accounts, namespace=None)).json()["records"]) == 2
    refused(await ask(world, accounts), 403, "audit.not_allowed")  # the API server says it for each namespace itself


async def test_another_namespace_has_no_record_of_this_one(world: World, accounts: TwinAccounts) -> None:
    accounts.may = {"other"}

    assert (await ask(world, accounts, namespace="other")).json()["records"] == []


def other_signer(accounts: TwinAccounts) -> None:
    accounts.request["spec"]["signerName"] = "kubernetes.io/kube-apiserver-client"


def denied(accounts: TwinAccounts) -> None:
    accounts.request["status"] = {"conditions": [{"type": "Denied", "status": "True"}]}


def nobody(accounts: TwinAccounts) -> None:
    accounts.request["spec"]["username"] = ""


def no_request(accounts: TwinAccounts) -> None:
    accounts.request["spec"]["request"] = "AAAA"


def rsa_key(accounts: TwinAccounts) -> None:
    spoil_request(accounts, rsa.generate_private_key(65537, 2048))


def other_curve(accounts: TwinAccounts) -> None:
    spoil_request(accounts, ec.generate_private_key(ec.SECP384R1()))


def not_its_own(accounts: TwinAccounts) -> None:
    """A request with the reader's key in it, signed by somebody else: whose bytes were changed after signing."""
    der = bytearray(
        x509.load_pem_x509_csr(base64.b64decode(accounts.request["spec"]["request"])).public_bytes(
            serialization.Encoding.DER
        )
    )
    place = der.index(b"countersign audit reader")
    der[place : place + 11] = b"COUNTERSIGN"
    pem = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    accounts.request["spec"]["request"] = base64.b64encode(pem).decode()


def spoil_request(accounts: TwinAccounts, key: Any) -> None:
    name = x509.Name([])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    accounts.request["spec"]["request"] = base64.b64encode(csr.public_bytes(serialization.Encoding.PEM)).decode()


@pytest.mark.parametrize("spoil", [other_signer, denied, nobody, no_request, rsa_key, other_curve, not_its_own])
async def test_a_request_that_is_no_statement_for_us_names_nobody(
    world: World, accounts: TwinAccounts, spoil: Callable[[TwinAccounts], None]
) -> None:
    spoil(accounts)

    refused(await ask(world, accounts), 401, "audit.reader")
    assert accounts.asked == []


@pytest.mark.parametrize(
    "claims", [{"aud": "https://other.example.com"}, {"iat": 1}, {"iat": 1 << 40}, {"reader": "another-request"}]
)
async def test_a_question_for_another_webhook_of_another_time_or_by_nobody_is_refused(
    world: World, accounts: TwinAccounts, claims: dict[str, Any]
) -> None:
    refused(await ask(world, accounts, **claims), 401, "audit.reader")


async def test_a_question_by_another_key_than_the_requests_is_refused(world: World, accounts: TwinAccounts) -> None:
    refused(await ask(world, accounts, key=ec.generate_private_key(ec.SECP256R1())), 401, "audit.reader")


async def test_an_old_request_is_refused(world: World, accounts: TwinAccounts) -> None:
    world.clock.advance(timedelta(minutes=11))

    refused(await ask(world, accounts), 401, "audit.reader")


@pytest.mark.parametrize("what", ["get", "review"])
async def test_an_api_server_that_does_not_say_is_a_no(world: World, accounts: TwinAccounts, what: str) -> None:
    accounts.down = {what}

    refused(await ask(world, accounts), 503, "audit.unavailable")


async def test_without_an_api_server_nobody_may_ask(tmp_path: Path, accounts: TwinAccounts) -> None:
    lonely = await World.make(tmp_path)
    try:
        refused(await ask(lonely, accounts), 503, "audit.unavailable")
    finally:
        await lonely.context.aclose()


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/audit/decisions"), ("GET", "/audit/decisions?namespace=billing")]
)
async def test_the_question_is_in_the_header_alone(
    world: World, accounts: TwinAccounts, method: str, path: str
) -> None:
    refused(await ask(world, accounts, method=method, path=path), 400, "audit.question")


async def test_no_question_is_no_answer(world: World) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=world.app), base_url=ISSUER) as client:
        refused(await client.get("/audit/decisions"), 400, "audit.question")
        refused(await client.get("/audit/decisions", headers={"countersign-question": "a.b.c"}), 400, "audit.question")


async def test_a_log_that_cannot_be_read_is_no_answer(world: World, accounts: TwinAccounts) -> None:
    for path in (world.directory / "audit").glob("*.jsonl"):
        path.rename(path.with_suffix(".gone"))
        path.mkdir()

    refused(await ask(world, accounts), 503, "audit.unavailable")


async def test_one_question_at_a_time(world: World, accounts: TwinAccounts) -> None:
    import asyncio  # noqa: PLC0415 - this test alone

    answers = await asyncio.gather(*(ask(world, accounts) for _ in range(3)))

    assert sorted(answer.status_code for answer in answers) == [200, 429, 429]
