"""Rows E4, E5 and C10 of docs/threats.md: everything that rotates does so under load, and no call fails.

Real processes: operator, authority, webhook, tool server, two signers with TPM simulators. What is forced is what an
administrator forces: an annotation on the Secret.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import ssl
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
from cryptography import x509

from countersign.kube.rotation import certificates_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.installation import Installation

pytestmark = [pytest.mark.plane, pytest.mark.tpm]

SERVING = ("webhook", "authority")


@pytest.fixture(scope="module")
def running(installation: Installation) -> Iterator[Installation]:
    # Evidence that is a minute old is no evidence: so each agent attests and renews again and again.
    admin = installation.machine.admin
    pool = admin.get("devicepools")["items"][0]
    short = json.dumps({"spec": {"attestation": {"maxAgeSeconds": 60}}})
    usual = json.dumps({"spec": {"attestation": pool["spec"].get("attestation")}})
    admin.run("patch", "devicepool", pool["metadata"]["name"], "--type=merge", "-p", short)
    installation.begin()
    yield installation
    installation.end()
    admin.run("patch", "devicepool", pool["metadata"]["name"], "--type=merge", "-p", usual)


def member(running: Installation, secret: str, name: str = "tls.crt") -> list[x509.Certificate]:
    return certificates_of(base64.b64decode(running.secret(secret)["data"].get(name, "")))


def served(running: Installation, process: str) -> x509.Certificate:
    """The certificate that a fresh handshake meets."""
    ports = running.machine.layout.ports
    port = ports.calls if process == "webhook" else ports.authority
    return x509.load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", port), timeout=10).encode())


def jwks(running: Installation) -> list[str]:
    """The kids that the front door publishes."""
    layout = running.machine.layout
    tls = ssl.create_default_context(cafile=str(layout.serving_ca))
    with urlopen(f"{layout.issuer}/.well-known/jwks.json", timeout=10, context=tls) as answer:
        return [key["kid"] for key in json.load(answer)["keys"]]


def kids_used(running: Installation) -> list[str]:
    """The kid of each token that the tool server was given, oldest first."""
    found = []
    for line in running.machine.captures.read_text().splitlines():
        headers = dict(json.loads(line)["headers"])
        head = headers["authorization"].partition(" ")[2].partition(".")[0]
        found.append(str(json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"]))
    return found


def leaves(running: Installation) -> dict[str, x509.Certificate]:
    """The newest certificate of each agent, by instance, as the authority keeps it."""
    path = running.machine.layout.directory / "authority.db"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as store:
        rows = store.execute("select instance, chain from certificates where published is not null order by not_before")
        return {instance: x509.load_pem_x509_certificate(chain.encode()) for instance, chain in rows}


def aks(running: Installation) -> dict[str, x509.Certificate]:
    """The newest AK certificate of each agent."""
    path = running.machine.layout.directory / "authority.db"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as store:
        rows = store.execute("select instance, certificate from ak_certificates order by issued")
        return {instance: x509.load_der_x509_certificate(der) for instance, der in rows}


def nothing_failed(running: Installation) -> None:
    running.more(10)
    assert running.failed == []
    assert running.wrong == []


def test_e5_a_serving_certificate_is_replaced_under_load(running: Installation) -> None:
    before = {process: served(running, process) for process in SERVING}
    running.rotate("countersign-webhook-tls", "countersign-authority-tls")
    running.until(lambda: all(served(running, one) != before[one] for one in SERVING), "new serving certificates")
    nothing_failed(running)


def test_e5_c10_the_serving_ca_and_the_token_keys_rotate_under_load(running: Installation) -> None:
    [ca], [kid] = member(running, "countersign-ca"), jwks(running)
    first = len(kids_used(running))
    running.rotate("countersign-ca", "countersign-token-keys")

    def rotated() -> bool:
        [now] = member(running, "countersign-ca")
        return now != ca and all(served(running, one).issuer == now.subject for one in SERVING)

    running.until(rotated, "certificates of a new CA", 120)
    running.until(lambda: kids_used(running)[-1] != kid, "tokens of a new key", 120)
    new = kids_used(running)[-1]
    assert new in jwks(running)
    # Whoever connects from now on is told the new CA alone: signers, the API server, the tool server.
    trust = [pod.trust / "ca.crt" for pod in running.machine.pods.values()]
    running.until(
        lambda: all(
            ca not in certificates_of(path.read_bytes()) for path in [*trust, running.machine.layout.serving_ca]
        ),
        "the former CA is believed no longer",
        120,
    )
    pod = running.machine.quickstart.pod_objects()[0]
    pod["metadata"]["name"] = "another"
    made: Any = json.loads(
        running.machine.admin.run("create", "--dry-run=server", "-o", "json", "-f", "-", data=json.dumps(pod))
    )
    assert made["spec"]["initContainers"][0]["name"] == "countersign-signer"
    nothing_failed(running)
    # Every token of the new key was taken by the verifier that had the old document.
    since = kids_used(running)[first:]
    assert set(since) == {kid, new}
    assert since.count(new) >= 10


def test_e4_e5_c10_the_cas_of_attestation_and_identity_rotate_under_load(running: Installation) -> None:
    secrets = {"countersign-attestation-ca": aks, "countersign-identity-ca-default": leaves}
    before = {name: member(running, name)[0] for name in secrets}
    running.rotate(*secrets)
    running.until(lambda: all(member(running, name)[0] != before[name] for name in secrets), "new CAs sign", 120)
    after = {name: member(running, name)[0] for name in secrets}

    def renewed() -> bool:
        found = {name: {one.issuer for one in what(running).values()} for name, what in secrets.items()}
        return found == {name: {ca.subject} for name, ca in after.items()}

    running.until(renewed, "every agent has certificates of the new CAs", 180)
    issuer = running.machine.admin.get("identityissuer", "default")
    believed = certificates_of(issuer["status"]["trustBundle"].encode())
    assert believed == [after["countersign-identity-ca-default"], before["countersign-identity-ca-default"]]
    events = running.machine.admin.get("events.events.k8s.io", "-n", "default")["items"]
    assert [one["reason"] for one in events if one["regarding"]["kind"] == "IdentityIssuer"] == ["Rotated"]
    nothing_failed(running)
    assert running.count > 100
