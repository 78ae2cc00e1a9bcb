"""A node proposes its Device: what is made, what each check refuses, and that nobody else and nothing more comes of it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from support.enrolment import EK_ROOT, NODE, Caller, Office, b64, spki_digest, thing
from support.memory_cluster import OWN_NAMESPACE

from countersign import kube
from countersign.attest import SoftwareDevice
from countersign.authority import checks, proposals
from countersign.authority.checks import SECRET_STEPS, EnrolmentStep
from countersign.authority.proposals import NODE_ATTEST_STEPS, NODE_SECRET_STEPS

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

OTHER = "worker-2"


@pytest.fixture(autouse=True)
def requests_wanted(office: Office) -> None:
    office.cluster.edit(kube.DEVICE_POOLS, "racks", enrollment="Request")


def tpm() -> SoftwareDevice:
    return SoftwareDevice.make(EK_ROOT)


async def secret_only(one: Caller, challenge: dict[str, Any]) -> dict[str, Any]:
    """The body of a node's ``/secret``."""
    secret = await one.device.activate(base64.b64decode(challenge["credential"]), base64.b64decode(challenge["secret"]))
    return {"secret": b64(secret)}


async def proposed(one: Caller) -> httpx.Response:
    """Run a node's E1."""
    return await one.post("/secret", await secret_only(one, await one.challenged()))


def refused(answer: httpx.Response, code: str, status: int = 403) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, f"attest.{code}"), answer.text


def devices(office: Office) -> list[dict[str, Any]]:
    return office.cluster.all(kube.DEVICES)


async def test_a_node_proposes_its_device(office: Office) -> None:
    device = tpm()
    answer = await proposed(await office.node(device))
    assert (answer.status_code, answer.json()) == (200, {"device": NODE, "state": "Pending"})
    (made,) = devices(office)
    digest = spki_digest((await device.endorsements())[0].spki)
    assert made["spec"] == {
        "poolRef": {"name": "racks"},
        "ek": {"publicKeySHA256": digest},
        "binding": {"type": "Node", "node": {"name": NODE}},
        "state": "Pending",
    }
    assert made["status"]["manufacturer"].startswith("id:")
    assert not {"attestationTime", "assurance"} & made["status"].keys()
    assert office.cluster.events.reasons(f"Device/{NODE}") == ["Enrolled"]
    assert office.cluster.all(kube.AGENT_INSTANCES) == []
    assert await office.context.store.ak_certificates_of(ak_name=b"") == []
    records = office.records()
    assert [one["status_code"] for one in records] == ["policy.allowed"] * 2


async def test_the_device_is_found_again_with_what_people_decided(office: Office) -> None:
    one = await office.node(tpm())
    assert (await proposed(one)).json()["state"] == "Pending"
    assert (await proposed(one)).json() == {"device": NODE, "state": "Pending"}
    office.cluster.edit(kube.DEVICES, NODE, state="Approved")
    assert (await proposed(one)).json() == {"device": NODE, "state": "Approved"}
    assert "attestationTime" not in office.cluster.find(kube.DEVICES, NODE)["status"]
    assert len(devices(office)) == 1
    assert office.cluster.events.reasons(f"Device/{NODE}") == ["Enrolled"]


async def test_an_approved_proposal_is_a_device_like_any_other(office: Office) -> None:
    device = tpm()
    await proposed(await office.node(device))
    office.cluster.edit(kube.DEVICES, NODE, state="Approved")
    assert (await (await Caller.make(office, device, "token-of-the-pod")).admitted())["instance"]


async def test_an_agents_unknown_tpm_makes_nothing(office: Office) -> None:
    refused(await (await office.signer(registered=False)).attest(), "device_unknown")
    assert devices(office) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"namespace": "billing"},
        {"service_account": "countersign-node-2"},
        {"namespace": None, "service_account": None},
    ],
    ids=str,
)
async def test_nobody_else_is_a_node(office: Office, changes: dict[str, Any]) -> None:
    one = await office.node(tpm(), **changes)
    answer = await one.attest()
    assert answer.status_code == 403
    assert answer.json()["code"] in {"attest.identity_none", "attest.pod_gone", "attest.token_unbound"}
    assert devices(office) == []


async def test_an_agents_challenge_is_no_nodes_and_the_other_way_round(office: Office) -> None:
    device = tpm()
    await office.register(device)
    agent, node = await office.signer(), await office.node(device)
    body = await agent.secret_body(await agent.challenged())
    refused(await node.post("/secret", {"secret": body["secret"]}), "secret_invalid")
    body = await node.secret_body(await node.challenged())
    refused(await agent.post("/secret", body), "secret_invalid")


# the limits


async def test_one_device_of_a_node_waits_at_a_time(office: Office) -> None:
    assert (await proposed(await office.node(tpm()))).status_code == 200
    second = tpm()
    refused(await proposed(await office.node(second)), "pending_full")
    office.cluster.edit(kube.DEVICES, NODE, state="Approved")
    answer = (await proposed(await office.node(second))).json()
    digest = spki_digest((await second.endorsements())[0].spki)
    assert answer == {"device": f"{NODE}-{digest.removeprefix('sha256:')[:8]}", "state": "Pending"}


async def test_a_hundred_wait_in_all(office: Office) -> None:
    for number in range(100):
        ek = {"publicKeySHA256": f"sha256:{number:064x}"}
        binding = {"type": "Node", "node": {"name": f"n{number}"}}
        office.cluster.put(
            kube.DEVICES, thing(f"n{number}", {"poolRef": {"name": "racks"}, "ek": ek, "binding": binding})
        )
    one = await office.node(tpm())
    refused(await proposed(one), "pending_full")
    office.cluster.edit(kube.DEVICES, "n7", state="Denied")
    assert (await proposed(one)).status_code == 200


async def test_the_limits_hold_while_the_cache_is_behind(office: Office) -> None:
    one, other = await office.node(tpm()), await office.node(tpm())
    office.cluster.cache.hidden = {"devices"}
    assert (await proposed(one)).json()["device"] == NODE
    assert (await proposed(one)).json()["device"] == NODE
    refused(await proposed(other), "pending_full")
    assert len(devices(office)) == 1


async def test_an_endorsement_key_that_became_another_nodes_meanwhile(office: Office) -> None:
    device = tpm()
    one = await office.node(device)
    office.cluster.cache.hidden = {"devices"}
    await office.register(device, OTHER, binding={"type": "Node", "node": {"name": OTHER}})
    refused(await proposed(one), "node_mismatch")
    await office.register(device, "twin")
    refused(await proposed(one), "device_unknown")


async def test_a_name_that_a_person_takes_in_the_same_moment(office: Office) -> None:
    one = await office.node(tpm())
    binding = {"type": "Users", "users": ["ana"]}
    taken = thing(NODE, {"poolRef": {"name": "racks"}, "binding": binding, "state": "Approved"})
    office.cluster.before["create", "devices"] = lambda: office.cluster.put(kube.DEVICES, taken) and None
    assert (await proposed(one)).json()["device"].startswith(f"{NODE}-")


async def test_while_the_api_server_does_not_answer_nothing_is_made(office: Office) -> None:
    one = await office.node(tpm())
    for verb in ("list", "create"):
        body = await secret_only(one, await one.challenged())
        office.cluster.before[verb, "devices"] = lambda: setattr(office.cluster, "down", True)
        refused(await one.post("/secret", body), "unavailable", 503)
        office.cluster.down = False
    assert devices(office) == []


# each check, and what leaving it out lets in


@dataclass(frozen=True)
class Case:
    """What is wrong with a node's Device, and the check that says so; ``known`` where there is one.

    ``again``: where the Device is made or found, the inventory is looked at once more.
    """

    what: str
    step: EnrolmentStep
    code: str
    spoil: Callable[[Office], object]
    known: bool = True
    alone: bool = True
    again: bool = False


def edit(resource: kube.Resource, name: str, **spec: Any) -> Callable[[Office], object]:
    return lambda office: office.cluster.edit(resource, name, **spec)


def twice(office: Office) -> None:
    spec = office.cluster.find(kube.DEVICES, NODE)["spec"]
    office.cluster.put(kube.DEVICES, thing("twin", spec))


CASES = [
    Case(
        "the pool takes no requests",
        proposals.device_known_or_wanted,
        "device_unknown",
        edit(kube.DEVICE_POOLS, "racks", enrollment=None),
        known=False,
    ),
    Case(
        "b13: one EK, two Devices", proposals.device_known_or_wanted, "device_unknown", twice, alone=False, again=True
    ),
    Case("denied", proposals.device_not_denied, "device_denied", edit(kube.DEVICES, NODE, state="Denied")),
    Case(
        "c7: the TPM of another node",
        proposals.device_of_this_node,
        "node_mismatch",
        edit(kube.DEVICES, NODE, binding={"type": "Node", "node": {"name": OTHER}}),
        alone=False,
        again=True,
    ),
    Case(
        "a person's TPM",
        proposals.device_of_this_node,
        "user_mismatch",
        edit(kube.DEVICES, NODE, binding={"type": "Users", "users": ["ana"]}),
        alone=False,
    ),
    Case(
        "registered in a pool that does not vouch",
        proposals.device_of_this_pool,
        "pool_not_admitted",
        edit(kube.DEVICES, NODE, poolRef={"name": "vault"}),
    ),
    Case(
        "b12: a denied model",
        checks.model_allowed,
        "model_denied",
        edit(kube.DEVICE_POOLS, "racks", deniedModels=[{"manufacturer": "id:0"}]),
        known=False,
    ),
    Case(
        "a pool that judges PCRs, which is not built",
        checks.registers_not_judged,
        "quote_missing",
        edit(kube.DEVICE_POOLS, "racks", attestation={"pcrs": [{"index": 7, "sha256": ["00" * 32]}]}),
        known=False,
    ),
]


def without(steps: tuple[EnrolmentStep, ...], left_out: EnrolmentStep) -> tuple[EnrolmentStep, ...]:
    return tuple(step for step in steps if step is not left_out)


async def prepared(office: Office, case: Case) -> Caller:
    device = tpm()
    if case.known:
        office.cluster.put(kube.DEVICE_POOLS, thing("vault", {"assurance": "Virtual", "enrollment": "Request"}))
        await office.register(device, state="Pending")
    return await office.node(device)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.code}: {case.what}")
async def test_attest_refuses(office: Office, case: Case) -> None:
    one = await prepared(office, case)
    case.spoil(office)
    refused(await one.attest(), case.code)
    office.use(node_attest_steps=without(NODE_ATTEST_STEPS, case.step))
    answer = await one.attest()
    assert answer.json().get("code") != f"attest.{case.code}"
    assert answer.status_code == 200 or not case.alone, answer.text


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.code}: {case.what}")
async def test_secret_refuses_what_became_wrong_in_between(office: Office, case: Case) -> None:
    one = await prepared(office, case)
    first, second = await one.challenged(), await one.challenged()
    case.spoil(office)
    before = len(devices(office))
    refused(await one.post("/secret", await secret_only(one, first)), case.code)
    assert len(devices(office)) == before
    office.use(node_secret_steps=without(NODE_SECRET_STEPS, case.step))
    answer = await one.post("/secret", await secret_only(one, second))
    assert answer.json().get("code") != f"attest.{case.code}" or case.again
    assert answer.status_code == 200 or not case.alone, answer.text


async def test_a_tpm_that_is_somebody_elses_is_told_on_its_device(office: Office) -> None:
    device = tpm()
    await office.register(device, OTHER, binding={"type": "Node", "node": {"name": OTHER}})
    refused(await (await office.node(device)).attest(), "node_mismatch")
    assert office.cluster.events.reasons(f"Device/{OTHER}") == ["EvidenceRejected"]


def test_every_check_of_a_node_is_an_agents_or_has_a_case() -> None:
    shared = {*checks.ATTEST_STEPS, *SECRET_STEPS}
    assert {*NODE_ATTEST_STEPS, *NODE_SECRET_STEPS} - shared <= {case.step for case in CASES}


def test_a_node_is_asked_in_the_order_of_the_table_without_4() -> None:
    numbers = [int((step.__doc__ or "0")[0]) for step in NODE_ATTEST_STEPS]
    assert numbers == sorted(numbers)
    assert set(numbers) == {1, 2, 3, 5, 6, 7}
    names = [(step.__doc__ or "").split(":")[0] for step in NODE_SECRET_STEPS]
    assert [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name] == ["1", "2", "3", "secret", "6"]


async def test_what_is_known_of_the_asker_is_known_from_the_token_alone(office: Office) -> None:
    """The first checks are an agent's whoever asks; a node's begin where the token says that one asks."""
    one = await office.node(tpm())
    office.cluster.drop(kube.PODS, f"countersign-node-{NODE}", OWN_NAMESPACE)
    refused(await one.attest(), "pod_gone")
    one.token = "unknown"
    refused(await one.attest(), "token_invalid", 401)
