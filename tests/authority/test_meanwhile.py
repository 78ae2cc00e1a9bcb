"""What changes between the last check and the write that rests on it: the write itself finds out, and nothing is handed out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select
from support.enrolment import EK_ROOT, NAMESPACE, NODE, TOKEN, Account, Caller, Office, thing

from countersign import kube
from countersign.attest import SoftwareDevice
from countersign.authority.tables import AK_CERTIFICATES

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx
    from support.enrolment import AcmeOrder

WRITE = "patch", "agentinstances/status"


def refused(answer: httpx.Response, status: int, code: str) -> None:
    document = answer.json()
    assert (answer.status_code, document["code"]) == (status, f"attest.{code}"), answer.text


# /secret


async def other_ek(office: Office) -> dict[str, str]:
    """Return the EK of another TPM, as a Device names it."""
    found = await office.register(SoftwareDevice.make(EK_ROOT), "elsewhere")
    office.cluster.drop(kube.DEVICES, "elsewhere")
    return dict(found["spec"]["ek"])


@pytest.mark.parametrize(
    ("another_uid", "another_ek"),
    [(True, True), (True, False), (False, True)],
    ids=["another TPM's", "the same TPM's, made anew", "edited to be another TPM's"],
)
async def test_a_device_is_not_credited_with_the_attestation_of_an_earlier_one_of_its_name(
    office: Office, *, another_uid: bool, another_ek: bool
) -> None:
    one = await office.signer()
    challenge = await one.challenged()
    first = office.cluster.find(kube.DEVICES, NODE)
    ek = await other_ek(office) if another_ek else first["spec"]["ek"]
    uid = "a-later-uid" if another_uid else first["metadata"]["uid"]

    def made_anew() -> None:
        office.cluster.drop(kube.DEVICES, NODE)
        office.cluster.put(kube.DEVICES, thing(NODE, first["spec"] | {"ek": ek}, uid=uid))

    office.cluster.before["create", "agentinstances"] = made_anew
    answer = await one.secret(challenge)
    refused(answer, 403, "device_unknown")
    assert "chain" not in answer.json()
    assert "status" not in office.cluster.find(kube.DEVICES, NODE)
    async with office.context.store._engine.connect() as connection:
        assert list(await connection.execute(select(AK_CERTIFICATES))) == []


async def test_a_device_that_is_made_anew_while_its_status_is_written_stays_as_it_is(office: Office) -> None:
    one = await office.signer()
    challenge = await one.challenged()
    first = office.cluster.find(kube.DEVICES, NODE)

    def made_anew() -> None:
        office.cluster.drop(kube.DEVICES, NODE)
        office.cluster.put(kube.DEVICES, thing(NODE, first["spec"], uid="a-later-uid"))

    office.cluster.before["patch", "devices/status"] = made_anew
    refused(await one.secret(challenge), 403, "device_unknown")
    assert "status" not in office.cluster.find(kube.DEVICES, NODE)


# finalize


async def ready(office: Office) -> tuple[Caller, AcmeOrder]:
    """Return a signer, and its order whose challenge is valid."""
    one = await office.signer()
    admitted = await one.admitted()
    order = await (await Account.make(one)).order(admitted["identifier"])
    assert (await order.answer(admitted)).json()["status"] == "valid"
    return one, order


def revoked(office: Office) -> None:
    office.cluster.edit(kube.AGENT_INSTANCES, office.instance()["metadata"]["name"], NAMESPACE, state="Revoked")


def made_anew(office: Office) -> None:
    found = office.instance()
    office.cluster.put(kube.AGENT_INSTANCES, found | {"metadata": found["metadata"] | {"uid": "a-later-uid"}})


@pytest.mark.parametrize(
    ("change", "code"), [(revoked, "instance_inactive"), (made_anew, "instance_unknown")], ids=["revoked", "made anew"]
)
async def test_an_instance_that_is_another_or_revoked_when_its_certificate_is_written_gets_none(
    office: Office, change: Callable[[Office], None], code: str
) -> None:
    _, order = await ready(office)
    office.cluster.before[WRITE] = lambda: change(office)
    refused(await order.finalize(), 403, code)
    assert "certificate" not in office.instance()["status"]
    kept = await office.context.store.certificate_of_order(order.url.rpartition("/")[2])
    assert kept is not None
    assert kept.published is None


@pytest.mark.parametrize(
    ("change", "code"), [(revoked, "instance_inactive"), (made_anew, "instance_unknown")], ids=["revoked", "made anew"]
)
async def test_a_finished_order_is_not_finished_again_for_an_instance_that_is_another_or_revoked(
    office: Office, change: Callable[[Office], None], code: str
) -> None:
    _, order = await ready(office)
    assert (await order.finalize()).json()["status"] == "valid"
    change(office)
    refused(await order.finalize(), 403, code)


async def test_a_certificate_that_waited_is_not_published_after_a_later_enrolment(office: Office) -> None:
    one, order = await ready(office)

    def away() -> None:
        office.cluster.down = True

    office.cluster.before[WRITE] = away
    refused(await order.finalize(), 503, "unavailable")
    office.cluster.down = False
    kept: Any = await office.context.store.certificate_of_order(order.url.rpartition("/")[2])
    assert kept.published is None
    again = await Caller.make(office, one.device, TOKEN)
    await again.admitted()
    refused(await order.account.post(order.url, None), 400, "chain")
    assert "certificate" not in office.instance()["status"]
