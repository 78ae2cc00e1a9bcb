"""The real process, on a real API server, with the chart's own rights: a TPM enrols for a pod whose token is real."""

from __future__ import annotations

import json
import re
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from support.enrolment import patched, serving_certificate, spki_digest
from support.plane import ROOT

from countersign.attest.tpm import TpmDevice
from countersign.audit import verify_log
from countersign.demo.processes import console, ready_code, until
from countersign.devcluster import LocalCA, start
from countersign.devcluster.pki import private_pem
from countersign.devcluster.plane import free_ports
from countersign.errors import Denied
from countersign.kube.injection import InjectionSettings, inject
from countersign.signer.enrol import Enroller
from countersign.signer.trust import Trust, client_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from support.swtpm import Simulator

    from countersign.devcluster import Child, Pair, Plane

pytestmark = [pytest.mark.plane, pytest.mark.tpm]

SYSTEM, AGENT, IMAGE = "countersign-system", "refund-agent", "countersign:test"
SECONDS = 30.0


@dataclass
class Running:
    """The process, where it listens, and what it was started with."""

    plane: Plane
    directory: Path
    port: int
    health: int
    child: Child | None = None

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def ca(self) -> str:
        return (self.directory / "tls" / "ca.crt").read_text()

    def start(self) -> None:
        """Start ``countersign authority`` and return when it is ready."""
        command = [console(), "authority", "--config", self.directory / "a.yaml"]
        self.child = start("authority", command, log=self.directory / "authority.log")
        assert until(lambda: ready_code(self.health)[0] == 200, SECONDS) is not None, self.child.tail()

    def stop(self) -> int:
        assert self.child is not None
        return self.child.stop(10)

    def log(self) -> str:
        return (self.directory / "authority.log").read_text()


def grant(plane: Plane) -> None:
    """Give the ServiceAccount what the chart gives it."""
    if SYSTEM not in plane.kubectl("get", "namespaces", "-o", "name"):
        plane.kubectl("create", "namespace", SYSTEM)
    chart = [str(ROOT / "charts" / "countersign"), "--namespace", SYSTEM, "-s", "templates/authority/rbac.yaml"]
    words = [str(plane.binaries.helm), "template", "countersign", *chart]
    rendered = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    plane.kubectl("apply", "-f", "-", data=rendered)


@pytest.fixture
def running(crds: Plane, tmp_path: Path) -> Iterator[Running]:
    """The authority as the chart would run it, with a token in its kubeconfig."""
    grant(crds)
    port, health = free_ports(2)
    authority = Running(crds, tmp_path, port, health)
    token = tmp_path / "token-of-the-authority"
    token.write_text(crds.kubectl("create", "token", "countersign-authority", "-n", SYSTEM))
    kubeconfig = crds.kubeconfig(tmp_path / "authority.kubeconfig", token)
    serving_certificate(tmp_path / "tls")
    (tmp_path / "audit").mkdir()
    settings = {
        "kubeconfig": str(kubeconfig),
        "namespace": SYSTEM,
        "cluster": "test",
        "url": authority.url,
        "listen": {
            "host": "localhost",
            "port": port,
            "tls_cert": str(tmp_path / "tls" / "tls.crt"),
            "tls_key": str(tmp_path / "tls" / "tls.key"),
        },
        "health": {"host": "127.0.0.1", "port": health},
        "database_url": f"sqlite+aiosqlite:///{tmp_path}/authority.db",
        "audit": {"directory": str(tmp_path / "audit")},
        "injection": {"image": IMAGE, "version": "0.1.0"},
        "overlap": {"ahead_seconds": 4},  # Secrets are read again each second
    }
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(settings))
    authority.start()
    try:
        yield authority
    finally:
        authority.stop()


@pytest.fixture
async def device(simulator: Simulator) -> AsyncIterator[TpmDevice]:
    opened = await TpmDevice.open(simulator.tcti)
    try:
        yield opened
    finally:
        await opened.aclose()


def ours(kind: str, name: str, spec: dict[str, Any], namespace: str | None = None) -> dict[str, Any]:
    meta = {"name": name} if namespace is None else {"name": name, "namespace": namespace}
    return {"apiVersion": "countersign.dev/v1alpha1", "kind": kind, "metadata": meta, "spec": spec}


CLUSTER_SCOPED = ("device", "devicepool", "identityissuer", "node")


@pytest.fixture
def place(running: Running, namespace: str) -> Iterator[str]:
    """A namespace; what is made of its name outside it is taken away again, because the plane is everybody's."""
    yield namespace
    for kind in CLUSTER_SCOPED:
        running.plane.kubectl("delete", kind, namespace, "--ignore-not-found")


async def populate(plane: Plane, namespace: str, simulator: Simulator, device: TpmDevice) -> None:
    """An issuer, a pool, a Device and a node, all of the namespace's name, an identity, and its injected pod."""
    plane.kubectl("label", "namespace", namespace, "countersign.dev/injection=enabled", "--overwrite")
    plane.kubectl("create", "serviceaccount", AGENT, "-n", namespace)
    roots = "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in simulator.roots)
    ek = spki_digest((await device.endorsements())[0].spki)
    identity = ours(
        "AgentIdentity",
        AGENT,
        {
            "serviceAccountName": AGENT,
            "issuerRef": {"name": namespace},
            "minAssurance": "Virtual",
            "minKeyTier": "TPM",
            "tasks": "Optional",
        },
        namespace,
    )
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": AGENT, "namespace": namespace, "labels": {"app": AGENT}},
        "spec": {
            "serviceAccountName": AGENT,
            "automountServiceAccountToken": False,
            "nodeName": namespace,
            "containers": [{"name": "agent", "image": f"agent@sha256:{'ab' * 32}"}],
        },
    }
    settings = InjectionSettings(image=IMAGE, version="0.1.0", token_audience="countersign.dev")
    binding = {"type": "Node", "node": {"name": namespace}}
    objects = [
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": namespace}},
        ours("IdentityIssuer", namespace, {"trustDomain": f"{namespace}.example.com", "type": "Embedded"}),
        ours("DevicePool", namespace, {"assurance": "Virtual", "ekRoots": roots}),
        ours(
            "Device",
            namespace,
            {
                "poolRef": {"name": namespace},
                "ek": {"publicKeySHA256": ek},
                "binding": binding,
                "state": "Approved",
            },
        ),
        identity,
        patched(pod, inject(pod, identity, settings)),
    ]
    for obj in objects:
        plane.kubectl("apply", "-f", "-", data=json.dumps(obj))


def token_of(plane: Plane, directory: Path, namespace: str) -> Path:
    """Ask for the pod's token as its node does."""
    pair: Pair = plane.client(f"system:node:{namespace}", ["system:nodes"])
    pair.write(directory, "node")
    node = plane.kubeconfig(directory / "node.kubeconfig", pair)
    uid = plane.get("pod", AGENT, "-n", namespace)["metadata"]["uid"]
    words = [str(plane.binaries.kubectl), f"--kubeconfig={node}", "create", "token", AGENT, "-n", namespace]
    words += ["--audience=countersign.dev", "--bound-object-kind=Pod", f"--bound-object-name={AGENT}"]
    done = subprocess.run([*words, f"--bound-object-uid={uid}"], check=True, capture_output=True, text=True)
    path = directory / "token"
    path.write_text(done.stdout)
    return path


def condition(obj: dict[str, Any], kind: str) -> str:
    found = (obj.get("status") or {}).get("conditions") or []
    return next((one["status"] for one in found if one["type"] == kind), "Unknown")


async def test_a_tpm_enrols_for_a_real_pod_and_the_cluster_shows_it(
    running: Running, place: str, simulator: Simulator, device: TpmDevice
) -> None:
    plane, namespace = running.plane, place
    await populate(plane, namespace, simulator, device)
    plane.kubectl("wait", "--for=condition=Ready", f"identityissuer/{namespace}", "--timeout=30s")
    token = token_of(plane, running.directory, namespace)
    trust = Trust(running.url, "https://unused.example", running.ca)
    enroller = Enroller(device, token_file=token)
    key = await device.create_key()
    admission = await enroller.admit(trust, key)
    chain = await enroller.certify(trust, key, admission)

    (instance,) = plane.get("agentinstances", "-n", namespace)["items"]
    assert admission.instance == f"{namespace}/{instance['metadata']['name']}"
    assert instance["status"]["certificate"]["keyThumbprint"] == key.jkt
    assert instance["status"]["spiffeID"] == f"spiffe://{namespace}.example.com/ns/{namespace}/sa/{AGENT}"
    assert condition(instance, "Attested") == "True"
    assert instance["spec"]["pod"]["imageDigests"] == [f"sha256:{'ab' * 32}"]
    (owner,) = instance["metadata"]["ownerReferences"]
    assert owner["uid"] == plane.get("pod", AGENT, "-n", namespace)["metadata"]["uid"]
    machine = plane.get("device", namespace)
    assert machine["status"]["assurance"] == "Virtual"
    assert condition(machine, "Attested") == "True"
    issuer = plane.get("identityissuer", namespace)
    assert issuer["status"]["trustBundle"].startswith("-----BEGIN CERTIFICATE-----")
    reasons = {one["reason"] for one in plane.get("events.events.k8s.io", "-n", namespace)["items"]}
    assert {"Attested", "CertificateIssued"} <= reasons
    assert len(chain) >= 1

    # the same enrolment after a restart of the process: same instance, another key
    assert running.stop() == 0
    running.start()
    again = await device.create_key()
    second = await enroller.admit(trust, again)
    await enroller.certify(trust, again, second)
    assert second.instance == admission.instance
    (instance,) = plane.get("agentinstances", "-n", namespace)["items"]
    assert instance["status"]["certificate"]["keyThumbprint"] == again.jkt

    # a Device that people deny, and a pod that goes, are refused within seconds
    plane.kubectl("patch", "device", namespace, "--type=merge", "-p", '{"spec":{"state":"Denied"}}')
    with pytest.raises(Denied) as caught:
        await until_denied(enroller, trust, again)
    assert caught.value.code == "attest.device_denied"
    plane.kubectl("delete", "pod", AGENT, "-n", namespace, "--grace-period=0", "--force")
    with pytest.raises(Denied) as caught:
        await enroller.admit(trust, again)
    assert caught.value.code in {"attest.pod_gone", "attest.token_invalid"}

    assert verify_log([running.directory / "audit"]).ok
    assert "Traceback" not in running.log()
    assert token.read_text().strip() not in running.log()
    assert not re.search(r"may not|forbidden|not permitted", running.log(), re.IGNORECASE)


async def until_denied(enroller: Enroller, trust: Trust, key: Any) -> None:
    """Enrol until it is refused; what was decided a moment ago takes its way through the watch."""
    end = time.monotonic() + 2
    while time.monotonic() < end:
        await enroller.admit(trust, key)
    pytest.fail("still admitted after two seconds")


async def test_while_the_api_server_is_away_nobody_is_admitted(running: Running) -> None:
    plane = running.plane
    plane.kill_apiserver()
    try:
        async with httpx.AsyncClient(verify=client_context(running.ca), timeout=30) as client:
            body = {
                "ek": "",
                "params": dict.fromkeys(("public", "createData", "createAttestation", "createSignature"), ""),
            }
            answer = await client.post(f"{running.url}/attest", json=body, headers={"authorization": "Bearer x"})
        assert (answer.status_code, answer.json()["code"]) == (503, "attest.unavailable")
    finally:
        plane.start_apiserver()
    assert "Traceback" not in running.log()


def give(plane: Plane, name: str, ca: LocalCA, key: LocalCA | None = None) -> None:
    """Give the authority a CA, as its owner does; ``key`` is another CA's."""
    data = {"tls.crt": ca.pem.decode(), "tls.key": private_pem((key or ca).key).decode()}
    meta = {"name": name, "namespace": SYSTEM}
    body = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": meta, "stringData": data}
    plane.kubectl("apply", "-f", "-", data=json.dumps(body))


def ready(plane: Plane, issuer: str) -> tuple[str, str, str]:
    """Status and reason of Ready, and the bundle that is published."""
    status = plane.get("identityissuer", issuer).get("status", {})
    found = next((one for one in status.get("conditions", []) if one["type"] == "Ready"), {"status": "", "reason": ""})
    return found["status"], found["reason"], status.get("trustBundle", "")


def test_an_owner_gives_a_ca_and_replaces_it_and_a_wrong_one_is_refused(running: Running, place: str) -> None:
    plane, first, second = running.plane, LocalCA("first"), LocalCA("second")
    embedded = {"caSecretRef": {"name": place}}
    spec = {"trustDomain": f"{place}.example.com", "type": "Embedded", "embedded": embedded}
    plane.kubectl("apply", "-f", "-", data=json.dumps(ours("IdentityIssuer", place, spec)))
    assert until(lambda: ready(plane, place)[1] == "SecretNotFound", SECONDS), running.log()

    give(plane, place, first)
    # both end within a month, which the reason says
    assert until(lambda: ready(plane, place) == ("True", "CAExpiring", first.pem.decode()), SECONDS), running.log()
    # what the former one signed is believed on
    give(plane, place, second)
    both = second.pem.decode() + first.pem.decode()
    assert until(lambda: ready(plane, place) == ("True", "CAExpiring", both), SECONDS), ready(plane, place)
    give(plane, place, second, key=first)
    assert until(lambda: ready(plane, place)[:2] == ("False", "SecretInvalid"), SECONDS), running.log()


def test_a_person_asks_for_a_ca_of_ours_to_be_rotated(running: Running, place: str) -> None:
    plane, name = running.plane, f"countersign-identity-ca-{place}"
    spec = {"trustDomain": f"{place}.example.com", "type": "Embedded"}
    plane.kubectl("apply", "-f", "-", data=json.dumps(ours("IdentityIssuer", place, spec)))
    assert until(lambda: ready(plane, place)[0] == "True", SECONDS), running.log()
    before = plane.get("secret", name, "-n", SYSTEM)["data"]["tls.crt"]

    plane.kubectl("annotate", "secret", name, "-n", SYSTEM, "countersign.dev/rotate=now")

    assert until(lambda: plane.get("secret", name, "-n", SYSTEM)["data"]["tls.crt"] != before, SECONDS), running.log()
    assert ready(plane, place)[2].count("BEGIN CERTIFICATE") == 2
