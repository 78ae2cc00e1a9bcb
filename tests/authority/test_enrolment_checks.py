"""Each numbered check of enrolment.md section 2, at both ends of leg E1: the case that only it refuses, and what leaving it out lets in."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from attest.test_ak import HOSTILE as HOSTILE_AKS
from support.attestation import make_ca
from support.enrolment import AGENT, NAMESPACE, NODE, POD, TOKEN, Caller, Office, b64, bare_pod, thing
from support.memory_cluster import OWN_NAMESPACE

from countersign import kube
from countersign.attest import SoftwareDevice
from countersign.authority import checks
from countersign.authority.checks import ATTEST_STEPS, COMMIT_STEPS, SECRET_STEPS, EnrolmentStep
from countersign.errors import CODES

if TYPE_CHECKING:
    import httpx

Spoil = Callable[[Office, Caller], Awaitable[None] | None]
SECOND_POD, SECOND_UID, SECOND_TOKEN = "refund-agent-second", "7d1c8a52-0000-4000-8000-000000000002", "token-two"


@dataclass(frozen=True)
class Case:
    """What is wrong, the check that says so, its code and status; whether without that check all would go well."""

    what: str
    step: EnrolmentStep
    code: str
    spoil: Spoil
    status: int = 403
    alone: bool = True


def caller(**changes: Any) -> Spoil:
    def spoil(_office: Office, one: Caller) -> None:
        for name, value in changes.items():
            setattr(one, name, value)

    return spoil


def review(**changes: Any) -> Spoil:
    def spoil(office: Office, _one: Caller) -> None:
        office.cluster.tokens[TOKEN] = dataclasses.replace(office.cluster.tokens[TOKEN], **changes)

    return spoil


def edit(resource: kube.Resource, name: str, namespace: str | None = None, **spec: Any) -> Spoil:
    def spoil(office: Office, _one: Caller) -> None:
        office.cluster.edit(resource, name, namespace, **spec)

    return spoil


def drop(resource: kube.Resource, name: str, namespace: str | None = None) -> Spoil:
    return lambda office, _one: office.cluster.drop(resource, name, namespace)


def going(resource: kube.Resource, name: str, namespace: str | None = None) -> Spoil:
    return lambda office, _one: office.cluster.going(resource, name, namespace)


def put(resource: kube.Resource, *objects: dict[str, Any]) -> Spoil:
    def spoil(office: Office, _one: Caller) -> None:
        for obj in objects:
            office.cluster.put(resource, obj)

    return spoil


def ended(phase: str) -> Spoil:
    def spoil(office: Office, _one: Caller) -> None:
        office.cluster.put(kube.PODS, office.cluster.find(kube.PODS, POD, NAMESPACE) | {"status": {"phase": phase}})

    return spoil


def another_pod_of_that_name(office: Office, _one: Caller) -> None:
    pod = office.cluster.find(kube.PODS, POD, NAMESPACE)
    office.cluster.put(kube.PODS, pod | {"metadata": pod["metadata"] | {"uid": "another-uid"}})


def moved_to(namespace: str) -> Spoil:
    """Let all of it be in ``namespace``, as if it were an agent's: opted in, with an identity and an injected pod."""

    def spoil(office: Office, _one: Caller) -> None:
        labels = {"countersign.dev/injection": "enabled"}
        office.cluster.put(kube.NAMESPACES, {"metadata": {"name": namespace, "labels": labels}, "spec": {}})
        for resource, name in ((kube.AGENT_IDENTITIES, AGENT), (kube.PODS, POD)):
            found = office.cluster.find(resource, name, NAMESPACE)
            office.cluster.put(resource, found | {"metadata": found["metadata"] | {"namespace": namespace}})
        office.cluster.tokens[TOKEN] = dataclasses.replace(office.cluster.tokens[TOKEN], namespace=namespace)

    return spoil


def issuer_says(status: str, reason: str) -> Spoil:
    def spoil(office: Office, _one: Caller) -> None:
        issuer = office.cluster.find(kube.IDENTITY_ISSUERS, "default")
        told = [{"type": "Ready", "status": status, "reason": reason}]
        office.cluster.put(kube.IDENTITY_ISSUERS, issuer | {"status": issuer["status"] | {"conditions": told}})

    return spoil


def as_it_was_before_injection(office: Office, _one: Caller) -> None:
    office.cluster.put(kube.PODS, bare_pod())


def with_another_container(office: Office, _one: Caller) -> None:
    pod = office.cluster.find(kube.PODS, POD, NAMESPACE)
    stranger = {"name": "debugger", "image": "busybox", "securityContext": {"runAsUser": 64174}}
    spec = pod["spec"] | {"ephemeralContainers": [stranger]}
    office.cluster.put(kube.PODS, pod | {"spec": spec})


def namespace_not_opted_in(office: Office, _one: Caller) -> None:
    office.cluster.put(kube.NAMESPACES, {"metadata": {"name": NAMESPACE, "labels": {}}, "spec": {}})


async def registered_twice(office: Office, one: Caller) -> None:
    await office.register(one.device, "worker-1-again")


async def of_another_pool(office: Office, one: Caller) -> None:
    office.cluster.put(kube.DEVICE_POOLS, thing("laptops", {"assurance": "Virtual", "ekRoots": ""}))
    await office.register(one.device, poolRef={"name": "laptops"})


TOKEN_CASES = [
    Case("no token", checks.bearer_present, "token_missing", caller(token=None), 401, alone=False),
    Case("a token nobody made", checks.token_authenticated, "token_invalid", caller(token="x"), 401, alone=False),
    Case(
        "c8: a token of a ServiceAccount alone",
        checks.token_bound_to_pod,
        "token_unbound",
        review(pod_name=None, pod_uid=None),
        alone=False,
    ),
    Case("a user's token", checks.token_bound_to_pod, "token_unbound", review(namespace=None), alone=False),
    Case("c8: the pod was deleted", checks.pod_exists, "pod_gone", drop(kube.PODS, POD, NAMESPACE), alone=False),
    Case("c8: the pod is going", checks.pod_exists, "pod_gone", going(kube.PODS, POD, NAMESPACE), alone=False),
    Case("c8: the pod's job is done", checks.pod_not_ended, "pod_gone", ended("Succeeded")),
    Case("c8: the pod was evicted", checks.pod_not_ended, "pod_gone", ended("Failed")),
    Case("a later pod of that name", checks.pod_has_uid, "pod_mismatch", another_pod_of_that_name),
    Case(
        "c7: the pod runs on another node",
        checks.pod_on_node_of_token,
        "pod_mismatch",
        edit(kube.PODS, POD, NAMESPACE, nodeName="worker-2"),
    ),
    Case(
        "the pod has no node",
        checks.pod_on_node_of_token,
        "pod_mismatch",
        edit(kube.PODS, POD, NAMESPACE, nodeName=None),
        alone=False,
    ),
]
AGENT_CASES = [
    Case("a pod beside the authority", checks.namespace_of_agents, "identity_none", moved_to(OWN_NAMESPACE)),
    Case(
        "a pod of the control plane",
        checks.identity_exists,
        "identity_none",
        moved_to("kube-system"),
        alone=False,
    ),
    Case(
        "no identity",
        checks.identity_exists,
        "identity_none",
        drop(kube.AGENT_IDENTITIES, AGENT, NAMESPACE),
        alone=False,
    ),
    Case(
        "an identity that is going",
        checks.identity_exists,
        "identity_none",
        going(kube.AGENT_IDENTITIES, AGENT, NAMESPACE),
        alone=False,
    ),
    Case(
        "two identities",
        checks.identity_unique,
        "identity_overlap",
        put(kube.AGENT_IDENTITIES, thing("zwilling", {"serviceAccountName": AGENT}, NAMESPACE)),
    ),
    Case("no issuer", checks.issuer_exposed, "issuer_not_ready", drop(kube.IDENTITY_ISSUERS, "default"), alone=False),
    Case(
        "an issuer for other namespaces",
        checks.issuer_exposed,
        "issuer_not_ready",
        edit(
            kube.IDENTITY_ISSUERS,
            "default",
            exposeTo={"from": "Selector", "selector": {"matchLabels": {"team": "payments"}}},
        ),
        alone=False,
    ),
    Case(
        "an external issuer, which is not built",
        checks.issuer_exposed,
        "issuer_not_ready",
        edit(kube.IDENTITY_ISSUERS, "default", type="ACME"),
        alone=False,
    ),
    Case(
        "an issuer that is not Ready",
        checks.issuer_ready,
        "issuer_not_ready",
        issuer_says("False", "SecretInvalid"),
        503,
    ),
    Case("c3: a pod without a signer", checks.pod_injected, "not_injected", as_it_was_before_injection),
    Case("c9: a debugger with the signer's uid", checks.pod_injected, "not_injected", with_another_container),
    Case("a namespace that did not opt in", checks.pod_injected, "not_injected", namespace_not_opted_in),
]
DEVICE_CASES = [
    Case("b2: an unknown TPM", checks.device_known, "device_unknown", drop(kube.DEVICES, NODE), alone=False),
    Case("b13: one EK, two Devices", checks.device_known, "device_unknown", registered_twice, alone=False),
    Case("b2: not approved yet", checks.device_approved, "device_pending", edit(kube.DEVICES, NODE, state="Pending")),
    Case("denied", checks.device_approved, "device_denied", edit(kube.DEVICES, NODE, state="Denied")),
    Case(
        "b9: a TPM of another node",
        checks.device_bound_to_node,
        "node_mismatch",
        edit(kube.DEVICES, NODE, binding={"type": "Node", "node": {"name": "worker-2"}}),
    ),
    Case(
        "a TPM of a person",
        checks.device_bound_to_node,
        "user_mismatch",
        edit(kube.DEVICES, NODE, binding={"type": "Users", "users": ["ana"]}),
    ),
    Case(
        "another pool is wanted",
        checks.pool_admitted,
        "pool_not_admitted",
        edit(kube.AGENT_IDENTITIES, AGENT, NAMESPACE, devicePoolRefs=[{"name": "vault"}]),
    ),
    Case("registered in a pool that does not vouch", checks.pool_admitted, "pool_not_admitted", of_another_pool),
    Case(
        "b1: a virtual TPM where hardware is wanted",
        checks.assurance_enough,
        "assurance_too_low",
        edit(kube.AGENT_IDENTITIES, AGENT, NAMESPACE, minAssurance="Hardware"),
    ),
    Case(
        "b12: a denied model",
        checks.model_allowed,
        "model_denied",
        edit(kube.DEVICE_POOLS, "racks", deniedModels=[{"manufacturer": "id:0"}]),
    ),
    Case(
        "a pool that judges PCRs, which is not built",
        checks.registers_not_judged,
        "quote_missing",
        edit(kube.DEVICE_POOLS, "racks", attestation={"pcrs": [{"index": 7, "sha256": ["00" * 32]}]}),
    ),
]
SHARED = TOKEN_CASES + AGENT_CASES + DEVICE_CASES


async def spoilt(case: Case, office: Office, one: Caller) -> None:
    outcome = case.spoil(office, one)
    if outcome is not None:
        await outcome


def without(steps: tuple[EnrolmentStep, ...], left_out: EnrolmentStep) -> tuple[EnrolmentStep, ...]:
    return tuple(step for step in steps if step is not left_out)


def refused(answer: httpx.Response, code: str, status: int = 403) -> None:
    """It is a problem document with this code, and it repeats nothing that was sent."""
    document = answer.json()
    assert (answer.status_code, document["code"]) == (status, f"attest.{code}"), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["status"] == status
    assert TOKEN not in answer.text
    assert ("retry-after" in answer.headers) == (status == 503)
    assert ("www-authenticate" in answer.headers) == (status == 401)


@pytest.mark.parametrize("case", SHARED, ids=lambda case: f"{case.code}: {case.what}")
async def test_attest_refuses(office: Office, case: Case) -> None:
    one = await office.signer()
    await spoilt(case, office, one)
    refused(await one.attest(), case.code, case.status)
    office.use(attest_steps=without(ATTEST_STEPS, case.step))
    answer = await one.attest()
    assert answer.json().get("code") != f"attest.{case.code}"
    assert answer.status_code == 200 or not case.alone, answer.text


@pytest.mark.parametrize("case", SHARED, ids=lambda case: f"{case.code}: {case.what}")
async def test_secret_refuses_what_became_wrong_in_between(office: Office, case: Case) -> None:
    one = await office.signer()
    first, second = await one.challenged(), await one.challenged()
    await spoilt(case, office, one)
    refused(await one.secret(first), case.code, case.status)
    assert office.cluster.all(kube.AGENT_INSTANCES) == []
    office.use(secret_steps=without(SECRET_STEPS, case.step))
    answer = await one.secret(second)
    assert answer.json().get("code") != f"attest.{case.code}"
    assert answer.status_code == 200 or not case.alone, answer.text


# what is asked at /attest only


async def test_without_the_check_of_its_members_a_body_fails_later(office: Office) -> None:
    one = await office.signer()
    refused(await one.attest(ek=None), "request", 400)
    office.use(attest_steps=without(ATTEST_STEPS, checks.attest_members))
    refused(await one.attest(ek=None), "failed", 503)


@pytest.mark.parametrize("value", [None, 7, "a b", "YQ", "YR==", "é", {}, [7]], ids=repr)
async def test_a_member_that_is_missing_of_another_type_or_not_base64(office: Office, value: Any) -> None:
    one = await office.signer()
    for name in ("ek", "ekCerts", "params", "public", "createData", "createAttestation", "createSignature"):
        refused(await one.attest(**{name: value}), "request", 400)


async def test_unknown_members_and_what_the_tpm_says_of_itself_are_ignored(office: Office) -> None:
    one = await office.signer()
    assert (await one.attest(tpmInfo={"model": 7}, more=[1])).status_code == 200


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"ek": "MAA="}, "ek_key"),
        ({"ekCerts": []}, "ek_certificate"),
        ({"ekCerts": ["MAA="]}, "ek_certificate"),
    ],
    ids=str,
)
async def test_an_endorsement_key_that_cannot_be_read(office: Office, change: dict[str, Any], code: str) -> None:
    one = await office.signer()
    refused(await one.attest(**change), code)


async def test_an_endorsement_key_of_another_tpm(office: Office) -> None:
    one, other = await office.signer(), await office.signer(registered=False)
    refused(await one.attest(ekCerts=(await other.attest_body())["ekCerts"]), "ek_mismatch")


async def test_b1_a_tpm_of_an_unknown_maker(office: Office) -> None:
    device = SoftwareDevice.make(make_ca("Somebody"))
    await office.register(device)
    one = await Caller.make(office, device, TOKEN)
    refused(await one.attest(), "ek_untrusted")
    office.use(attest_steps=without(ATTEST_STEPS, checks.endorsed))
    refused(await one.attest(), "failed", 503)


async def test_a_tpm_that_two_pools_vouch_for(office: Office) -> None:
    one = await office.signer()
    office.cluster.put(kube.DEVICE_POOLS, thing("twin", office.cluster.find(kube.DEVICE_POOLS, "racks")["spec"]))
    refused(await one.attest(), "pool_ambiguous")


async def test_a_pool_whose_roots_cannot_be_read_vouches_for_nobody(office: Office) -> None:
    one = await office.signer()
    office.cluster.edit(kube.DEVICE_POOLS, "racks", ekRoots="junk")
    refused(await one.attest(), "ek_untrusted")


async def test_an_endorsement_certificate_that_has_expired(office: Office) -> None:
    one = await office.signer()
    office.clock.advance(timedelta(days=31))
    refused(await one.attest(), "ek_expired")


@pytest.mark.parametrize("case", HOSTILE_AKS, ids=lambda case: f"{case[1]}: {case[2]}")
async def test_b6_an_attestation_key_that_no_tpm_made(office: Office, case: Any) -> None:
    one = await office.signer()
    names = ("public", "createData", "createAttestation", "createSignature")
    change = {name: b64(part) for name, part in zip(names, case[3], strict=True)}
    refused(await one.attest(**change), case[1])


async def second_pod(office: Office, first: Caller) -> Caller:
    """Another pod of the agent on the same node and the same TPM."""
    office.schedule(bare_pod(SECOND_POD, SECOND_UID), SECOND_TOKEN)
    return dataclasses.replace(first, token=SECOND_TOKEN)


async def test_an_attestation_key_of_another_live_instance(office: Office) -> None:
    first = await office.signer()
    await first.admitted()
    second = await second_pod(office, first)
    refused(await second.attest(), "ak_reused")
    office.use(attest_steps=without(ATTEST_STEPS, checks.ak_unused))
    assert (await second.attest()).status_code == 200


async def test_an_attestation_key_of_an_instance_that_was_revoked_is_free(office: Office) -> None:
    first = await office.signer()
    await first.admitted()
    instance = office.instance()["metadata"]
    office.cluster.edit(kube.AGENT_INSTANCES, instance["name"], NAMESPACE, state="Revoked")
    second = await second_pod(office, first)
    assert (await second.attest()).status_code == 200


# what is asked at /secret only


async def test_without_the_check_of_its_members_a_secret_fails_later(office: Office) -> None:
    one = await office.signer()
    challenge = await one.challenged()
    refused(await one.secret(challenge, key=None), "request", 400)
    office.use(secret_steps=without(SECRET_STEPS, checks.secret_members))
    refused(await one.secret(challenge, key=None), "failed", 503)


async def test_an_agents_secret_without_a_key_is_refused_and_stays_unused(office: Office) -> None:
    one = await office.signer()
    challenge = await one.challenged()
    body = await one.secret_body(challenge)
    refused(await one.post("/secret", {"secret": body["secret"]}), "request", 400)
    assert (await one.post("/secret", body)).status_code == 200
    office.use(secret_steps=without(SECRET_STEPS, checks.secret_beside_key))
    again = await one.secret_body(await one.challenged())
    refused(await one.post("/secret", {"secret": again["secret"]}), "failed", 503)


@pytest.mark.parametrize("value", [None, 7, "a b", "YQ"], ids=repr)
async def test_a_member_of_secret_that_cannot_be_read(office: Office, value: Any) -> None:
    one = await office.signer()
    challenge = await one.challenged()
    for name in ("secret", "key", "public", "attest", "signature"):
        refused(await one.secret(challenge, **{name: value}), "request", 400)
    assert (await one.secret(challenge)).status_code == 200


async def test_a_secret_that_nobody_handed_out(office: Office) -> None:
    one = await office.signer()
    change = {"secret": "A" * 43 + "="}
    refused(await one.secret(await one.challenged(), **change), "secret_invalid")
    office.use(secret_steps=without(SECRET_STEPS, checks.secret_known))
    refused(await one.secret(await one.challenged(), **change), "failed", 503)


async def test_a_secret_lives_for_sixty_seconds(office: Office) -> None:
    one = await office.signer()
    first, second = await one.challenged(), await one.challenged()
    office.clock.advance(59.9)
    assert (await one.secret(first)).status_code == 200
    office.clock.advance(0.1)
    body = await one.secret_body(second)
    refused(await one.post("/secret", body), "secret_invalid")
    office.use(secret_steps=without(SECRET_STEPS, checks.secret_unexpired))
    assert (await one.post("/secret", body)).status_code == 200


async def test_a_secret_is_of_one_pod(office: Office) -> None:
    first = await office.signer()
    challenge = await first.challenged()
    second = await second_pod(office, first)
    body = await first.secret_body(challenge)
    refused(await second.post("/secret", body), "secret_invalid")
    office.use(secret_steps=without(SECRET_STEPS, checks.secret_of_this_pod))
    assert (await second.post("/secret", body)).status_code == 200


async def test_a_secret_is_used_once(office: Office) -> None:
    one = await office.signer()
    body = await one.secret_body(await one.challenged())
    assert (await one.post("/secret", body)).status_code == 200
    refused(await one.post("/secret", body), "secret_invalid")
    office.use(secret_steps=without(SECRET_STEPS, checks.secret_unused))
    assert (await one.post("/secret", body)).status_code == 200


async def test_a_key_that_the_attestation_key_did_not_certify(office: Office) -> None:
    one = await office.signer()
    challenge, other = await one.challenged(), await one.challenged()
    body = await one.secret_body(challenge)
    wrong = await one.secret_body(other)
    refused(await one.post("/secret", body | {"key": wrong["key"]}), "key_proof")
    office.use(secret_steps=without(SECRET_STEPS, checks.key_proven))
    refused(await one.post("/secret", wrong | {"key": body["key"]}), "failed", 503)


async def test_b6_a_key_with_the_attributes_of_an_attestation_key(office: Office) -> None:
    one = await office.signer()
    body = await one.secret_body(await one.challenged())
    proof = body["key"] | {"public": b64(one.ak.public)}
    refused(await one.post("/secret", body | {"key": proof}), "key_attributes")


async def test_a_key_of_another_live_instance(office: Office) -> None:
    first = await office.signer()
    await first.admitted()
    second = await second_pod(office, first)
    second.ak = await second.device.create_ak("P256")
    one, two = await second.challenged(), await second.challenged()
    refused(await second.secret(one), "key_reused")
    office.use(secret_steps=without(SECRET_STEPS, checks.key_unused), commit_steps=())
    assert (await second.secret(two)).status_code == 200


@pytest.mark.parametrize("step", COMMIT_STEPS, ids=lambda step: step.__name__)
async def test_two_enrolments_at_once_cannot_both_find_a_key_unused(office: Office, step: EnrolmentStep) -> None:
    first = await office.signer()
    await first.admitted()
    second = await second_pod(office, first)
    if step is checks.key_unused:
        second.ak = await second.device.create_ak("P256")
    else:
        second.key = await second.device.create_key()
    early = {checks.ak_unused, checks.key_unused}
    office.use(
        attest_steps=tuple(one for one in ATTEST_STEPS if one not in early),
        secret_steps=tuple(one for one in SECRET_STEPS if one not in early),
    )
    one, two = await second.challenged(), await second.challenged()
    refused(await second.secret(one), "key_reused" if step is checks.key_unused else "ak_reused")
    office.use(
        attest_steps=tuple(one for one in ATTEST_STEPS if one not in early),
        secret_steps=tuple(one for one in SECRET_STEPS if one not in early),
        commit_steps=without(COMMIT_STEPS, step),
    )
    assert (await second.secret(two)).status_code == 200


# the order, and what is covered


def test_the_checks_of_attest_are_in_the_order_of_the_table() -> None:
    numbers = [int((step.__doc__ or "0")[0]) for step in ATTEST_STEPS]
    assert numbers == sorted(numbers)
    assert set(numbers) == {1, 2, 3, 4, 5, 6, 7}


def test_secret_asks_2_and_3_then_the_secret_then_the_key_then_4_and_6() -> None:
    names = [(step.__doc__ or "").split(":")[0] for step in SECRET_STEPS]
    kinds = [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]
    assert kinds == ["1", "2", "3", "secret", "key", "4", "6"]


def test_every_check_has_a_case() -> None:
    shared = {case.step for case in SHARED}
    own = {checks.attest_members, checks.secret_members, checks.endorsed, checks.ak_proven, checks.ak_unused}
    own |= {checks.secret_known, checks.secret_unexpired, checks.secret_of_this_pod, checks.secret_unused}
    own |= {checks.key_proven, checks.key_unused, checks.secret_beside_key}
    own |= {checks.pod_patient}  # test_limits.py
    assert shared | own == set(ATTEST_STEPS) | set(SECRET_STEPS)
    assert not shared & own
    assert {f"attest.{case.code}" for case in SHARED} <= CODES


async def test_the_first_failure_answers_and_nothing_later_is_looked_at(office: Office) -> None:
    one = await office.signer(token=None)
    office.cluster.drop(kube.PODS, POD, NAMESPACE)
    office.cluster.drop(kube.DEVICES, NODE)
    office.cluster.calls.clear()
    refused(await one.attest(ek=None), "request", 400)
    refused(await one.attest(), "token_missing", 401)
    assert office.cluster.calls == []
    one.token = "unknown"
    refused(await one.attest(), "token_invalid", 401)
    assert office.cluster.calls == [("create", "tokenreviews")]
    one.token = TOKEN
    refused(await one.attest(), "pod_gone")
    assert office.cluster.calls == [("create", "tokenreviews")] * 2 + [("get", "pods")]
