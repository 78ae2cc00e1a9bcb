"""Each check of our ACME CA beyond RFC 8555 (enrolment.md section 3): the case that only it refuses, and what leaving it out lets in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest
from attest.test_csr import csr
from attest.test_statement import HOSTILE as HOSTILE_STATEMENTS
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import delete, update
from support.attestation import Lab, permanent_identifier
from support.enrolment import AGENT, CLUSTER, NAMESPACE, NODE, Account, AcmeOrder, Caller, Office, thing

from countersign import kube
from countersign.acme import URN
from countersign.authority import order_checks as checks
from countersign.authority.order_checks import CHALLENGE_STEPS, FINALIZE_STEPS, ORDER_STEPS, OrderStep
from countersign.authority.tables import AK_CERTIFICATES

Spoil = Callable[["Desk"], Awaitable[None]]


@dataclass
class Desk:
    """A signer that was admitted, with an account, before or after its order."""

    office: Office
    one: Caller
    admitted: dict[str, Any]
    account: Account

    @classmethod
    async def make(cls, office: Office) -> Desk:
        one = await office.signer()
        admitted = await one.admitted()
        return cls(office, one, admitted, await Account.make(one))

    @property
    def identifier(self) -> str:
        return str(self.admitted["identifier"])

    @property
    def instance(self) -> str:
        return self.identifier.rpartition(".")[2]

    async def ready(self) -> AcmeOrder:
        """Return an order whose challenge is valid."""
        order = await self.account.order(self.identifier)
        verdict = await order.answer(self.admitted)
        assert verdict.json()["status"] == "valid", verdict.text
        return order


@pytest.fixture
async def desk(office: Office) -> Desk:
    return await Desk.make(office)


@dataclass(frozen=True)
class Case:
    """What is wrong, the check that says so, the problem's type and code; whether without that check all would go well."""

    what: str
    step: OrderStep
    type: str
    code: str
    spoil: Spoil
    alone: bool = True


def edit(resource: kube.Resource, name: str, namespace: str | None = None, **spec: Any) -> Spoil:
    async def spoil(desk: Desk) -> None:
        desk.office.cluster.edit(resource, name, namespace, **spec)

    return spoil


def drop(resource: kube.Resource, name: str, namespace: str | None = None) -> Spoil:
    async def spoil(desk: Desk) -> None:
        desk.office.cluster.drop(resource, name, namespace)

    return spoil


async def instance_gone(desk: Desk) -> None:
    desk.office.cluster.drop(kube.AGENT_INSTANCES, desk.instance, NAMESPACE)


async def instance_going(desk: Desk) -> None:
    desk.office.cluster.going(kube.AGENT_INSTANCES, desk.instance, NAMESPACE)


async def instance_made_anew(desk: Desk) -> None:
    found = desk.office.cluster.find(kube.AGENT_INSTANCES, desk.instance, NAMESPACE)
    desk.office.cluster.put(kube.AGENT_INSTANCES, found | {"metadata": found["metadata"] | {"uid": "a-later-uid"}})


async def instance_revoked(desk: Desk) -> None:
    desk.office.cluster.edit(kube.AGENT_INSTANCES, desk.instance, NAMESPACE, state="Revoked")


async def agent_made_anew(desk: Desk) -> None:
    found = desk.office.cluster.find(kube.AGENT_IDENTITIES, AGENT, NAMESPACE)
    desk.office.cluster.put(kube.AGENT_IDENTITIES, found | {"metadata": found["metadata"] | {"uid": "a-later-uid"}})


async def device_made_anew(desk: Desk) -> None:
    found = desk.office.cluster.find(kube.DEVICES, NODE)
    desk.office.cluster.put(kube.DEVICES, found | {"metadata": found["metadata"] | {"uid": "a-later-uid"}})


def on_record(**values: Any) -> Spoil:
    async def spoil(desk: Desk) -> None:
        async with desk.office.context.store._engine.begin() as connection:
            await connection.execute(update(AK_CERTIFICATES).values(values))

    return spoil


async def off_record(desk: Desk) -> None:
    async with desk.office.context.store._engine.begin() as connection:
        await connection.execute(delete(AK_CERTIFICATES))


INSTANCE_CASES = [
    Case("it is gone", checks.instance_known, "unauthorized", "instance_unknown", instance_gone, alone=False),
    Case("it is going", checks.instance_known, "unauthorized", "instance_unknown", instance_going, alone=False),
    Case("it was revoked", checks.instance_active, "unauthorized", "instance_inactive", instance_revoked),
    Case(
        "another issuer's",
        checks.instance_of_this_issuer,
        "unauthorized",
        "instance_unknown",
        edit(kube.AGENT_IDENTITIES, AGENT, NAMESPACE, issuerRef={"name": "other"}),
        alone=False,
    ),
    Case(
        "its agent is gone",
        checks.instance_of_this_issuer,
        "unauthorized",
        "instance_unknown",
        drop(kube.AGENT_IDENTITIES, AGENT, NAMESPACE),
        alone=False,
    ),
    Case(
        "its agent is a later one of that name",
        checks.instance_of_this_issuer,
        "unauthorized",
        "instance_unknown",
        agent_made_anew,
        alone=False,
    ),
]
LATER_CASES = [
    Case(
        "a later one of that name",
        checks.instance_known,
        "unauthorized",
        "instance_unknown",
        instance_made_anew,
        alone=False,
    ),
    Case(
        "the device was denied",
        checks.device_still_approved,
        "unauthorized",
        "device_denied",
        edit(kube.DEVICES, NODE, state="Denied"),
    ),
    Case(
        "the device waits again",
        checks.device_still_approved,
        "unauthorized",
        "device_pending",
        edit(kube.DEVICES, NODE, state="Pending"),
    ),
    Case(
        "the device is gone", checks.device_still_approved, "unauthorized", "device_unknown", drop(kube.DEVICES, NODE)
    ),
    Case(
        "a later device of that name", checks.device_still_approved, "unauthorized", "device_unknown", device_made_anew
    ),
    Case("a12: not on record", checks.ak_on_record, "badAttestationStatement", "chain", off_record, alone=False),
    Case(
        "the AK was revoked", checks.ak_unrevoked, "badAttestationStatement", "chain", on_record(revoked=1), alone=False
    ),
    Case("the AK expired", checks.ak_unexpired, "badAttestationStatement", "chain", on_record(expires=1)),
    Case(
        "another instance's AK",
        checks.ak_of_instance,
        "badAttestationStatement",
        "identifier_mismatch",
        on_record(instance_uid="another"),
    ),
    Case(
        "another key at /secret",
        checks.key_of_secret,
        "badAttestationStatement",
        "csr_key",
        on_record(key_spki=b"another"),
    ),
]


def without(steps: tuple[OrderStep, ...], left_out: OrderStep) -> tuple[OrderStep, ...]:
    return tuple(step for step in steps if step is not left_out)


def problem(document: dict[str, Any], kind: str, code: str | None) -> None:
    assert document["type"] == URN + kind, document
    assert document.get("code") == (None if code is None else f"attest.{code}"), document


def named(case: Case) -> str:
    return f"{case.code}: {case.what}"


# newOrder


@pytest.mark.parametrize(
    "case",
    INSTANCE_CASES,
    ids=named,
)
async def test_new_order_refuses(desk: Desk, case: Case) -> None:
    await case.spoil(desk)
    answer = await desk.account.ask(desk.identifier)
    problem(answer.json(), "rejectedIdentifier", case.code)
    assert answer.status_code == 400
    desk.office.use(order_steps=without(ORDER_STEPS, case.step))
    answer = await desk.account.ask(desk.identifier)
    assert answer.status_code == 201 or not case.alone or case.step is checks.instance_of_this_issuer, answer.text


async def test_an_issuer_does_not_tell_of_another_issuers_instances(desk: Desk) -> None:
    desk.office.cluster.put(kube.IDENTITY_ISSUERS, thing("other", {"trustDomain": "other.example", "type": "Embedded"}))
    await desk.office.context.reconciler.pass_once()
    account = await Account.make(desk.one, "other")
    problem((await account.ask(desk.identifier)).json(), "rejectedIdentifier", "instance_unknown")
    desk.office.use(order_steps=without(ORDER_STEPS, checks.instance_of_this_issuer))
    assert (await account.ask(desk.identifier)).status_code == 201


@pytest.mark.parametrize(
    "identifier",
    [
        f"{CLUSTER}.{NAMESPACE}.nobody-bcdfg",
        f"other.{NAMESPACE}.{{name}}",
        f"{CLUSTER.upper()}.{NAMESPACE}.{{name}}",
        f"{CLUSTER}.{{name}}",
        "{name}",
        f"{CLUSTER}.{NAMESPACE}.{{name}}/1.2.3",
        f"{CLUSTER}.{NAMESPACE.upper()}.{{name}}",
        f"{CLUSTER}.{NAMESPACE}.{{name}}.",
        f" {CLUSTER}.{NAMESPACE}.{{name}}",
        f"{CLUSTER}.{NAMESPACE}.{{name}} ",
        f"{CLUSTER}.bill\u0456ng.{{name}}",
        f"{CLUSTER}.%2e.{{name}}",
        f"{CLUSTER}.*.*",
        "..",
    ],
)
async def test_an_identifier_that_is_no_instance_of_this_cluster(desk: Desk, identifier: str) -> None:
    answer = await desk.account.ask(identifier.format(name=desk.instance))
    assert answer.status_code == 400
    problem(answer.json(), "rejectedIdentifier", "instance_unknown")


async def test_without_the_check_of_the_cluster_an_order_fails_later(desk: Desk) -> None:
    desk.office.use(order_steps=without(ORDER_STEPS, checks.identifier_of_this_cluster))
    answer = await desk.account.ask(desk.identifier)
    assert (answer.status_code, answer.json()["code"]) == (503, "attest.failed")


@pytest.mark.parametrize(
    ("identifiers", "kind"),
    [
        ([], "malformed"),
        ([{"type": "permanent-identifier", "value": "{id}"}] * 2, "rejectedIdentifier"),
        ([{"type": "dns", "value": "example.com"}], "unsupportedIdentifier"),
        ([{"type": "hardware-module", "value": "{id}/1.2.3"}], "unsupportedIdentifier"),
        ([{"type": "permanent-identifier", "value": ""}], "malformed"),
        ([{"type": "permanent-identifier", "value": "a/b"}], "malformed"),
        ([{"type": "permanent-identifier", "value": "{id}/1.40"}], "malformed"),
        ([{"type": "permanent-identifier", "value": "{id}\x00"}], "rejectedIdentifier"),
        ([{"type": "permanent-identifier"}], "malformed"),
        ("all", "malformed"),
        ([{"type": "permanent-identifier", "value": "a" * 600}], "malformed"),
    ],
    ids=str,
)
async def test_an_order_names_exactly_one_permanent_identifier(desk: Desk, identifiers: Any, kind: str) -> None:
    for one in identifiers if isinstance(identifiers, list) else []:
        if "value" in one:
            one["value"] = one["value"].replace("{id}", desk.identifier)
    answer = await desk.account.ask(desk.identifier, identifiers=identifiers)
    problem(answer.json(), kind, None)
    assert answer.status_code == 400


async def test_without_that_check_an_order_without_a_name_fails_later(desk: Desk) -> None:
    desk.office.use(order_steps=without(ORDER_STEPS, checks.one_identifier))
    two = [{"type": "permanent-identifier", "value": desk.identifier}] * 2
    problem((await desk.account.ask("x", identifiers=two)).json(), "rejectedIdentifier", "instance_unknown")


async def test_a_client_does_not_choose_times_but_the_step_clis_zero_is_no_choice(desk: Desk) -> None:
    zero = "0001-01-01T00:00:00Z"
    assert (await desk.account.ask(desk.identifier, notBefore=zero, notAfter=zero)).status_code == 201
    chosen = {"notAfter": "2099-01-01T00:00:00Z"}
    problem((await desk.account.ask(desk.identifier, **chosen)).json(), "malformed", None)
    desk.office.use(order_steps=without(ORDER_STEPS, checks.no_validity_asked))
    assert (await desk.account.ask(desk.identifier, **chosen)).status_code == 201


async def test_b10_device_attest_01_is_all_that_is_offered(desk: Desk) -> None:
    answer = await desk.account.ask(desk.identifier)
    authorization = (await desk.account.post(answer.json()["authorizations"][0], None)).json()
    assert [one["type"] for one in authorization["challenges"]] == ["device-attest-01"]
    assert authorization["identifier"] == {"type": "permanent-identifier", "value": desk.identifier}
    assert len(authorization["challenges"][0]["token"]) >= 22


# the challenge


@pytest.mark.parametrize("case", INSTANCE_CASES + LATER_CASES, ids=named)
async def test_the_challenge_refuses(desk: Desk, case: Case) -> None:
    first, second = await desk.account.order(desk.identifier), await desk.account.order(desk.identifier)
    await case.spoil(desk)
    answer = await first.answer(desk.admitted)
    assert (answer.status_code, answer.json()["status"]) == (200, "invalid"), answer.text
    problem(answer.json()["error"], case.type, case.code)
    assert (await first.read())["status"] == "invalid"
    desk.office.use(challenge_steps=without(CHALLENGE_STEPS, case.step))
    answer = await second.answer(desk.admitted)
    # revoked or not, and on whose account the AK is, is looked at; what an AK off record is about cannot be
    well = case.alone or case.step in {checks.ak_unrevoked, checks.instance_of_this_issuer}
    assert (answer.status_code, answer.json().get("status")) == (200, "valid") or not well, answer.text


async def test_without_a_statement_there_is_none_to_verify(desk: Desk) -> None:
    first, second = await desk.account.order(desk.identifier), await desk.account.order(desk.identifier)
    answer = await desk.account.post(first.challenge["url"], {})
    problem(answer.json()["error"], "badAttestationStatement", "payload")
    desk.office.use(challenge_steps=without(CHALLENGE_STEPS, checks.statement_present))
    answer = await desk.account.post(second.challenge["url"], {})
    problem(answer.json()["error"], "badAttestationStatement", "payload")


async def test_without_its_verification_a_statement_proves_nothing(desk: Desk) -> None:
    order = await desk.account.order(desk.identifier)
    desk.office.use(challenge_steps=without(CHALLENGE_STEPS, checks.statement_verified))
    answer = await order.answer(desk.admitted)
    problem(answer.json()["error"], "badAttestationStatement", "chain")


async def test_b5_a_key_that_secret_did_not_see(desk: Desk) -> None:
    desk.one.key = await desk.one.device.create_key()
    first, second = await desk.account.order(desk.identifier), await desk.account.order(desk.identifier)
    answer = await first.answer(desk.admitted)
    problem(answer.json()["error"], "badAttestationStatement", "csr_key")
    desk.office.use(challenge_steps=without(CHALLENGE_STEPS, checks.key_of_secret))
    assert (await second.answer(desk.admitted)).json()["status"] == "valid"


async def test_b4_a_statement_for_another_challenge(desk: Desk) -> None:
    first, second = await desk.account.order(desk.identifier), await desk.account.order(desk.identifier)
    replayed = await desk.one.statement(desk.admitted, first.authorization)
    assert (await first.attest(replayed)).json()["status"] == "valid"
    problem((await second.attest(replayed)).json()["error"], "badAttestationStatement", "extra_data")


async def test_b4_a12_a_statement_for_another_account(desk: Desk) -> None:
    thief = await Account.make(desk.one)
    order = await thief.order(desk.identifier)
    seen = await desk.one.statement(desk.admitted, f"{order.challenge['token']}.{desk.account.jkt}")
    problem((await order.attest(seen)).json()["error"], "badAttestationStatement", "extra_data")


async def test_a12_another_tpms_statement_for_a_stolen_account(desk: Desk, office: Office) -> None:
    order = await desk.account.order(desk.identifier)
    thief = await office.signer(registered=False)
    statement = await thief.statement(desk.admitted, order.authorization)
    problem((await order.attest(statement)).json()["error"], "badAttestationStatement", "signature")


EARLY = [one for one in HOSTILE_STATEMENTS if one[0] in {"payload", "cbor", "fmt", "version", "algorithm", "chain"}]
"""What is seen before the chain; the laboratory's statements are under a root of its own, so the rest is below."""


@pytest.mark.parametrize(("code", "what", "make"), EARLY, ids=lambda part: part if isinstance(part, str) else "")
async def test_b11_each_hostile_statement_over_http(desk: Desk, code: str, what: str, make: Any) -> None:
    order = await desk.account.order(desk.identifier)
    answer = await order.attest(make()[:33_000])
    problem(answer.json()["error"], "badAttestationStatement", code)
    assert what


LAB_CODES = {
    "ak_profile": {"constraints": None},
    "identifier_missing": {"identifiers": ()},
    "identifier_mismatch": {"identifiers": (permanent_identifier("prod-eu.billing.other-bcdfg"),)},
    "identifier_ambiguous": {"more": True},
    "public_area": {"public": b"\x00", "name": b"\x00\x0b" + bytes(32)},
    "cert_info": {"magic": 1},
    "name": {"name": b"\x00\x0b" + bytes(32)},
    "signature_format": {"signature": b"\x00"},
    "extra_data": {"extra_data": bytes(32)},
    "chain": {},
}


@pytest.mark.parametrize("code", LAB_CODES)
async def test_a_certificate_of_our_own_ca_is_judged_and_must_be_on_record(desk: Desk, code: str) -> None:
    """Even who held the attestation CA's key could not order without a record of ours."""
    order = await desk.account.order(desk.identifier)
    own = permanent_identifier(desk.identifier)
    ca = desk.office.context.ca
    assert isinstance(ca.key, ec.EllipticCurvePrivateKey)
    lab = Lab(
        ca.certificate,
        ca.key,
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
        identifiers=(own,),
        extra_data=sha256(order.authorization.encode()).digest(),
    )
    change: dict[str, Any] = dict(LAB_CODES[code])
    if change.pop("more", False):
        change["identifiers"] = (own, permanent_identifier("prod-eu.billing.other-bcdfg"))
    answer = await order.attest(lab.but(**change).statement())
    problem(answer.json()["error"], "badAttestationStatement", code)


async def test_the_first_verdict_stays(desk: Desk) -> None:
    order = await desk.account.order(desk.identifier)
    assert (await order.attest(b"\xff")).json()["status"] == "invalid"
    again = await order.answer(desk.admitted)
    assert again.json()["status"] == "invalid"
    problem(again.json()["error"], "badAttestationStatement", "cbor")
    good = await desk.ready()
    assert (await good.attest(b"\xff")).json()["status"] == "valid"


async def test_an_outage_is_no_verdict(desk: Desk) -> None:
    order = await desk.account.order(desk.identifier)
    desk.office.cluster.down = True
    answer = await order.answer(desk.admitted)
    assert (answer.status_code, answer.json()["code"]) == (503, "attest.unavailable")
    assert "retry-after" in answer.headers
    desk.office.cluster.down = False
    assert (await order.answer(desk.admitted)).json()["status"] == "valid"


# finalize


@pytest.mark.parametrize("case", INSTANCE_CASES + LATER_CASES, ids=named)
async def test_finalize_refuses(desk: Desk, case: Case) -> None:
    first, second = await desk.ready(), await desk.ready()
    await case.spoil(desk)
    answer = await first.finalize()
    problem(answer.json(), "badCSR" if case.code == "csr_key" else case.type, case.code)
    assert answer.status_code in {400, 403}
    assert (await first.read())["status"] == "ready"
    assert "certificate" not in (desk.office.cluster.all(kube.AGENT_INSTANCES) or [{"status": {}}])[0]["status"]
    desk.office.use(finalize_steps=without(FINALIZE_STEPS, case.step))
    answer = await second.finalize()
    # publication asks once more whether the instance is Active and the AK unrevoked, with the status in its hands
    well = case.alone and case.step is not checks.instance_active
    assert answer.status_code == 200 or not well, answer.text


async def test_the_attestation_keys_certificate_expires_between_challenge_and_finalize(desk: Desk) -> None:
    order = await desk.ready()
    desk.office.clock.advance(timedelta(minutes=10))
    problem((await order.finalize()).json(), "badAttestationStatement", "chain")


NOBODY = x509.Name([])


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda _key, _name: b"junk", "csr_format"),
        (lambda key, _name: csr(key=key)[:-1] + b"\x00", "csr_signature"),
        (lambda _key, _name: csr(), "csr_key"),
        (lambda key, _name: csr(NOBODY, x509.UniformResourceIdentifier("spiffe://a/ns/b/sa/c"), key=key), "csr_names"),
        (lambda key, _name: csr(NOBODY, x509.DNSName("example.com"), key=key), "csr_names"),
        (lambda key, _name: csr(NOBODY, permanent_identifier("other"), key=key), "csr_names"),
        (lambda key, _name: csr(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")]), key=key), "csr_names"),
        (lambda key, _name: csr(key=key, extra=x509.BasicConstraints(ca=True, path_length=None)), "csr_names"),
        (lambda key, name: csr(NOBODY, permanent_identifier(name), x509.DNSName("a.b"), key=key), "csr_names"),
    ],
    ids=["junk", "signature", "another key", "SPIFFE ID", "DNS", "identifier", "CN", "CA", "identifier and DNS"],
)
async def test_b5_a_csr_that_is_not_the_keys_or_names_something(desk: Desk, make: Any, code: str) -> None:
    order = await desk.ready()
    key: Any = desk.one.key
    answer = await order.finalize(make(key.private_key, desk.identifier))
    problem(answer.json(), "badCSR", code)
    assert answer.status_code == 400
    assert (await order.finalize()).json()["status"] == "valid"


@pytest.mark.parametrize(
    "make",
    [
        lambda key, name: csr(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key=key),
        lambda key, name: csr(NOBODY, permanent_identifier(name), key=key),
    ],
    ids=["CN", "PermanentIdentifier"],
)
async def test_names_equal_to_the_order_are_borne_and_left_out(desk: Desk, make: Any) -> None:
    order = await desk.ready()
    key: Any = desk.one.key
    final = await order.finalize(make(key.private_key, desk.identifier))
    pem = await desk.account.post(final.json()["certificate"], None)
    leaf = x509.load_pem_x509_certificate(pem.content)
    assert not list(leaf.subject)
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert [type(name) for name in san.value] == [x509.UniformResourceIdentifier]


@pytest.mark.parametrize("step", [checks.csr_verified, checks.issuer_signs], ids=lambda step: step.__name__)
async def test_without_what_issuance_needs_nothing_is_issued(desk: Desk, step: OrderStep) -> None:
    order = await desk.ready()
    desk.office.use(finalize_steps=without(FINALIZE_STEPS, step))
    answer = await order.finalize()
    assert (answer.status_code, answer.json()["code"]) == (503, "attest.failed")


async def test_an_issuer_that_is_not_ready_signs_nothing(desk: Desk) -> None:
    order = await desk.ready()
    issuer = desk.office.cluster.find(kube.IDENTITY_ISSUERS, "default")
    told = [{"type": "Ready", "status": "False", "reason": "SecretInvalid"}]
    desk.office.cluster.put(kube.IDENTITY_ISSUERS, issuer | {"status": issuer["status"] | {"conditions": told}})
    answer = await order.finalize()
    assert (answer.status_code, answer.json()["code"]) == (503, "attest.issuer_not_ready")
    assert answer.headers["retry-after"] == "5"


def test_every_check_has_a_case() -> None:
    cases = {case.step for case in INSTANCE_CASES + LATER_CASES}
    own = {checks.one_identifier, checks.no_validity_asked, checks.identifier_of_this_cluster}
    own |= {checks.statement_present, checks.statement_verified, checks.csr_verified, checks.issuer_signs}
    assert cases | own == {*ORDER_STEPS, *CHALLENGE_STEPS, *FINALIZE_STEPS}
