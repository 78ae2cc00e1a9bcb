"""RFC 8555 as our CA speaks it: accounts, nonces, signatures, who may read what, revocation."""

from __future__ import annotations

import dataclasses
import json
from base64 import urlsafe_b64encode
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from support.enrolment import NAMESPACE, URL, Account, AcmeOrder, Caller, Office, thing

from countersign import kube
from countersign.acme import URN, sign, to_base64url

if TYPE_CHECKING:
    import httpx

BASE = f"{URL}/acme/default"
ENDPOINTS = (
    "new-account",
    "account/x",
    "new-order",
    "order/x",
    "order/x/finalize",
    "authz/x",
    "challenge/x",
    "certificate/x",
    "revoke-cert",
)


@pytest.fixture
async def one(office: Office) -> Caller:
    return await office.signer()


@pytest.fixture
async def account(one: Caller) -> Account:
    return await Account.make(one)


def problem(answer: httpx.Response, kind: str, status: int) -> None:
    document = answer.json()
    assert (answer.status_code, document["type"]) == (status, URN + kind), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["status"] == status


async def issued(one: Caller, account: Account) -> tuple[AcmeOrder, str, bytes]:
    """Return a valid order, its certificate's URL, and the PEM."""
    admitted = await one.admitted()
    order = await account.order(admitted["identifier"])
    await order.answer(admitted)
    url = (await order.finalize()).json()["certificate"]
    return order, url, (await account.post(url, None)).content


# directory and nonces


async def test_the_directory(one: Caller) -> None:
    async with one.http() as http:
        answer = await http.get("/acme/default/directory")
    assert answer.json() == {
        "newNonce": f"{BASE}/new-nonce",
        "newAccount": f"{BASE}/new-account",
        "newOrder": f"{BASE}/new-order",
        "revokeCert": f"{BASE}/revoke-cert",
        "meta": {"externalAccountRequired": False},
    }


@pytest.mark.parametrize("issuer", ["nobody", "external", "..", "%2e%2e", "DEFAULT"])
async def test_there_is_a_directory_for_embedded_issuers_only(office: Office, one: Caller, issuer: str) -> None:
    office.cluster.put(kube.IDENTITY_ISSUERS, thing("external", {"trustDomain": "a.example", "type": "ACME"}))
    async with one.http() as http:
        for path in ("directory", "new-nonce"):
            assert (await http.get(f"/acme/{issuer}/{path}")).status_code == 404


async def test_nonces_come_with_head_get_and_every_answer(one: Caller, account: Account) -> None:
    async with one.http() as http:
        head, get = await http.head("/acme/default/new-nonce"), await http.get("/acme/default/new-nonce")
    bad = await account.send(account.directory["newOrder"], b"junk")
    good = await account.post(account.kid, None)
    answers = (head, get, bad, good)
    assert [answer.status_code for answer in answers] == [200, 204, 400, 200]
    assert len({answer.headers["replay-nonce"] for answer in answers}) == 4
    assert {answer.headers["cache-control"] for answer in answers} == {"no-store"}
    assert {answer.headers["link"] for answer in answers} == {f'<{BASE}/directory>;rel="index"'}


async def test_a_replayed_request_is_refused(account: Account) -> None:
    url = account.directory["newOrder"]
    body = account.jws(account.kid, None)
    assert (await account.send(account.kid, body)).status_code == 200
    problem(await account.send(account.kid, body), "badNonce", 400)
    assert url


@pytest.mark.parametrize("nonce", ["made-up", "", "a b"])
async def test_a_nonce_that_is_not_ours(account: Account, nonce: str) -> None:
    account.nonce = nonce
    problem(await account.post(account.kid, None), "badNonce", 400)


async def test_a_nonce_lives_for_an_hour(office: Office, account: Account) -> None:
    office.clock.advance(timedelta(hours=1))
    problem(await account.post(account.kid, None), "badNonce", 400)


async def test_a_nonce_is_not_used_up_by_a_request_that_does_not_verify(account: Account) -> None:
    nonce = account.nonce
    forged = dataclasses.replace(account, key=ec.generate_private_key(ec.SECP256R1()))
    problem(await forged.post(account.kid, None), "malformed", 400)
    account.nonce = nonce
    assert (await account.post(account.kid, None)).status_code == 200


# accounts


async def test_an_account_is_a_key(one: Caller, account: Account) -> None:
    again = dataclasses.replace(account, kid="")
    answer = await again.post(account.directory["newAccount"], {"onlyReturnExisting": True})
    assert (answer.status_code, answer.headers["location"]) == (200, account.kid)
    fresh = await Account.make(one, register=False)
    answer = await fresh.post(fresh.directory["newAccount"], {"onlyReturnExisting": True})
    problem(answer, "accountDoesNotExist", 400)


async def test_the_step_clis_newaccount_is_taken(one: Caller) -> None:
    fresh = await Account.make(one, register=False)
    payload = {"contact": [], "onlyReturnExisting": False, "termsOfServiceAgreed": True}
    assert (await fresh.post(fresh.directory["newAccount"], payload)).status_code == 201


async def test_an_account_reads_itself_and_changes_nothing(one: Caller, account: Account) -> None:
    assert (await account.post(account.kid, None)).json() == {"status": "valid"}
    problem(await account.post(account.kid, {"contact": ["mailto:a@example.com"]}), "malformed", 400)
    other = await Account.make(one)
    problem(await other.post(account.kid, None), "unauthorized", 403)


@pytest.mark.parametrize(
    "kid", [f"{BASE}/account/nobody", "nobody", f"{URL}/acme/other/account/x", "https://evil.example/"]
)
async def test_a_kid_that_names_no_account(account: Account, kid: str) -> None:
    account.kid = kid
    problem(await account.ask("x"), "accountDoesNotExist", 400)


async def test_a_new_account_wants_jwk_and_everything_else_kid(one: Caller, account: Account) -> None:
    problem(await account.post(account.directory["newAccount"], {}), "malformed", 400)
    fresh = await Account.make(one, register=False)
    problem(await fresh.ask("x"), "malformed", 400)


async def test_an_account_key_that_is_too_weak(account: Account) -> None:
    url = account.directory["newAccount"]
    header = {"alg": "RS256", "nonce": account.nonce, "url": url, "jwk": {"kty": "RSA", "n": "AQAB", "e": "AQAB"}}
    body = flattened(header, {})
    problem(await account.send(url, body), "badPublicKey", 400)


def flattened(header: dict[str, Any], payload: dict[str, Any], signature: bytes = bytes(64)) -> bytes:
    parts = [urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=").decode() for one in (header, payload)]
    members = {"protected": parts[0], "payload": parts[1], "signature": to_base64url(signature)}
    return json.dumps(members).encode()


@pytest.mark.parametrize("alg", ["none", "HS256", "RS1", "EdDSA"])
async def test_an_algorithm_that_is_not_of_the_list(account: Account, alg: str) -> None:
    header = {"alg": alg, "nonce": account.nonce, "url": account.kid, "kid": account.kid}
    problem(await account.send(account.kid, flattened(header, {})), "badSignatureAlgorithm", 400)


async def test_a_request_made_for_another_resource(account: Account) -> None:
    body = account.jws(account.directory["newOrder"], None)
    problem(await account.send(account.kid, body), "unauthorized", 403)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b'{"protected":"e30","payload":"","signature":""}',
        b'{"protected":"e30","protected":"e30","payload":"","signature":""}',
        b'{"protected":"@","payload":"","signature":""}',
        b'{"protected":7,"payload":"","signature":""}',
        b'{"payload":"","signatures":[]}',
        b"[" * 60000,
    ],
    ids=range(10),
)
async def test_b11_a_body_that_is_no_jws(account: Account, body: bytes) -> None:
    for path in ENDPOINTS:
        answer = await account.send(f"{BASE}/{path}", body)
        assert answer.status_code == 400
        assert answer.json()["type"] in {URN + "malformed", URN + "badNonce"}
        assert answer.headers["replay-nonce"]


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_the_wrong_content_type_and_too_much(account: Account, path: str) -> None:
    problem(await account.send(f"{BASE}/{path}", b"{}", "application/json"), "malformed", 415)
    problem(await account.send(f"{BASE}/{path}", b" " * 65537), "malformed", 413)


@pytest.mark.parametrize(
    ("path", "payload", "kind"),
    [
        ("new-account", {"onlyReturnExisting": "yes"}, "malformed"),
        ("new-order", {}, "malformed"),
        ("new-order", {"identifiers": {}}, "malformed"),
        ("revoke-cert", {}, "malformed"),
        ("revoke-cert", {"certificate": "@"}, "malformed"),
        ("revoke-cert", {"certificate": "MAA"}, "malformed"),
    ],
    ids=str,
)
async def test_a_payload_that_cannot_be_read(
    one: Caller, account: Account, path: str, payload: dict[str, Any], kind: str
) -> None:
    asker = await Account.make(one, register=False) if path == "new-account" else account
    problem(await asker.post(f"{BASE}/{path}", payload), kind, 400)


# who may read what


async def test_another_accounts_things_are_not_there(one: Caller, account: Account) -> None:
    order, certificate, _ = await issued(one, account)
    other = await Account.make(one)
    authorization = order.document["authorizations"][0]
    for url in (order.url, authorization, order.challenge["url"], certificate):
        problem(await other.post(url, None), "malformed", 404)
    problem(await other.post(order.document["finalize"], {"csr": "MAA"}), "malformed", 404)


async def test_an_order_is_of_one_issuer(office: Office, one: Caller, account: Account) -> None:
    office.cluster.put(kube.IDENTITY_ISSUERS, thing("other", {"trustDomain": "b.example", "type": "Embedded"}))
    order, _, _ = await issued(one, account)
    name = order.url.rpartition("/")[2]
    elsewhere = f"{URL}/acme/other"
    number = account.kid.rpartition("/")[2]
    account.kid = f"{elsewhere}/account/{number}"
    problem(await account.post(f"{elsewhere}/order/{name}", None), "malformed", 404)


@pytest.mark.parametrize("path", ["order/x", "authz/x", "challenge/x", "certificate/x"])
async def test_what_does_not_exist(account: Account, path: str) -> None:
    problem(await account.post(f"{BASE}/{path}", None), "malformed", 404)


# the order's life


async def test_an_order_that_is_not_ready_is_not_finalized(one: Caller, account: Account) -> None:
    admitted = await one.admitted()
    order = await account.order(admitted["identifier"])
    problem(await order.finalize(), "orderNotReady", 403)
    await order.attest(b"junk")
    problem(await order.finalize(), "orderNotReady", 403)


async def test_an_order_expires_after_an_hour(office: Office, one: Caller, account: Account) -> None:
    admitted = await one.admitted()
    pending, ready = await account.order(admitted["identifier"]), await account.order(admitted["identifier"])
    await ready.answer(admitted)
    office.clock.advance(timedelta(hours=1))
    async with one.http() as http:
        account.nonce = (await http.head(account.directory["newNonce"])).headers["replay-nonce"]
    assert (await pending.read())["status"] == "invalid"
    assert (await pending.answer(admitted)).json()["status"] == "invalid"
    problem(await ready.finalize(), "orderNotReady", 403)


async def test_the_challenge_says_where_it_belongs(one: Caller, account: Account) -> None:
    order = await account.order((await one.admitted())["identifier"])
    answer = await account.post(order.challenge["url"], None)
    assert answer.json()["status"] == "pending"
    assert f'<{order.document["authorizations"][0]}>;rel="up"' in answer.headers["link"]


async def test_a_ready_order_shows_no_certificate_and_a_valid_one_does(one: Caller, account: Account) -> None:
    admitted = await one.admitted()
    order = await account.order(admitted["identifier"])
    assert (await order.read())["status"] == "pending"
    await order.answer(admitted)
    ready = await order.read()
    assert (ready["status"], "certificate" in ready) == ("ready", False)
    final = await order.finalize()
    assert final.headers["location"] == order.url
    valid = await order.read()
    assert valid == final.json()
    assert valid["status"] == "valid"


# revocation


async def test_a_revoked_certificate_is_forgotten_by_its_instance(
    office: Office, one: Caller, account: Account
) -> None:
    _, _, pem = await issued(one, account)
    assert "certificate" in office.instance()["status"]
    leaf = to_base64url(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER))
    other = await Account.make(one)
    problem(await other.post(f"{BASE}/revoke-cert", {"certificate": leaf}), "unauthorized", 403)
    assert "certificate" in office.instance()["status"]
    assert (await account.post(f"{BASE}/revoke-cert", {"certificate": leaf})).status_code == 200
    assert "certificate" not in office.instance()["status"]
    problem(await account.post(f"{BASE}/revoke-cert", {"certificate": leaf}), "alreadyRevoked", 400)


async def test_revoking_an_old_certificate_leaves_the_new_one(office: Office, one: Caller, account: Account) -> None:
    _, _, old = await issued(one, account)
    office.clock.advance(60)
    await issued(one, account)
    described = office.instance()["status"]["certificate"]
    leaf = to_base64url(x509.load_pem_x509_certificate(old).public_bytes(Encoding.DER))
    assert (await account.post(f"{BASE}/revoke-cert", {"certificate": leaf})).status_code == 200
    assert office.instance()["status"]["certificate"] == described


async def test_another_certificate_with_a_serial_number_of_ours_is_not_ours(
    office: Office, one: Caller, account: Account
) -> None:
    _, _, pem = await issued(one, account)
    mine = x509.load_pem_x509_certificate(pem)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder().subject_name(mine.issuer).issuer_name(mine.issuer).public_key(key.public_key())
    builder = builder.serial_number(mine.serial_number).not_valid_before(mine.not_valid_before_utc)
    forged = builder.not_valid_after(mine.not_valid_after_utc).sign(key, mine.signature_hash_algorithm)  # type: ignore[arg-type]
    payload = {"certificate": to_base64url(forged.public_bytes(Encoding.DER))}
    problem(await account.post(f"{BASE}/revoke-cert", payload), "unauthorized", 403)
    assert office.instance()["metadata"]["namespace"] == NAMESPACE


async def test_a_jws_with_kid_and_jwk_is_refused(account: Account) -> None:
    body = json.loads(sign(None, key=account.key, url=account.kid, nonce=account.nonce))
    assert body.keys() == {"protected", "payload", "signature"}
    problem(await account.send(account.kid, json.dumps(body).encode()), "malformed", 400)
