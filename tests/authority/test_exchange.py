"""From a bare TPM to a certificate and back: what is made, what is written where, in which order, and what survives a death."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from base64 import b64decode
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from sqlalchemy import select
from support.attestation import NOW
from support.enrolment import (
    AGENT,
    CLUSTER,
    DOMAIN,
    EK_ROOT,
    NAMESPACE,
    NODE,
    POD,
    POD_UID,
    TOKEN,
    URL,
    Account,
    Caller,
    Office,
    b64,
    bare_pod,
    thing,
)

from countersign import kube
from countersign.acme import jwk_of, thumbprint
from countersign.attest import SoftwareDevice
from countersign.audit import verify_log
from countersign.authority.tables import SECRETS

if TYPE_CHECKING:
    from pathlib import Path

SPIFFE_ID = f"spiffe://{DOMAIN}/ns/{NAMESPACE}/sa/{AGENT}"


def conditions(obj: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in obj["status"]["conditions"]}


# what E1 answers, makes and keeps


async def test_what_secret_answers(office: Office) -> None:
    one = await office.signer()
    admitted = await one.admitted()
    instance = office.instance()
    name = instance["metadata"]["name"]
    assert admitted["instance"] == f"{NAMESPACE}/{name}"
    assert admitted["identifier"] == f"{CLUSTER}.{NAMESPACE}.{name}"
    assert admitted["life"] == 3600
    assert admitted["acme"]["directory"] == f"{URL}/acme/default/directory"
    assert admitted["acme"]["akType"] == "P256"
    assert admitted["acme"]["caBundle"] == (office.directory / "tls" / "ca.crt").read_text()
    assert admitted.keys() == {"chain", "instance", "identifier", "acme", "life"}
    assert len(admitted["chain"]) == 2


async def test_the_instance_that_is_made(office: Office) -> None:
    one = await office.signer()
    await one.admitted()
    instance = office.instance()
    device = office.cluster.find(kube.DEVICES, NODE)
    identity = office.cluster.find(kube.AGENT_IDENTITIES, AGENT, NAMESPACE)
    assert instance["metadata"]["ownerReferences"] == [{"apiVersion": "v1", "kind": "Pod", "name": POD, "uid": POD_UID}]
    assert instance["spec"] == {
        "agentRef": {"name": AGENT, "uid": identity["metadata"]["uid"]},
        "deviceRef": {"name": NODE, "uid": device["metadata"]["uid"]},
        "type": "Pod",
        "pod": {"name": POD, "uid": POD_UID, "nodeName": NODE, "imageDigests": [f"sha256:{'ab' * 32}"]},
        "state": "Active",
    }
    assert instance["metadata"]["name"].startswith(f"{AGENT}-")
    assert not {"finalizers", "annotations"} & instance["metadata"].keys()


async def test_what_is_written_of_an_attestation(office: Office) -> None:
    one = await office.signer()
    await one.admitted()
    device, instance = office.cluster.find(kube.DEVICES, NODE), office.instance()
    facts = {"assurance": "Virtual", "attestationTime": "2026-11-24T12:00:00Z"}
    maker = {"manufacturer": "id:00000000", "model": "countersign-twin", "firmware": "id:00000001"}
    assert facts.items() | maker.items() <= {k: v for k, v in device["status"].items() if k != "conditions"}.items()
    assert conditions(device) == {"Attested": ("True", "Attested"), "Conflicted": ("False", "Unique")}
    assert facts.items() <= {k: v for k, v in instance["status"].items() if k != "conditions"}.items()
    assert instance["status"]["spiffeID"] == SPIFFE_ID
    assert conditions(instance) == {"Attested": ("True", "Attested")}
    assert office.cluster.events.reasons(f"AgentInstance/{instance['metadata']['name']}") == ["Attested"]


async def test_the_attestation_keys_certificate(office: Office) -> None:
    one = await office.signer()
    admitted = await one.admitted()
    leaf, issuer = (x509.load_der_x509_certificate(b64decode(der)) for der in admitted["chain"])
    leaf.verify_directly_issued_by(issuer)
    assert issuer == office.context.ca.certificate
    assert not list(leaf.subject)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(minutes=10)
    assert {one.oid: one.critical for one in leaf.extensions} == {
        ExtensionOID.BASIC_CONSTRAINTS: True,
        ExtensionOID.KEY_USAGE: True,
        ExtensionOID.EXTENDED_KEY_USAGE: False,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME: True,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False,
    }
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (name,) = san.get_values_for_type(x509.DirectoryName)
    assert [attribute.value for attribute in name] == ["id:00000000", "countersign-twin", "id:00000001"]
    (permanent,) = san.get_values_for_type(x509.OtherName)
    assert permanent.value.endswith(admitted["identifier"].encode())
    assert len(san) == 2
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [oid.dotted_string for oid in usage] == ["2.23.133.8.3"]


async def test_the_store_keeps_a_secrets_digest_only(office: Office) -> None:
    one = await office.signer()
    body = await one.secret_body(await one.challenged())
    async with office.context.store._engine.connect() as connection:
        rows = [tuple(row) for row in await connection.execute(select(SECRETS))]
    assert len(rows) == 1
    secret = b64decode(body["secret"])
    assert secret not in repr(rows).encode()
    assert not any(isinstance(value, bytes) and secret in value for value in rows[0])
    for path in office.directory.glob("authority.db*"):
        assert secret not in path.read_bytes()


async def test_it_asks_the_cluster_for_no_more_than_its_row_of_the_table(office: Office) -> None:
    """The twin refuses what crds.md section 8 does not grant; here is that the whole of it was asked without a refusal."""
    one = await office.signer()
    await one.certificate()
    asked = set(office.cluster.calls)
    assert ("create", "agentinstances") in asked
    assert ("patch", "agentinstances/status") in asked
    assert ("patch", "devices/status") in asked
    assert not {call for call in asked if call[0] in {"delete", "update"}}


# the certificate


async def test_e6_the_certificate_names_the_agent_and_nothing_of_the_hardware(office: Office) -> None:
    one = await office.signer()
    (leaf,) = await one.certificate()
    leaf.verify_directly_issued_by(office.context.reconciler.identity_ca("default").certificate)  # type: ignore[union-attr]
    assert leaf.public_key() == one.key.public_key
    assert not list(leaf.subject)
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert san.critical
    assert list(san.value) == [x509.UniformResourceIdentifier(SPIFFE_ID)]
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not any((usage.key_cert_sign, usage.crl_sign, usage.key_agreement, usage.key_encipherment))
    extended = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(extended) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.serial_number.bit_length() >= 64
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(hours=1)
    der = leaf.public_bytes(Encoding.DER)
    hidden = [
        b"countersign-twin",
        b"id:0000",
        NODE.encode(),
        POD.encode(),
        office.instance()["metadata"]["name"].encode(),
    ]
    assert not [word for word in hidden if word in der]


async def test_life_is_the_shortest_of_identity_issuer_and_ca(office: Office) -> None:
    office.cluster.edit(kube.IDENTITY_ISSUERS, "default", lifeSeconds=600)
    one = await office.signer()
    admitted = await one.admitted()
    assert admitted["life"] == 600
    (leaf,) = await one.certificate()
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(minutes=10)
    office.cluster.edit(kube.AGENT_IDENTITIES, AGENT, NAMESPACE, lifeSeconds=300)
    (leaf,) = await one.certificate()
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(minutes=5)


async def test_the_instance_names_the_certificate_before_the_client_can_fetch_it(office: Office) -> None:
    one = await office.signer()
    admitted = await one.admitted()
    account = await Account.make(one)
    order = await account.order(admitted["identifier"])
    await order.answer(admitted)

    def the_status_is_not_taken() -> None:
        office.cluster.down = True

    office.cluster.before["patch", "agentinstances/status"] = the_status_is_not_taken
    answer = await order.finalize()
    assert (answer.status_code, answer.json()["code"]) == (503, "attest.unavailable")
    office.cluster.down = False
    kept = await office.context.store.certificate_of_order(order.url.rpartition("/")[2])
    assert kept is not None
    assert kept.published is None
    fetched = await account.post(f"{URL}/acme/default/certificate/{kept.id}", None)
    assert fetched.status_code == 404
    assert "certificate" not in office.instance()["status"]
    document = await order.read()
    assert document["status"] == "valid"
    described = office.instance()["status"]["certificate"]
    assert described["keyThumbprint"] == one.key.jkt
    leaf = x509.load_pem_x509_certificate((await account.post(document["certificate"], None)).content)
    assert described["serialNumber"].replace(":", "").lstrip("0") == f"{leaf.serial_number:x}"
    assert described["notAfter"] == leaf.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert office.cluster.events.reasons(f"AgentInstance/{office.instance()['metadata']['name']}") == [
        "Attested",
        "CertificateIssued",
    ]


async def test_a_finished_order_may_be_asked_again_and_gives_the_same_certificate(office: Office) -> None:
    one = await office.signer()
    admitted = await one.admitted()
    account = await Account.make(one)
    order = await account.order(admitted["identifier"])
    await order.answer(admitted)
    answers = await asyncio.gather(*(_fresh(order) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["certificate"] for answer in answers}) == 1
    office.clock.advance(timedelta(minutes=30))
    again = await order.finalize()
    assert again.json()["certificate"] == answers[0].json()["certificate"]
    pems = {(await account.post(again.json()["certificate"], None)).content for _ in range(2)}
    assert len(pems) == 1


async def _fresh(order: Any) -> Any:
    """Finalize with a nonce of one's own, as a client does that lost an answer."""
    other = dataclasses.replace(order.account)
    async with other.caller.http() as http:
        other.nonce = (await http.head(other.directory["newNonce"])).headers["replay-nonce"]
    return await dataclasses.replace(order, account=other).finalize()


# who takes whose place


async def test_a_restarted_signer_is_the_same_instance_with_another_key(office: Office) -> None:
    one = await office.signer()
    first = await one.admitted()
    await one.certificate()
    old = office.instance()["status"]["certificate"]["keyThumbprint"]
    again = await Caller.make(office, one.device, TOKEN)
    office.clock.advance(5)
    second = await again.admitted()
    assert second["instance"] == first["instance"]
    assert len(office.cluster.all(kube.AGENT_INSTANCES)) == 1
    await again.certificate()
    new = office.instance()["status"]["certificate"]["keyThumbprint"]
    assert (old, new) == (one.key.jkt, again.key.jkt)
    assert old != new
    assert told(office) == ["Attested", "CertificateIssued", "CertificateIssued"]


async def test_the_former_enrolment_cannot_finish_after_a_later_one(office: Office) -> None:
    one = await office.signer()
    admitted = await one.admitted()
    account = await Account.make(one)
    order = await account.order(admitted["identifier"])
    await order.answer(admitted)
    key = one.key
    again = await Caller.make(office, one.device, TOKEN)
    await again.admitted()
    one.key = key
    answer = await order.finalize()
    assert (answer.json()["code"], answer.status_code) == ("attest.chain", 400)


async def test_renewal_is_the_same_key_in_a_new_order(office: Office) -> None:
    one = await office.signer()
    (first,) = await one.certificate()
    office.clock.advance(timedelta(minutes=40))
    (second,) = await one.certificate()
    assert first.public_key() == second.public_key()
    assert first.serial_number != second.serial_number
    assert office.instance()["status"]["attestationTime"] == "2026-11-24T12:40:00Z"
    assert told(office) == ["Attested", "CertificateIssued", "CertificateRenewed"]


def told(office: Office) -> list[str]:
    return office.cluster.events.reasons(f"AgentInstance/{office.instance()['metadata']['name']}")


async def test_a_renewal_that_is_refused_is_an_event_with_its_code(office: Office) -> None:
    one = await office.signer()
    await one.certificate()
    admitted = await one.admitted()
    account = await Account.make(one)
    order = await account.order(admitted["identifier"])
    await order.answer(admitted)
    office.cluster.edit(kube.DEVICES, "worker-1", state="Denied")

    answer = await order.finalize()

    assert answer.json()["code"] == "attest.device_denied"
    assert told(office) == ["Attested", "CertificateIssued", "RenewalFailed"]


async def test_nobody_else_makes_an_event_in_an_instances_name(office: Office) -> None:
    one = await office.signer()
    await one.certificate()
    admitted = await one.admitted()
    stranger = await Account.make(await Caller.make(office, one.device, TOKEN))
    order = await stranger.order(admitted["identifier"])
    office.cluster.edit(kube.DEVICES, "worker-1", state="Denied")

    await order.answer(admitted)

    assert told(office) == ["Attested", "CertificateIssued"]


async def test_another_device_for_the_same_pod_is_refused_and_the_first_stays(office: Office) -> None:
    first = await office.signer()
    await first.certificate()
    before = json.loads(json.dumps(office.instance()))
    thief = SoftwareDevice.make(EK_ROOT)
    await office.register(thief, "second-chip")
    second = await Caller.make(office, thief, TOKEN)
    answer = await second.secret(await second.challenged())
    assert (answer.status_code, answer.json()["code"]) == (403, "attest.pod_mismatch")
    assert office.instance() == before
    told = office.cluster.events.reasons(f"AgentInstance/{before['metadata']['name']}")
    assert "DuplicateKey" in told


async def test_another_device_is_refused_before_the_cache_has_seen_the_first(office: Office) -> None:
    office.cluster.cache.hidden.add("agentinstances")
    first = await office.signer()
    await first.admitted()
    thief = SoftwareDevice.make(EK_ROOT)
    await office.register(thief, "second-chip")
    second = await Caller.make(office, thief, TOKEN)
    answer = await second.secret(await second.challenged())
    assert (answer.status_code, answer.json()["code"]) == (403, "attest.pod_mismatch")


async def test_another_device_is_refused_when_the_pod_became_another_agents(office: Office) -> None:
    first = await office.signer()
    await first.admitted()
    identity = office.cluster.find(kube.AGENT_IDENTITIES, AGENT, NAMESPACE)
    office.cluster.drop(kube.AGENT_IDENTITIES, AGENT, NAMESPACE)
    office.cluster.put(kube.AGENT_IDENTITIES, thing("later", identity["spec"], NAMESPACE))
    thief = SoftwareDevice.make(EK_ROOT)
    await office.register(thief, "second-chip")
    second = await Caller.make(office, thief, TOKEN)
    answer = await second.secret(await second.challenged())
    assert (answer.status_code, answer.json()["code"]) == (403, "attest.pod_mismatch")
    assert len(office.cluster.all(kube.AGENT_INSTANCES)) == 1


async def test_a_revoked_instance_stays_revoked(office: Office) -> None:
    one = await office.signer()
    await one.admitted()
    name = office.instance()["metadata"]["name"]
    office.cluster.edit(kube.AGENT_INSTANCES, name, NAMESPACE, state="Revoked")
    again = await Caller.make(office, one.device, TOKEN)
    answer = await again.secret(await again.challenged())
    assert (answer.status_code, answer.json()["code"]) == (403, "attest.instance_inactive")


async def test_a_name_that_is_taken_by_another_pods_instance_is_not_taken_away(office: Office) -> None:
    one = await office.signer()
    await one.admitted()
    mine = office.instance()
    office.cluster.drop(kube.AGENT_INSTANCES, mine["metadata"]["name"], NAMESPACE)
    squatter = mine | {"spec": mine["spec"] | {"pod": mine["spec"]["pod"] | {"uid": "another"}}}
    squatter["metadata"] = mine["metadata"] | {"uid": "squatter"}
    office.cluster.put(kube.AGENT_INSTANCES, squatter)
    again = await Caller.make(office, one.device, TOKEN)
    admitted = await again.admitted()
    assert admitted["instance"] != f"{NAMESPACE}/{mine['metadata']['name']}"
    assert len(office.cluster.all(kube.AGENT_INSTANCES)) == 2


async def test_a_failed_attestation_is_told_on_the_instance(office: Office) -> None:
    one = await office.signer()
    await one.admitted()
    office.cluster.edit(kube.DEVICES, NODE, state="Denied")
    assert (await one.attest()).json()["code"] == "attest.device_denied"
    told = office.cluster.events.told[f"AgentInstance/{office.instance()['metadata']['name']}"]
    assert told[-1][:2] == ("Warning", "AttestationFailed")
    assert told[-1][2].startswith("attest.device_denied")


async def test_a_refusal_is_told_where_people_look(office: Office) -> None:
    events = office.cluster.events
    one = await office.signer()
    await one.attest(public=b64(b"junk"))
    assert events.reasons(f"Device/{NODE}") == ["EvidenceRejected"]
    office.cluster.edit(kube.DEVICE_POOLS, "racks", deniedModels=[{"manufacturer": "id:0"}])
    await one.attest()
    assert events.reasons(f"Device/{NODE}")[-1] == "ModelDenied"
    office.cluster.put(kube.DEVICE_POOLS, thing("twin", office.cluster.find(kube.DEVICE_POOLS, "racks")["spec"]))
    await one.attest()
    assert events.reasons("DevicePool/racks") == events.reasons("DevicePool/twin") == ["AmbiguousPool"]
    office.cluster.drop(kube.DEVICE_POOLS, "twin")
    await office.register(one.device, "again")
    await one.attest()
    assert events.reasons("Device/again") == ["DuplicateEK"]


async def test_a_stranger_makes_no_events(office: Office) -> None:
    one = await office.signer()
    await one.admitted()
    before = dict(office.cluster.events.told)
    await dataclasses.replace(one, token="unknown").attest()
    assert office.cluster.events.told == before


# what survives


async def test_a_secret_and_an_order_survive_a_restart(office: Office, tmp_path: Path) -> None:
    one = await office.signer()
    challenge = await one.challenged()
    used = await one.secret_body(await one.challenged())
    await one.post("/secret", used)
    async with Office.open(tmp_path, cluster=office.cluster) as later:
        one.office = later
        assert (await one.post("/secret", used)).json()["code"] == "attest.secret_invalid"
        answer = await one.secret(challenge)
        assert answer.status_code == 200, answer.text
        account = await Account.make(one)
        order = await account.order(answer.json()["identifier"])
        await order.answer(answer.json())
    async with Office.open(tmp_path, cluster=office.cluster) as last:
        one.office = last
        assert (await order.finalize()).json()["status"] == "valid"
        assert last.context.ca.certificate == office.context.ca.certificate


async def test_two_authorities_share_one_store_and_one_secret(office: Office, tmp_path: Path) -> None:
    one = await office.signer()
    body = await one.secret_body(await one.challenged())
    async with Office.open(tmp_path, cluster=office.cluster) as second:
        other = dataclasses.replace(one, office=second)
        answers = await asyncio.gather(one.post("/secret", body), other.post("/secret", body))
    assert sorted(answer.status_code for answer in answers) == [200, 403]


# when things are not there


async def test_a_cache_that_lost_contact_answers_nothing(office: Office) -> None:
    one = await office.signer()
    challenge = await one.challenged()
    account = await Account.make(one)
    office.cluster.cache.stale_kinds = ["devices"]
    for answer in (await one.attest(), await one.secret(challenge), await account.ask(f"{CLUSTER}.{NAMESPACE}.x")):
        assert (answer.status_code, answer.json()["code"]) == (503, "attest.unavailable")
        assert "retry-after" in answer.headers
    assert office.context.faults() == ["the watch cache is behind: devices"]


async def test_an_api_server_that_does_not_answer(office: Office) -> None:
    one = await office.signer()
    office.cluster.down = True
    answer = await one.attest()
    assert (answer.status_code, answer.json()["code"]) == (503, "attest.unavailable")


async def test_e1_without_a_record_there_is_no_answer(office: Office) -> None:
    one = await office.signer()
    await office.context.audit.aclose()
    answer = await one.attest()
    assert (answer.status_code, answer.json()["code"]) == (503, "audit.unavailable")
    assert "credential" not in answer.text
    assert office.context.faults() == ["the audit log does not take records"]


async def test_a_serving_ca_that_cannot_be_read_is_an_outage(office: Office) -> None:
    one = await office.signer()
    challenge = await one.challenged()
    (office.directory / "tls" / "ca.crt").write_text("junk")
    answer = await one.secret(challenge)
    assert (answer.status_code, answer.json()["code"]) == (503, "attest.unavailable")


async def test_a_device_that_is_deleted_while_it_is_written_is_unknown(office: Office) -> None:
    one = await office.signer()
    challenge = await one.challenged()
    office.cluster.before["create", "agentinstances"] = lambda: office.cluster.drop(kube.DEVICES, NODE)
    answer = await one.secret(challenge)
    assert (answer.status_code, answer.json()["code"]) == (403, "attest.device_unknown")


# the record


async def test_each_answer_to_a_known_asker_is_on_record(office: Office) -> None:
    one = await office.signer()
    admitted = await one.admitted()
    office.cluster.edit(kube.DEVICES, NODE, state="Denied")
    await one.attest()
    office.cluster.tokens["unbound"] = dataclasses.replace(office.cluster.tokens[TOKEN], pod_name=None, pod_uid=None)
    await dataclasses.replace(one, token="unbound").attest()
    records = office.records()
    assert [record["status_code"] for record in records] == [
        "policy.allowed",
        "policy.allowed",
        "attest.device_denied",
        "attest.token_unbound",
    ]
    assert {record["api"]["operation"] for record in records} == {"attest"}
    assert [record["api"]["service"]["name"] for record in records[:2]] == [f"{URL}/attest", f"{URL}/secret"]
    enrolled = records[1]
    assert enrolled["actor"] == {"app_name": SPIFFE_ID, "app_uid": admitted["instance"]}
    assert enrolled["device"] == {"uid": f"uid-device-{NODE}", "name": NODE}
    assert enrolled["unmapped"]["countersign"]["jkt"] == one.key.jkt
    assert (enrolled["status_id"], enrolled["action_id"], records[2]["status_id"]) == (1, 1, 2)


async def test_a_stranger_fills_no_log(office: Office) -> None:
    one = await office.signer(token=None)
    await one.attest()
    await dataclasses.replace(one, token="unknown").attest()
    await one.post("/attest", b"junk")
    assert office.records() == []


async def test_e2_the_records_hold_no_token_no_secret_and_no_key(office: Office) -> None:
    one = await office.signer()
    body = await one.secret_body(await one.challenged())
    await one.post("/secret", body)
    text = json.dumps(office.records())
    for hidden in (TOKEN, body["secret"], body["key"]["public"], b64(one.ak.public)):
        assert hidden not in text


async def test_the_log_is_chained_from_one_start_to_the_next(office: Office, tmp_path: Path) -> None:
    one = await office.signer()
    await one.admitted()
    await office.context.audit.aclose()
    async with Office.open(tmp_path, cluster=office.cluster) as later:
        one.office = later
        await one.admitted()
    report = verify_log([tmp_path / "audit"])
    assert report.ok
    assert len(report.logs) == 2


async def test_metrics_count_by_code(office: Office) -> None:
    one = await office.signer()
    await one.challenged()
    await dataclasses.replace(one, token=None).attest()
    value = office.context.metrics.registry.get_sample_value
    name = "countersign_authority_answers_total"
    assert value(name, {"operation": "/attest", "code": "policy.allowed"}) == 1
    assert value(name, {"operation": "/attest", "code": "attest.token_missing"}) == 1


# many at once


async def test_many_pods_enrol_at_once(office: Office) -> None:
    one = await office.signer()
    signers = []
    for number in range(8):
        office.schedule(bare_pod(f"pod-{number}", f"uid-{number}"), f"token-{number}")
        device = SoftwareDevice(one.device.endorsement_key, one.device.certificates)  # type: ignore[attr-defined]
        signers.append(await Caller.make(office, device, f"token-{number}"))
    chains = await asyncio.gather(*(signer.certificate() for signer in signers))
    keys = {thumbprint(jwk_of(chain[0].public_key())) for chain in chains}  # type: ignore[arg-type]
    assert len(keys) == 8
    assert len(office.cluster.all(kube.AGENT_INSTANCES)) == 8
    await office.context.reconciler.pass_once()
    assert office.cluster.find(kube.DEVICES, NODE)["status"]["instances"] == 8
    assert all(isinstance(chain[0].public_key(), ec.EllipticCurvePublicKey) for chain in chains)
    assert office.clock.now() == NOW
