"""What people see: status of issuers, devices and instances, as time passes and things change (crds.md 3.1, 3.3, 3.5)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from structlog.testing import capture_logs
from support.attestation import NOW, make_ca
from support.enrolment import AGENT, NAMESPACE, NODE, Office, thing
from support.memory_cluster import OWN_NAMESPACE

from countersign import kube
from countersign.authority.ca import CaError, read_ca
from countersign.authority.rotation import attestation_ca, attestation_overlap, identity_ca, identity_overlap

if TYPE_CHECKING:
    from collections.abc import Callable

AHEAD = timedelta(minutes=10)
PEM = serialization.Encoding.PEM


def said(obj: dict[str, Any], kind: str) -> tuple[str, str]:
    (found,) = [one for one in obj["status"]["conditions"] if one["type"] == kind]
    return found["status"], found["reason"]


def tls_secret(certificate: x509.Certificate | None, key: Any, name: str = "given") -> dict[str, Any]:
    data = {}
    if certificate is not None:
        data["tls.crt"] = base64.b64encode(certificate.public_bytes(PEM)).decode()
    if key is not None:
        private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        data["tls.key"] = base64.b64encode(private).decode()
    return {"metadata": {"name": name, "namespace": OWN_NAMESPACE}, "type": "kubernetes.io/tls", "data": data}


def authority(key: Any = None, *, ca: bool = True, days: int = 30) -> tuple[x509.Certificate, Any]:
    """A CA certificate of any key; ``ca`` False: of one that may not sign."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "given")])
    usage = {
        "digital_signature": not ca,
        "content_commitment": False,
        "key_encipherment": False,
        "data_encipherment": False,
        "key_agreement": False,
        "key_cert_sign": ca,
        "crl_sign": ca,
        "encipher_only": False,
        "decipher_only": False,
    }
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=40))
        .not_valid_after(NOW + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
    )
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm), key


# IdentityIssuer


async def test_an_embedded_issuer_gets_a_ca_of_its_own_and_tells_its_root(office: Office) -> None:
    issuer = office.cluster.find(kube.IDENTITY_ISSUERS, "default")
    status = issuer["status"]
    assert said(issuer, "Ready") == ("True", "Ready")
    (root,) = x509.load_pem_x509_certificates(status["trustBundle"].encode())
    assert status["trustBundleSHA256"] == f"sha256:{hashlib.sha256(status['trustBundle'].encode()).hexdigest()}"
    assert status["expirationTime"] == root.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert status["observedGeneration"] == 1
    secret = office.cluster.find(kube.SECRETS, "countersign-identity-ca-default", OWN_NAMESPACE)
    assert secret["type"] == "kubernetes.io/tls"
    assert root != office.context.ca.certificate


async def test_c10_the_two_kinds_of_ca_do_not_serve_each_others_purpose(office: Office) -> None:
    ak, identity = office.context.ca, office.context.reconciler.identity_ca("default")
    assert identity is not None
    usages = [
        {oid.dotted_string for oid in ca.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value}
        for ca in (ak, identity)
    ]
    assert usages == [{"2.23.133.8.3"}, {"1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1"}]
    assert ak.certificate.public_key() != identity.certificate.public_key()
    assert "key" not in repr(ak)


async def test_the_ca_is_the_same_after_a_restart_and_for_two_replicas(office: Office) -> None:
    issuer = office.cluster.find(kube.IDENTITY_ISSUERS, "default")
    kubes: Any = office.cluster.kube
    again = await identity_ca(kubes, OWN_NAMESPACE, issuer, NOW, identity_overlap(AHEAD))
    assert again.pem == issuer["status"]["trustBundle"]
    given = {"cluster": "prod-eu", "now": NOW, "overlap": attestation_overlap(AHEAD)}
    both = await asyncio.gather(*(attestation_ca(kubes, OWN_NAMESPACE, **given) for _ in range(2)))
    assert {ca.pem for ca in both} == {office.context.ca.pem}


async def test_who_loses_the_race_for_a_ca_takes_the_winners(office: Office) -> None:
    kubes: Any = office.cluster.kube
    other = thing("second", {"trustDomain": "b.example", "type": "Embedded"})
    issuer = office.cluster.put(kube.IDENTITY_ISSUERS, other)
    winner = authority()
    name = "countersign-identity-ca-second"
    office.cluster.before["create", "secrets"] = lambda: (
        office.cluster.put(kube.SECRETS, tls_secret(*winner, name)) and None
    )
    ca = await identity_ca(kubes, OWN_NAMESPACE, issuer, NOW, identity_overlap(AHEAD))
    assert ca.certificate == winner[0]


async def given(office: Office, secret: dict[str, Any] | None) -> dict[str, Any]:
    """Let the issuer name a Secret of its owner's."""
    if secret is not None:
        office.cluster.put(kube.SECRETS, secret)
    office.cluster.edit(kube.IDENTITY_ISSUERS, "default", embedded={"caSecretRef": {"name": "given"}})
    await office.context.reconciler.pass_once()
    return office.cluster.find(kube.IDENTITY_ISSUERS, "default")


P384 = ec.generate_private_key(ec.SECP384R1())
RSA2048 = rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize("key", [None, P384, RSA2048], ids=["P-256", "P-384", "RSA-2048"])
async def test_an_owner_may_give_a_ca(office: Office, key: Any) -> None:
    certificate, key = authority(key, days=3000)
    issuer = await given(office, tls_secret(certificate, key))
    assert said(issuer, "Ready") == ("True", "Ready")
    assert issuer["status"]["trustBundle"].startswith(certificate.public_bytes(PEM).decode())
    one = await office.signer()
    (leaf,) = await one.certificate()
    leaf.verify_directly_issued_by(certificate)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: None, "SecretNotFound"),
        (lambda: tls_secret(None, None), "SecretInvalid"),
        (lambda: tls_secret(authority()[0], None), "SecretInvalid"),
        (lambda: tls_secret(authority()[0], ec.generate_private_key(ec.SECP256R1())), "SecretInvalid"),
        (lambda: tls_secret(*authority(ca=False)), "SecretInvalid"),
        (lambda: tls_secret(*authority(ec.generate_private_key(ec.SECP521R1()))), "SecretInvalid"),
        (lambda: tls_secret(*authority(ed25519.Ed25519PrivateKey.generate())), "SecretInvalid"),
        (lambda: tls_secret(*make_ca("no key usage")), "SecretInvalid"),
        (lambda: tls_secret(*authority(days=-1)), "CAExpired"),
        (lambda: tls_secret(*authority()) | {"data": {"tls.crt": "@", "tls.key": "@"}}, "SecretInvalid"),
    ],
    ids=["none", "empty", "no key", "other key", "no CA", "P-521", "Ed25519", "no key usage", "expired", "not base64"],
)
async def test_a_given_ca_that_cannot_be_used(office: Office, make: Callable[[], Any], reason: str) -> None:
    issuer = await given(office, make())
    assert said(issuer, "Ready") == ("False", reason)
    assert "trustBundle" not in issuer["status"]
    one = await office.signer()
    answer = await one.attest()
    assert (answer.status_code, answer.json()["code"]) == (503, "attest.issuer_not_ready")


def test_what_is_wrong_with_a_secret_never_repeats_it() -> None:
    secret = tls_secret(authority()[0], ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(CaError) as caught:
        read_ca(secret, NOW)
    assert not any(secret["data"][name][:20] in str(caught.value) for name in secret["data"])


async def test_a_ca_that_ends_soon_is_told_and_one_that_ended_signs_nothing(office: Office) -> None:
    issuer = await given(office, tls_secret(*authority(days=20)))
    assert said(issuer, "Ready") == ("True", "CAExpiring")
    assert office.cluster.events.reasons("IdentityIssuer/default") == ["CAExpiring"]
    office.clock.advance(timedelta(days=20))
    await office.context.reconciler.pass_once()
    assert said(office.cluster.find(kube.IDENTITY_ISSUERS, "default"), "Ready") == ("False", "CAExpired")
    assert office.context.reconciler.identity_ca("default") is None


async def test_an_external_ca_that_is_not_asked_is_told_once(office: Office) -> None:
    spec = {"type": "ACME", "trustDomain": "other.example.com", "acme": {"directoryURL": "https://ca.example.com/dir"}}
    office.cluster.put(kube.IDENTITY_ISSUERS, thing("external", spec))

    for _ in range(2):
        await office.context.reconciler.pass_once()

    issuer = office.cluster.find(kube.IDENTITY_ISSUERS, "external")
    assert said(issuer, "Ready") == ("False", "DirectoryUnreachable")
    assert office.cluster.events.reasons("IdentityIssuer/external") == ["DirectoryUnreachable"]


async def test_a_certificate_does_not_outlive_its_ca(office: Office) -> None:
    certificate, key = authority(days=1)
    await given(office, tls_secret(certificate, key))
    office.clock.advance(timedelta(hours=23, minutes=40))
    one = await office.signer()
    admitted = await one.admitted()
    assert admitted["life"] < 3600
    (leaf,) = await one.certificate()
    assert leaf.not_valid_after_utc <= certificate.not_valid_after_utc


async def test_a_secret_that_was_replaced_is_noticed_within_a_minute(office: Office) -> None:
    await given(office, tls_secret(*authority()))
    later, key = authority()
    office.cluster.put(kube.SECRETS, tls_secret(later, key))
    office.clock.advance(61)
    await office.context.reconciler.pass_once()
    issuer = office.cluster.find(kube.IDENTITY_ISSUERS, "default")
    assert issuer["status"]["trustBundle"].startswith(later.public_bytes(PEM).decode())


async def test_an_external_ca_is_not_built_so_it_is_not_ready(office: Office) -> None:
    spec = {"trustDomain": "b.example", "type": "ACME", "acme": {"directoryURL": "https://ca.example/directory"}}
    office.cluster.put(kube.IDENTITY_ISSUERS, thing("external", spec))
    await office.context.reconciler.pass_once()
    external = office.cluster.find(kube.IDENTITY_ISSUERS, "external")
    assert said(external, "Ready") == ("False", "DirectoryUnreachable")
    assert office.context.reconciler.identity_ca("external") is None


async def test_an_issuer_that_was_made_anew_does_not_sign_with_its_namesakes_ca(office: Office) -> None:
    issuer = office.cluster.find(kube.IDENTITY_ISSUERS, "default")
    office.cluster.put(kube.IDENTITY_ISSUERS, issuer | {"metadata": issuer["metadata"] | {"uid": "later"}})
    assert office.context.reconciler.identity_ca("default") is None


# Device


async def attested(office: Office) -> None:
    await (await office.signer()).admitted()


async def device_after(office: Office) -> dict[str, Any]:
    await office.context.reconciler.pass_once()
    return office.cluster.find(kube.DEVICES, NODE)


async def test_a_device_that_nobody_attested_on(office: Office) -> None:
    await office.signer()
    device = await device_after(office)
    assert said(device, "Attested") == ("False", "NeverAttested")
    assert device["status"]["instances"] == 0


async def test_evidence_expires_without_an_event(office: Office) -> None:
    await attested(office)
    office.clock.advance(timedelta(hours=8))
    assert said(await device_after(office), "Attested") == ("True", "Attested")
    office.clock.advance(1)
    assert said(await device_after(office), "Attested") == ("False", "EvidenceExpired")
    assert said(office.instance(), "Attested") == ("False", "EvidenceExpired")


async def test_the_pools_own_age_limit(office: Office) -> None:
    office.cluster.edit(kube.DEVICE_POOLS, "racks", attestation={"maxAgeSeconds": 60})
    await attested(office)
    office.clock.advance(61)
    assert said(await device_after(office), "Attested") == ("False", "EvidenceExpired")


@pytest.mark.parametrize(
    ("change", "device", "instance"),
    [
        (lambda office: office.cluster.edit(kube.DEVICES, NODE, state="Denied"), "NotApproved", "DeviceNotApproved"),
        (lambda office: office.cluster.drop(kube.DEVICE_POOLS, "racks"), "PoolNotFound", "PoolNotFound"),
        (
            lambda office: office.cluster.edit(
                kube.DEVICE_POOLS, "racks", deniedModels=[{"manufacturer": "id:0", "firmwareBefore": "id:2"}]
            ),
            "ModelDenied",
            "ModelDenied",
        ),
    ],
    ids=["denied", "pool gone", "model denied"],
)
async def test_b7_b12_what_changes_after_an_attestation(
    office: Office, change: Any, device: str, instance: str
) -> None:
    await attested(office)
    change(office)
    assert said(await device_after(office), "Attested") == ("False", device)
    assert said(office.instance(), "Attested") == ("False", instance)


async def test_a_firmware_that_is_new_enough_is_not_denied(office: Office) -> None:
    await attested(office)
    denied = [{"manufacturer": "id:0", "firmwareBefore": "id:1"}, {"manufacturer": "id:0", "model": "another"}]
    office.cluster.edit(kube.DEVICE_POOLS, "racks", deniedModels=denied)
    assert said(await device_after(office), "Attested") == ("True", "Attested")


async def test_a_device_that_is_gone_is_told_on_its_instance(office: Office) -> None:
    await attested(office)
    office.cluster.drop(kube.DEVICES, NODE)
    await office.context.reconciler.pass_once()
    assert said(office.instance(), "Attested") == ("False", "DeviceNotFound")


async def test_b13_two_devices_with_one_ek_and_two_on_one_node(office: Office) -> None:
    one = await office.signer()
    await office.register(one.device, "again")
    await office.context.reconciler.pass_once()
    for name in (NODE, "again"):
        assert said(office.cluster.find(kube.DEVICES, name), "Conflicted") == ("True", "DuplicateEK")
    office.cluster.edit(kube.DEVICES, "again", ek={"publicKeySHA256": f"sha256:{'00' * 32}"})
    await office.context.reconciler.pass_once()
    assert said(office.cluster.find(kube.DEVICES, "again"), "Conflicted") == ("True", "DuplicateNode")
    office.cluster.edit(kube.DEVICE_POOLS, "racks", devicesPerNode=2)
    assert said(await device_after(office), "Conflicted") == ("False", "Unique")


async def test_facts_and_conditions_of_others_stay(office: Office) -> None:
    await attested(office)
    device = office.cluster.find(kube.DEVICES, NODE)
    facts = [{"name": "disk-encryption", "value": "on", "source": "node"}]
    foreign = {"type": "Foreign", "status": "True", "reason": "X"}
    status = device["status"] | {"facts": facts, "conditions": [*device["status"]["conditions"], foreign]}
    office.cluster.put(kube.DEVICES, device | {"status": status})
    office.cluster.edit(kube.DEVICES, NODE, state="Denied")
    after = await device_after(office)
    assert after["status"]["facts"] == facts
    assert foreign in after["status"]["conditions"]
    assert said(after, "Attested") == ("False", "NotApproved")


async def test_the_operators_part_of_an_instances_status_stays(office: Office) -> None:
    await attested(office)
    instance = office.instance()
    ready = {"type": "Ready", "status": "False", "reason": "WaitingForCertificate"}
    status = instance["status"] | {"taskRef": {"name": "t"}, "conditions": [*instance["status"]["conditions"], ready]}
    office.cluster.put(kube.AGENT_INSTANCES, instance | {"status": status})
    await (await office.signer()).attest()
    office.clock.advance(timedelta(hours=9))
    await office.context.reconciler.pass_once()
    after = office.instance()["status"]
    assert after["taskRef"] == {"name": "t"}
    assert ready in after["conditions"]
    assert said(office.instance(), "Attested") == ("False", "EvidenceExpired")


async def test_a_pass_that_finds_nothing_new_writes_nothing(office: Office) -> None:
    await attested(office)
    await office.context.reconciler.pass_once()
    office.cluster.calls.clear()
    office.clock.advance(1)
    await office.context.reconciler.pass_once()
    assert office.cluster.calls == []


async def test_before_everything_was_seen_nothing_is_said(office: Office) -> None:
    await attested(office)
    office.cluster.cache.synced = False
    office.cluster.cache.hidden.add("devices")
    office.clock.advance(61)
    office.cluster.calls.clear()
    await office.context.reconciler.pass_once()
    assert office.cluster.calls == []


async def test_a_status_that_somebody_changed_meanwhile_is_left_to_the_next_pass(office: Office) -> None:
    await office.signer()
    device = office.cluster.find(kube.DEVICES, NODE)
    office.cluster.before["patch", "devices/status"] = lambda: (
        office.cluster.put(kube.DEVICES, device | {"spec": device["spec"] | {"owner": "me"}}) and None
    )
    await office.context.reconciler.pass_once()
    assert "status" not in office.cluster.find(kube.DEVICES, NODE)
    assert said(await device_after(office), "Attested") == ("False", "NeverAttested")


async def test_an_outage_ends_a_pass_quietly_and_the_next_one_comes(office: Office) -> None:
    await office.signer()
    office.cluster.down = True
    office.clock.advance(61)
    await office.context.reconciler.pass_once()
    office.cluster.down = False
    assert said(await device_after(office), "Attested") == ("False", "NeverAttested")


ODD: list[tuple[kube.Resource, dict[str, Any]]] = [
    (kube.IDENTITY_ISSUERS, thing("a-odd", {})),
    (kube.DEVICES, {"metadata": {"name": "a-odd"}}),
    (kube.DEVICES, thing("a-odd", {"poolRef": {"name": "racks"}, "ek": "x", "binding": [], "state": "Approved"})),
    (kube.AGENT_INSTANCES, {"metadata": {"name": "a-odd", "namespace": NAMESPACE}}),
    (kube.AGENT_INSTANCES, thing("a-odd", {"deviceRef": {"name": [], "uid": {}}}, NAMESPACE)),
]


@pytest.mark.parametrize(("resource", "odd"), ODD, ids=lambda one: getattr(one, "kind", ""))
async def test_an_object_that_nobody_can_read_costs_the_others_nothing(
    office: Office, resource: kube.Resource, odd: dict[str, Any]
) -> None:
    later = thing("z-later", {"trustDomain": "b.example", "type": "Embedded"})
    office.cluster.put(resource, odd)  # before all the others of its kind
    await attested(office)
    office.cluster.put(kube.IDENTITY_ISSUERS, later)
    office.cluster.edit(kube.DEVICE_POOLS, "racks", attestation={"maxAgeSeconds": 60})
    office.clock.advance(61)
    with capture_logs() as logs:
        device = await device_after(office)
    assert [(line["kind"], line["name"]) for line in logs if line["log_level"] == "error"] == [(resource.kind, "a-odd")]
    assert said(office.cluster.find(kube.IDENTITY_ISSUERS, "z-later"), "Ready") == ("True", "Ready")
    assert said(device, "Attested") == ("False", "EvidenceExpired")
    (instance,) = [one for one in office.cluster.all(kube.AGENT_INSTANCES) if one["metadata"]["name"] != "a-odd"]
    assert said(instance, "Attested") == ("False", "EvidenceExpired")


async def test_the_reconciler_follows_changes_by_itself(office: Office) -> None:
    office.context.follow()
    await office.signer()
    written = asyncio.Event()

    def look(resource: kube.Resource, _kind: str, found: dict[str, Any]) -> None:
        if resource == kube.DEVICES and "status" in found:
            written.set()

    office.cluster.cache.subscribe(look)
    await asyncio.wait_for(written.wait(), 10)


async def test_an_identity_that_does_not_say_how_long_uses_the_defaults(office: Office) -> None:
    spec = {"serviceAccountName": AGENT, "minAssurance": "Virtual"}
    office.cluster.put(kube.AGENT_IDENTITIES, thing(AGENT, spec, NAMESPACE))
    one = await office.signer()
    assert (await one.admitted())["life"] == 3600
