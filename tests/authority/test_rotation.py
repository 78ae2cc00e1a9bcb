"""A CA gives way to the next one: published first, then it signs, and the former is believed while its leaves live."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from authority.test_status import authority, given, tls_secret
from cryptography import x509
from support.attestation import NOW
from support.enrolment import AGENT, NAMESPACE, Account, Office
from support.memory_cluster import OWN_NAMESPACE

from countersign import kube
from countersign.authority.ca import CaError, read_ca
from countersign.authority.rotation import identity_ca, identity_overlap
from countersign.kube.rotation import certificates_of

if TYPE_CHECKING:
    from collections.abc import Callable

ATTESTATION = "countersign-attestation-ca"
IDENTITY = "countersign-identity-ca-default"
AHEAD = timedelta(minutes=10)


def secret(office: Office, name: str) -> dict[str, Any]:
    return office.cluster.find(kube.SECRETS, name, OWN_NAMESPACE)


def held(office: Office, name: str, member: str) -> list[x509.Certificate]:
    return certificates_of(base64.b64decode(secret(office, name)["data"].get(member, "")))


def ask(office: Office, name: str) -> None:
    """Annotate the Secret, as ``kubectl annotate secret NAME countersign.dev/rotate=now`` does."""
    found = secret(office, name)
    meta = {**found["metadata"], "annotations": {"countersign.dev/rotate": "now", "who": "ann"}}
    office.cluster.put(kube.SECRETS, {**found, "metadata": meta})


async def later(office: Office, by: timedelta) -> None:
    office.clock.advance(by)
    await office.context.reconciler.pass_once()


async def rotated(office: Office, name: str) -> None:
    ask(office, name)
    await later(office, timedelta(minutes=2))
    await later(office, AHEAD)


def bundle(office: Office) -> list[x509.Certificate]:
    issuer = office.cluster.find(kube.IDENTITY_ISSUERS, "default")
    return certificates_of(issuer["status"]["trustBundle"].encode())


def events(office: Office) -> list[str]:
    return office.cluster.events.reasons("IdentityIssuer/default")


async def test_an_identity_ca_is_published_before_it_signs_and_believed_after(office: Office) -> None:
    [old] = bundle(office)
    ask(office, IDENTITY)
    await later(office, timedelta(minutes=2))

    assert bundle(office)[0] == old
    [new] = bundle(office)[1:]
    assert secret(office, IDENTITY)["metadata"]["annotations"] == {"who": "ann"}
    one = await office.signer()
    (leaf,) = await one.certificate()
    leaf.verify_directly_issued_by(old)
    assert events(office) == []

    await later(office, AHEAD - timedelta(seconds=1))
    assert held(office, IDENTITY, "tls.crt") == [old]
    await later(office, timedelta(minutes=1))
    assert held(office, IDENTITY, "tls.crt") == [new]
    assert bundle(office) == [new, old]
    (leaf,) = await one.certificate()
    leaf.verify_directly_issued_by(new)
    assert events(office) == ["Rotated"]

    await later(office, timedelta(days=1))
    assert bundle(office) == [new, old]
    await later(office, timedelta(minutes=2))
    assert bundle(office) == [new]
    assert events(office) == ["Rotated"]


async def test_the_next_ca_does_not_sign_while_the_issuers_status_does_not_name_it(office: Office) -> None:
    kubes: Any = office.cluster.kube
    issuer = office.cluster.find(kube.IDENTITY_ISSUERS, "default")
    [old] = bundle(office)
    ask(office, IDENTITY)

    async def look(minutes: int) -> x509.Certificate:
        now = NOW + timedelta(minutes=minutes)
        found = await identity_ca(kubes, OWN_NAMESPACE, issuer, now, identity_overlap(AHEAD))
        return found.certificate

    assert [await look(minutes) for minutes in (0, 11, 60)] == [old] * 3
    await office.context.reconciler.pass_once()
    await later(office, timedelta(hours=2))
    issuer = office.cluster.find(kube.IDENTITY_ISSUERS, "default")
    assert await look(180) != old


async def test_ak_certificates_of_the_former_attestation_ca_are_taken_until_they_end(office: Office) -> None:
    old = office.context.ca.certificate
    ask(office, ATTESTATION)
    await later(office, timedelta(minutes=2))
    await later(office, AHEAD - timedelta(minutes=1))
    one = await office.signer()
    admitted = await one.admitted()
    await later(office, timedelta(minutes=2))
    new = office.context.ca.certificate

    assert new != old
    assert office.context.ca.believed == (new, old)
    order = await (await Account.make(one)).order(admitted["identifier"])
    assert (await order.answer(admitted)).json()["status"] == "valid"
    assert x509.load_der_x509_certificate(base64.b64decode((await one.admitted())["chain"][1])) == new

    await later(office, timedelta(minutes=12))
    assert office.context.ca.believed == (new,)


async def test_an_ak_certificate_of_a_ca_that_is_believed_no_longer_is_refused(office: Office) -> None:
    one = await office.signer()
    admitted = await one.admitted()
    order = await (await Account.make(one)).order(admitted["identifier"])
    ca = office.context.ca
    await rotated(office, ATTESTATION)
    await later(office, timedelta(minutes=12))
    assert ca.certificate not in office.context.ca.believed

    verdict = (await order.answer(admitted)).json()
    assert (verdict["status"], verdict["error"]["code"]) == ("invalid", "attest.chain")


@pytest.mark.parametrize("name", [ATTESTATION, IDENTITY])
async def test_a_ca_of_ours_is_rotated_at_two_thirds_of_its_life(office: Office, name: str) -> None:
    [first] = held(office, name, "tls.crt")
    await later(office, timedelta(days=2430))
    assert held(office, name, "next.crt") == []
    await later(office, timedelta(days=5))
    [following] = held(office, name, "next.crt")
    await later(office, AHEAD)
    assert held(office, name, "tls.crt") == [following]
    assert first in held(office, name, "ca.crt")


@pytest.mark.parametrize("name", [ATTESTATION, IDENTITY])
async def test_a_ca_that_nobody_labelled_is_rotated_when_asked_alone(office: Office, name: str) -> None:
    found = secret(office, name)
    office.cluster.put(kube.SECRETS, {**found, "metadata": {**found["metadata"], "labels": {}}})
    await later(office, timedelta(days=2435))
    assert held(office, name, "next.crt") == []
    ask(office, name)
    await later(office, timedelta(minutes=2))
    assert len(held(office, name, "next.crt")) == 1


async def test_asking_twice_is_one_rotation(office: Office) -> None:
    ask(office, IDENTITY)
    await later(office, timedelta(minutes=2))
    [following] = held(office, IDENTITY, "next.crt")
    ask(office, IDENTITY)
    await later(office, timedelta(minutes=2))
    assert held(office, IDENTITY, "next.crt") == [following]
    assert "countersign.dev/rotate" not in secret(office, IDENTITY)["metadata"]["annotations"]


@pytest.mark.parametrize("name", [ATTESTATION, IDENTITY])
async def test_of_two_replicas_one_rotates_and_the_other_takes_its_ca(office: Office, name: str) -> None:
    kubes = office.cluster

    def another_was_first() -> None:
        found = secret(office, name)
        data = {**found["data"], "next.crt": found["data"]["tls.crt"], "next.key": found["data"]["tls.key"]}
        kubes.put(kube.SECRETS, {**found, "data": data})

    ask(office, name)
    kubes.before["update", "secrets"] = another_was_first
    await later(office, timedelta(minutes=2))
    assert held(office, name, "next.crt") == held(office, name, "tls.crt")


async def test_certificates_of_a_given_ca_that_its_owner_replaced_are_believed_on(office: Office) -> None:
    [made] = bundle(office)
    first, second = authority(days=3000), authority(days=3000)
    await given(office, tls_secret(*first))
    assert bundle(office) == [first[0], made]
    office.cluster.put(kube.SECRETS, tls_secret(*second))
    await later(office, timedelta(minutes=2))

    assert bundle(office) == [second[0], first[0], made]
    (leaf,) = await (await office.signer()).certificate()
    leaf.verify_directly_issued_by(second[0])
    assert events(office) == ["Rotated"]
    remembered = office.cluster.find(kube.CONFIG_MAPS, IDENTITY, OWN_NAMESPACE)["data"]
    assert "PRIVATE" not in str(remembered)

    await later(office, timedelta(days=1, minutes=2))
    assert bundle(office) == [second[0]]


def refuse(office: Office) -> None:
    office.cluster.down = True


def spoil(office: Office) -> None:
    office.cluster.put(kube.SECRETS, tls_secret(None, None, ATTESTATION))


@pytest.mark.parametrize("happens", [refuse, spoil])
async def test_what_was_read_of_the_attestation_ca_serves_on(office: Office, happens: Callable[[Office], None]) -> None:
    ca = office.context.ca
    happens(office)
    await later(office, timedelta(minutes=2))
    assert office.context.ca == ca


async def test_no_certificate_outlives_the_time_that_its_ca_is_believed(office: Office) -> None:
    office.cluster.edit(kube.AGENT_IDENTITIES, AGENT, NAMESPACE, lifeSeconds=86400)
    office.cluster.edit(kube.IDENTITY_ISSUERS, "default", lifeSeconds=86400)
    ask(office, IDENTITY)
    await later(office, timedelta(minutes=2))
    await later(office, AHEAD - timedelta(seconds=1))
    (leaf,) = await (await office.signer()).certificate()
    await later(office, timedelta(minutes=2))
    old = next(one for one in bundle(office)[1:])
    leaf.verify_directly_issued_by(old)

    await later(office, leaf.not_valid_after_utc - office.clock.now())
    assert old in bundle(office)


async def test_the_metrics_say_when_the_cas_end(office: Office) -> None:
    registry, name = office.context.metrics.registry, "countersign_authority_ca_expiry_timestamp_seconds"
    [identity] = bundle(office)
    ends = {"attestation": office.context.ca.certificate, "identity": identity}
    for ca, certificate in ends.items():
        assert registry.get_sample_value(name, {"ca": ca}) == certificate.not_valid_after_utc.timestamp()


async def test_a10_by_a_wrong_clock_nobody_is_admitted_and_no_status_written(office: Office) -> None:
    one = await office.signer()
    kubes: Any = office.cluster.kube
    kubes.clock_skew = 600.0
    answer = await one.attest()
    assert (answer.status_code, answer.json()["code"]) == (503, "attest.unavailable")
    assert "clock skew: this machine is 600 s ahead of the API server" in answer.json()["detail"]
    assert "clock skew" in office.context.faults()[0]
    await office.context.reconciler.pass_once()
    assert "status" not in office.cluster.find(kube.DEVICES, "worker-1")
    kubes.clock_skew = 0.4
    await office.context.reconciler.pass_once()
    assert "status" in office.cluster.find(kube.DEVICES, "worker-1")


async def test_a10_a_ca_of_the_future_says_that_it_may_be_the_clock(office: Office) -> None:
    office.clock.advance(-timedelta(days=1))
    with pytest.raises(CaError, match="ahead of this clock; clock skew") as refused:
        read_ca(secret(office, IDENTITY), office.clock.now())
    assert refused.value.reason == "SecretInvalid"
