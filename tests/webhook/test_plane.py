"""The real process beside a real API server: registered, asked, and seen by what it does to real objects."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from support.rights import SYSTEM, grant, token_of
from support.world import FORM, Ca, SoftwareKey, details, form, write_keys
from typer.testing import CliRunner

from countersign.audit.main import command
from countersign.devcluster import LocalCA, Plane, PlaneError, free_ports, start
from countersign.wire import Message, chain_header, sign_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from countersign.devcluster import Child

pytestmark = pytest.mark.plane

HOST = "127.0.0.1"
COUNTERSIGN = Path(sys.executable).parent / "countersign"
OURS = ["identityissuers", "devicepools", "devices", "toolservers"]


@dataclass(frozen=True)
class Running:
    """The process and how to reach it."""

    plane: Plane
    child: Child
    ca: LocalCA
    directory: Path
    ports: dict[str, int]

    def health(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.ports['health']}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def get(self, path: str) -> Any:
        tls = ssl.create_default_context(cadata=self.ca.pem.decode())
        with urllib.request.urlopen(f"https://{HOST}:{self.ports['calls']}{path}", timeout=5, context=tls) as answer:
            return json.load(answer)


def until(true: Callable[[], bool], what: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def write_tls(directory: Path, ca: LocalCA) -> None:
    pair = ca.issue("countersign-webhook", names=[HOST])
    (directory / "tls.key").write_bytes(pair.key)
    (directory / "tls.crt").write_bytes(pair.certificate)


def configure(directory: Path, plane: Plane, ca: LocalCA, ports: dict[str, int]) -> Path:
    grant(plane, "webhook")
    write_tls(directory, ca)
    (directory / "client-ca.crt").write_bytes(plane.webhook_client_ca.pem)
    now = datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    write_keys(directory / "keys", (key, now - timedelta(days=1), now + timedelta(days=30)))
    tls = {"host": HOST, "tls_cert": str(directory / "tls.crt"), "tls_key": str(directory / "tls.key")}
    settings = {
        "kubeconfig": str(plane.kubeconfig(directory / "kubeconfig", token_of(plane, "webhook", directory / "token"))),
        "cluster": "dev",
        "issuer": f"https://{HOST}:{ports['calls']}",
        "admission": {**tls, "port": ports["admission"], "client_ca": str(directory / "client-ca.crt")},
        "calls": {**tls, "port": ports["calls"]},
        "health": {"host": HOST, "port": ports["health"]},
        "token_keys": str(directory / "keys"),
        "audit": {"directory": str(directory / "audit")},
        "injection": {"image": "countersign:test", "version": "0.1.0"},
    }
    path = directory / "webhook.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def registration(url: str, ca: LocalCA) -> list[dict[str, Any]]:
    def hook(name: str, path: str, **more: Any) -> dict[str, Any]:
        bundle = base64.b64encode(ca.pem).decode()
        return {
            "name": f"{name}.countersign.dev",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "timeoutSeconds": 10,
            "clientConfig": {"url": f"{url}{path}", "caBundle": bundle},
            **more,
        }

    def rules(group: str, resources: list[str], operations: list[str]) -> list[dict[str, Any]]:
        return [{"apiGroups": [group], "apiVersions": ["*"], "operations": operations, "resources": resources}]

    selector = {"matchLabels": {"countersign.dev/injection": "enabled"}}
    pods = hook("pods", "/mutate-pods", rules=rules("", ["pods"], ["CREATE"]), namespaceSelector=selector)
    kinds = hook("kinds", "/validate", rules=rules("countersign.dev", OURS, ["CREATE", "UPDATE"]))
    api = "admissionregistration.k8s.io/v1"
    return [
        {"apiVersion": api, "kind": kind, "metadata": {"name": "countersign-test"}, "webhooks": [one]}
        for kind, one in (("MutatingWebhookConfiguration", pods), ("ValidatingWebhookConfiguration", kinds))
    ]


@pytest.fixture(scope="module")
def webhook(crds: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("webhook")
    ca = LocalCA("serving")
    ports = dict(zip(("admission", "calls", "health"), free_ports(3), strict=True))
    config = configure(directory, crds, ca, ports)
    command = [str(COUNTERSIGN), "webhook", "--config", str(config)]
    child = start("webhook", command, log=directory / "webhook.log")
    running = Running(crds, child, ca, directory, ports)
    hooks = registration(f"https://{HOST}:{ports['admission']}", ca)
    try:
        until(lambda: running.health("/readyz") == 200, "the webhook is not ready")
        apply(crds, *hooks)
        yield running
    finally:
        for one in hooks:
            crds.kubectl("delete", one["kind"], one["metadata"]["name"], check=False)
        child.stop()


def apply(plane: Plane, *objects: dict[str, Any]) -> str:
    return plane.kubectl(
        "apply", "--server-side", "-f", "-", data=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    )


def ours(kind: str, name: str, spec: dict[str, Any], namespace: str | None = None) -> dict[str, Any]:
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "countersign.dev/v1alpha1", "kind": kind, "metadata": meta, "spec": spec}


def pod(namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "agent", "namespace": namespace, "labels": {"app": "agent"}},
        "spec": {"serviceAccountName": "agent", "containers": [{"name": "agent", "image": "agent"}]},
    }


@pytest.fixture
def agents(webhook: Running, namespace: str) -> str:
    webhook.plane.kubectl("label", "namespace", namespace, "countersign.dev/injection=enabled")
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "agent", "namespace": namespace}}
    identity = ours("AgentIdentity", "agent", {"serviceAccountName": "agent", "tasks": "Optional"}, namespace)
    apply(webhook.plane, account, identity)
    return namespace


def test_a_real_pod_is_injected_and_applying_it_again_changes_nothing(webhook: Running, agents: str) -> None:
    apply(webhook.plane, pod(agents))
    first = webhook.plane.get("pod", "agent", "-n", agents)

    apply(webhook.plane, pod(agents))
    second = webhook.plane.get("pod", "agent", "-n", agents)

    [signer] = first["spec"]["initContainers"]
    assert (signer["name"], signer["restartPolicy"]) == ("countersign-signer", "Always")
    assert {"name": "COUNTERSIGN_URL", "value": "http://127.0.0.1:7080"} in first["spec"]["containers"][0]["env"]
    assert second == first


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_the_pods_of_a_controller_are_injected(webhook: Running, agents: str, kind: str) -> None:
    made = pod(agents)
    template = {"metadata": {"labels": made["metadata"]["labels"]}, "spec": made["spec"]}
    meta = {"name": "agents", "namespace": agents}
    if kind == "Job":
        template["spec"]["restartPolicy"] = "Never"
        whole = {"apiVersion": "batch/v1", "kind": kind, "metadata": meta, "spec": {"template": template}}
    else:
        spec = {"replicas": 2, "selector": {"matchLabels": {"app": "agent"}}, "template": template}
        whole = {"apiVersion": "apps/v1", "kind": kind, "metadata": meta, "spec": spec}
    apply(webhook.plane, whole)

    def pods() -> list[dict[str, Any]]:
        return list(webhook.plane.get("pods", "-n", agents)["items"])

    until(lambda: len(pods()) == (1 if kind == "Job" else 2), f"the {kind} has no pods")
    for each in pods():
        assert [one["name"] for one in each["spec"]["initContainers"]] == ["countersign-signer"]
        assert each["metadata"]["generateName"].startswith("agents-")


def test_a_pod_that_cannot_be_injected_is_made_and_its_maker_is_warned(webhook: Running, agents: str) -> None:
    shared = pod(agents)
    shared["spec"]["shareProcessNamespace"] = True

    with pytest.raises(
        PlaneError, match="gets no signer and no identity \\(NotInjected\\): shareProcessNamespace is set"
    ):
        webhook.plane.kubectl("create", "--warnings-as-errors", "-f", "-", data=json.dumps(shared))

    assert "initContainers" not in webhook.plane.get("pod", "agent", "-n", agents)["spec"]


def test_a_dry_run_injects_and_leaves_nothing(webhook: Running, agents: str) -> None:
    data = json.dumps(pod(agents))

    tried = json.loads(webhook.plane.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", data=data))

    assert tried["spec"]["initContainers"][0]["name"] == "countersign-signer"
    assert webhook.plane.get("pods", "-n", agents)["items"] == []


def test_a_pod_outside_opted_in_namespaces_is_untouched(webhook: Running, namespace: str) -> None:
    outside = pod(namespace)
    outside["spec"]["serviceAccountName"] = "default"
    until(
        lambda: bool(webhook.plane.kubectl("get", "sa", "default", "-n", namespace, check=False)), "no ServiceAccount"
    )

    apply(webhook.plane, outside)

    assert "initContainers" not in webhook.plane.get("pod", "agent", "-n", namespace)["spec"]


def test_the_api_server_shows_the_message_of_a_refusal(webhook: Running, namespace: str) -> None:
    spec = {
        "audience": f"https://tools.other-{namespace}.svc/x",
        "protocol": "MCP",
        "tools": [{"name": "t", "access": "ReadOnly", "inputSchema": {"type": "object"}}],
    }

    with pytest.raises(PlaneError, match="may not claim audience"):
        apply(webhook.plane, ours("ToolServer", "foreign", spec, namespace))


def test_an_ek_is_registered_once(webhook: Running) -> None:
    roots = Ca("EK root", start=datetime.now(UTC)).pem
    apply(webhook.plane, ours("DevicePool", "unique", {"assurance": "Virtual", "ekRoots": roots}))
    binding = {"type": "Node", "node": {"name": "node-u"}}
    spec = {"poolRef": {"name": "unique"}, "ek": {"publicKeySHA256": f"sha256:{'5a' * 32}"}, "binding": binding}
    apply(webhook.plane, ours("Device", "first", spec))

    with pytest.raises(PlaneError, match="EK already belongs to Device first"):
        until(lambda: not apply(webhook.plane, ours("Device", "second", spec)), "both were taken", 0.2)


def test_c4_a_stranger_cannot_ask_the_admission_port(webhook: Running) -> None:
    tls = ssl.create_default_context(cadata=webhook.ca.pem.decode())

    with pytest.raises((urllib.error.URLError, ConnectionError)):
        urllib.request.urlopen(f"https://{HOST}:{webhook.ports['admission']}/validate", data=b"{}", context=tls)


def test_a_rotated_certificate_is_served_within_seconds(webhook: Running) -> None:
    def serial() -> str:
        tls = ssl.create_default_context(cadata=webhook.ca.pem.decode())
        with (
            socket.create_connection((HOST, webhook.ports["calls"])) as plain,
            tls.wrap_socket(plain, server_hostname=HOST) as s,
        ):
            found = s.getpeercert()
        assert found is not None
        return str(found["serialNumber"])

    before = serial()

    write_tls(webhook.directory, webhook.ca)

    until(lambda: serial() != before, "the old certificate is still served", 5)


# A whole agent of real objects: what kubectl does is what the next call meets


class Agent:
    """One instance with its pod, device, tool server and rule, each named after the namespace; and its key."""

    def __init__(self, webhook: Running, namespace: str) -> None:
        self.webhook, self.plane, self.namespace = webhook, webhook.plane, namespace
        self.key = SoftwareKey()
        self.ca = Ca(f"Identity {namespace}", start=datetime.now(UTC))
        self.domain = f"{namespace}.example.com"
        self.audience = f"https://tools.{namespace}.svc/mcp"

    def make(self) -> None:
        name, now = self.namespace, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "agent", "namespace": name}}
        rule = {"name": "charges", "effect": "Allow", "tools": [{"server": {"name": "mcp"}, "names": ["get_charge"]}]}
        tool = {"name": "get_charge", "access": "ReadOnly", "inputSchema": {"type": "object"}}
        binding = {"type": "Node", "node": {"name": f"node-{name}"}}
        identity = {"serviceAccountName": "agent", "tasks": "Optional", "minAssurance": "Virtual"}
        ek = {"publicKeySHA256": f"sha256:{name.removeprefix('test-'):0>64}"}
        apply(
            self.plane,
            account,
            ours("IdentityIssuer", name, {"trustDomain": self.domain, "type": "Embedded"}),
            ours("DevicePool", name, {"assurance": "Virtual", "ekRoots": self.ca.pem}),
            ours("AgentIdentity", "agent", {**identity, "issuerRef": {"name": name}}, name),
            ours("ToolServer", "mcp", {"audience": self.audience, "protocol": "MCP", "tools": [tool]}, name),
            ours("ToolPolicy", "rules", {"rules": [rule]}, name),
        )
        spec = {"poolRef": {"name": name}, "ek": ek, "binding": binding, "state": "Approved"}
        apply(self.plane, ours("Device", name, spec), pod(name))
        accepted = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "observedGeneration": 1}
        self.status("identityissuer", name, {"trustBundle": self.ca.pem})
        self.status("device", name, {"assurance": "Virtual", "attestationTime": now})
        self.status("toolserver", "mcp", {"conditions": [{**accepted, "lastTransitionTime": now}]})
        refs = {
            "agentRef": {"name": "agent", "uid": self.uid("agentidentity", "agent")},
            "deviceRef": {"name": name, "uid": self.uid("device", name)},
        }
        of_pod = {"name": "agent", "uid": self.uid("pod", "agent"), "nodeName": f"node-{name}"}
        apply(self.plane, ours("AgentInstance", "agent-1", {**refs, "type": "Pod", "pod": of_pod}, name))
        end = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        certificate = {"serialNumber": "01", "keyThumbprint": self.key.jkt, "notBefore": now, "notAfter": end}
        self.status("agentinstance", "agent-1", {"certificate": certificate})

    def uid(self, kind: str, name: str) -> str:
        return str(self.plane.get(kind, name, "-n", self.namespace)["metadata"]["uid"])

    def status(self, kind: str, name: str, status: dict[str, Any]) -> None:
        patch = json.dumps({"status": status})
        self.plane.kubectl(
            "patch", kind, name, "-n", self.namespace, "--subresource=status", "--type=merge", "-p", patch
        )

    async def call(self) -> str:
        """Ask for a token; return the code, or ``ok``."""
        issuer = f"https://{HOST}:{self.webhook.ports['calls']}"
        nonce = self.webhook.get(f"/nonce?jkt={self.key.jkt}")["nonces"][0]
        body = form(details(), resource=self.audience)
        leaf = self.ca.leaf(self.key.public_key, f"spiffe://{self.domain}/ns/{self.namespace}/sa/agent")
        headers = [("content-type", FORM), ("countersign-chain", chain_header([leaf]))]
        signed = await sign_request(
            Message.build("POST", "/token", headers, body),
            self.key,
            audience=f"{issuer}/token",
            nonce=nonce,
            created=int(time.time()),
        )
        self.last = urllib.request.Request(f"{issuer}/token", data=body, headers=dict(signed.headers))
        return self.send_last()

    def send_last(self) -> str:
        tls = ssl.create_default_context(cadata=self.webhook.ca.pem.decode())
        try:
            with urllib.request.urlopen(self.last, timeout=5, context=tls) as answer:
                return "ok" if "access_token" in json.load(answer) else "no token"
        except urllib.error.HTTPError as error:
            return str(json.load(error)["code"])

    async def until(self, *codes: str, seconds: float) -> str:
        end = time.monotonic() + seconds
        while (code := await self.call()) not in codes:
            assert time.monotonic() < end, code
        return code


@pytest.fixture
async def agent(webhook: Running, namespace: str) -> Agent:
    agent = Agent(webhook, namespace)
    agent.make()
    await agent.until("ok", seconds=5)
    return agent


async def test_a6_a_request_captured_on_the_wire_is_worth_nothing(agent: Agent) -> None:
    assert await agent.call() == "ok"

    assert agent.send_last() == "proof.replayed"


async def test_c12_a_deleted_pod_ends_its_calls_within_two_seconds(agent: Agent) -> None:
    agent.plane.kubectl("delete", "pod", "agent", "-n", agent.namespace, "--wait=false", "--grace-period=0", "--force")

    assert await agent.until("instance.ended", "instance.unknown", seconds=2)


async def test_c12_a_finished_job_ends_its_calls_within_two_seconds(agent: Agent) -> None:
    agent.status("pod", "agent", {"phase": "Succeeded"})

    assert await agent.until("instance.ended", seconds=2)


async def test_b13_a_denied_device_makes_no_call_within_two_seconds(agent: Agent) -> None:
    agent.plane.kubectl("patch", "device", agent.namespace, "--type=merge", "-p", '{"spec":{"state":"Denied"}}')

    assert await agent.until("device.not_approved", seconds=2)


async def test_d14_a_revoked_instance_makes_no_call_within_two_seconds(agent: Agent) -> None:
    patch = '{"spec":{"state":"Revoked"}}'
    agent.plane.kubectl("patch", "agentinstance", "agent-1", "-n", agent.namespace, "--type=merge", "-p", patch)

    assert await agent.until("instance.revoked", seconds=2)


async def test_d11_a_deny_applied_with_kubectl_bites_within_two_seconds(agent: Agent) -> None:
    rule = {"name": "stop", "effect": "Deny", "tools": [{"server": {"name": "mcp"}}]}
    apply(agent.plane, ours("ToolPolicy", "stop", {"rules": [rule]}, agent.namespace))

    assert await agent.until("policy.denied", seconds=2)


async def test_the_owner_of_an_instance_sees_denied_calls_once_with_no_word_of_the_caller(agent: Agent) -> None:
    rule = {"name": "stop", "effect": "Deny", "tools": [{"server": {"name": "mcp"}}]}
    apply(agent.plane, ours("ToolPolicy", "stop", {"rules": [rule]}, agent.namespace))
    await agent.until("policy.denied", seconds=2)
    for _ in range(3):
        await agent.call()

    def events() -> list[dict[str, Any]]:
        found = agent.plane.get("events.events.k8s.io", "-n", agent.namespace)["items"]
        return [one for one in found if one["reason"] == "CallsDenied"]

    until(lambda: len(events()) == 1, "there is no Event")
    [one] = events()
    assert (one["type"], one["reportingController"]) == ("Warning", "countersign-webhook")
    assert (one["regarding"]["kind"], one["regarding"]["name"]) == ("AgentInstance", "agent-1")
    assert one["note"] == f"policy.denied at {agent.audience}"


# A person reads the log, with the rights that the API server says they have


def rights(plane: Plane, person: str, namespace: str, *, ask: bool = True) -> None:
    """Let somebody audit one namespace, and find the webhook, which runs outside this cluster."""
    group = "rbac.authorization.k8s.io"
    subjects = [{"kind": "User", "name": person, "apiGroup": group}]
    means = [
        {
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["mutatingwebhookconfigurations"],
            "verbs": ["get"],
        },
        *(
            [{"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests"], "verbs": ["create"]}]
            * ask
        ),
    ]
    may = [
        {"apiGroups": ["countersign.dev"], "resources": ["agentinstances"], "verbs": ["audit"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]},
    ]
    meta, api = {"name": person}, f"{group}/v1"
    apply(
        plane,
        {"apiVersion": api, "kind": "ClusterRole", "metadata": meta, "rules": means},
        {
            "apiVersion": api,
            "kind": "ClusterRoleBinding",
            "metadata": meta,
            "roleRef": {"kind": "ClusterRole", "name": person, "apiGroup": group},
            "subjects": subjects,
        },
        {"apiVersion": api, "kind": "Role", "metadata": {**meta, "namespace": namespace}, "rules": may},
        {
            "apiVersion": api,
            "kind": "RoleBinding",
            "metadata": {**meta, "namespace": namespace},
            "roleRef": {"kind": "Role", "name": person, "apiGroup": group},
            "subjects": subjects,
        },
    )


@pytest.fixture
def told(agent: Agent) -> Iterator[Agent]:
    """The cluster says where the webhook is and whom to believe, as the operator and the chart do."""
    running = agent.webhook
    trust = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "countersign-trust", "namespace": agent.namespace},
        "data": {"webhookURL": f"https://{HOST}:{running.ports['calls']}", "ca.crt": running.ca.pem.decode()},
    }
    [hook, _] = registration(f"https://{HOST}:{running.ports['admission']}", running.ca)
    hook["metadata"]["name"] = "countersign"
    hook["webhooks"][0] |= {"namespaceSelector": {"matchLabels": {"countersign.dev/nobody": "yes"}}}
    apply(agent.plane, trust, hook)
    yield agent
    agent.plane.kubectl("delete", hook["kind"], "countersign", check=False)
    for kind in ("clusterrole", "clusterrolebinding"):
        agent.plane.kubectl("delete", kind, f"ana-{agent.namespace}", check=False)


def plugin(kubeconfig: Path, *words: str) -> tuple[int, str, str]:
    """Run ``kubectl countersign`` as somebody."""
    command = [str(COUNTERSIGN.with_name("kubectl-countersign")), *words, "--kubeconfig", str(kubeconfig)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    return done.returncode, done.stdout, done.stderr


def test_a_person_reads_the_records_of_their_namespace_and_of_no_other(told: Agent, tmp_path: Path) -> None:
    name = f"ana-{told.namespace}"
    rights(told.plane, name, told.namespace)
    ana = told.plane.kubeconfig(tmp_path / "ana", told.plane.client(name), namespace=told.namespace)

    status, out, complaint = plugin(ana, "audit", "-o", "json")
    assert (status, complaint) == (0, "")
    found = json.loads(out)
    assert {record["actor"]["app_uid"] for record in found} == {f"{told.namespace}/agent-1"}
    decision = found[-1]["metadata"]["uid"]
    status, out, _ = plugin(ana, "why", decision)
    assert (status, "policy.allowed" in out) == (0, True)

    status, out, complaint = plugin(ana, "audit", "--all-namespaces")
    assert (status, out) == (1, "")
    assert f"audit.not_allowed: {name} may not audit agentinstances.countersign.dev in all namespaces" in complaint
    told.plane.kubectl("delete", "rolebinding", name, "-n", told.namespace)
    assert plugin(ana, "audit", "-n", told.namespace)[0] == 1  # and at once: nothing is remembered


def test_a_token_is_as_good_as_a_certificate_and_never_leaves_for_the_webhook(told: Agent, tmp_path: Path) -> None:
    name = f"system:serviceaccount:{told.namespace}:agent"
    rights(told.plane, f"ana-{told.namespace}", told.namespace)
    for kind in ("clusterrolebinding", "rolebinding"):
        patch = json.dumps({"subjects": [{"kind": "ServiceAccount", "name": "agent", "namespace": told.namespace}]})
        where = ["-n", told.namespace] if kind == "rolebinding" else []
        told.plane.kubectl("patch", kind, f"ana-{told.namespace}", *where, "--type=merge", "-p", patch)
    token = tmp_path / "token"
    token.write_text(told.plane.kubectl("create", "token", "agent", "-n", told.namespace).strip())
    someone = told.plane.kubeconfig(tmp_path / "someone", token, namespace=told.namespace)

    status, out, complaint = plugin(someone, "audit")

    assert (status, complaint) == (0, "")
    assert "policy.allowed" in out
    assert f'"by": "{name}"' in told.webhook.child.log.read_text()
    assert token.read_text() not in told.webhook.child.log.read_text()


def test_who_may_not_introduce_themselves_reads_nothing(told: Agent, tmp_path: Path) -> None:
    name = f"ana-{told.namespace}"
    rights(told.plane, name, told.namespace, ask=False)
    ana = told.plane.kubeconfig(tmp_path / "ana", told.plane.client(name), namespace=told.namespace)

    status, out, complaint = plugin(ana, "audit")

    assert (status, out) == (3, "")
    assert "create certificatesigningrequests" in complaint


def test_the_key_set_is_published(webhook: Running) -> None:
    assert [key["use"] for key in webhook.get("/.well-known/jwks.json")["keys"]] == ["sig"]


def test_a_process_that_cannot_see_the_cluster_runs_and_is_not_ready(plane: Plane, tmp_path: Path) -> None:
    ca, ports = LocalCA("serving"), dict(zip(("admission", "calls", "health"), free_ports(3), strict=True))
    config = configure(tmp_path, plane, ca, ports)
    [nobody] = free_ports(1)
    kubeconfig = yaml.safe_load(plane.admin_kubeconfig.read_text())
    for cluster in kubeconfig["clusters"]:
        cluster["cluster"]["server"] = f"https://{HOST}:{nobody}"
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    settings = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**settings, "kubeconfig": str(tmp_path / "kubeconfig")}))
    child = start("webhook", [str(COUNTERSIGN), "webhook", "--config", str(config)], log=tmp_path / "log")
    running = Running(plane, child, ca, tmp_path, ports)
    try:
        until(lambda: running.health("/healthz") == 200, "the webhook does not run")

        assert running.health("/readyz") == 503
        with pytest.raises(urllib.error.HTTPError) as refusal:
            running.get("/catalogue")
        assert (refusal.value.code, json.load(refusal.value)["code"]) == (503, "decide.unavailable")
    finally:
        child.stop()
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_process_without_a_token_key_is_ready_when_the_key_comes(crds: Plane, tmp_path: Path) -> None:
    ca, ports = LocalCA("serving"), dict(zip(("admission", "calls", "health"), free_ports(3), strict=True))
    config = configure(tmp_path, crds, ca, ports)
    keys = (tmp_path / "keys" / "keys.json").rename(tmp_path / "later.json")
    child = start("webhook", [str(COUNTERSIGN), "webhook", "--config", str(config)], log=tmp_path / "log")
    running = Running(crds, child, ca, tmp_path, ports)
    try:
        until(lambda: running.health("/healthz") == 200, "the webhook does not run")
        assert running.health("/readyz") == 503

        keys.rename(tmp_path / "keys" / "keys.json")

        until(lambda: running.health("/readyz") == 200, "the key is not seen", 10)
        assert running.get("/.well-known/jwks.json")["keys"]
    finally:
        child.stop()


def test_settings_that_are_wrong_end_the_process_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("issuer: http://x\nunknown: 1\n")

    child = start(
        "webhook", [str(COUNTERSIGN), "webhook", "--config", str(tmp_path / "bad.yaml")], log=tmp_path / "log"
    )

    until(lambda: not child.alive, "it runs")
    assert "unknown" in (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()


async def test_e1_the_head_of_the_log_is_signed_and_kept_in_a_config_map(
    crds: Plane, namespace: str, tmp_path: Path
) -> None:
    ca, ports = LocalCA("serving"), dict(zip(("admission", "calls", "health"), free_ports(3), strict=True))
    config = configure(tmp_path, crds, ca, ports)
    child = start("webhook", [str(COUNTERSIGN), "webhook", "--config", str(config)], log=tmp_path / "log")
    running = Running(crds, child, ca, tmp_path, ports)
    try:
        until(lambda: running.health("/readyz") == 200, "the webhook is not ready")
        agent = Agent(running, namespace)
        agent.make()
        await agent.until("ok", seconds=5)
    finally:
        child.stop()

    [log] = (tmp_path / "audit").glob("*.jsonl")
    maps = crds.kubectl("get", "configmap", f"countersign-audit-{log.stem}", "-n", SYSTEM, "-o", "json")
    assert json.loads(maps)["metadata"]["labels"]["countersign.dev/audit"] == "head"
    words = ["verify", str(tmp_path / "audit"), "--heads", "-"]
    good = CliRunner().invoke(command, words, input=maps)
    assert (good.exit_code, "not checked" in good.output) == (0, False), good.output
    log.write_bytes(log.read_bytes().splitlines(keepends=True)[0])
    assert CliRunner().invoke(command, words, input=maps).exit_code == 1


async def test_a_pep_asks_with_its_projected_token(crds: Plane, namespace: str, tmp_path: Path) -> None:
    ca, ports = LocalCA("serving"), dict(zip(("admission", "calls", "health"), free_ports(3), strict=True))
    config = configure(tmp_path, crds, ca, ports)
    pep = {"name": "edge", "servers": [f"{namespace}/mcp"], "service_account": f"{namespace}/gateway"}
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "peps": [pep]}))
    child = start("webhook", [str(COUNTERSIGN), "webhook", "--config", str(config)], log=tmp_path / "log")
    running = Running(crds, child, ca, tmp_path, ports)
    try:
        until(lambda: running.health("/readyz") == 200, "the webhook is not ready")
        agent = Agent(running, namespace)
        agent.make()
        await agent.until("ok", seconds=5)
        issuer = f"https://{HOST}:{ports['calls']}"
        spiffe = f"spiffe://{agent.domain}/ns/{namespace}/sa/agent"
        question = {
            "subject": {"type": "identity", "id": spiffe},
            "action": {"name": "tools/call"},
            "resource": {"type": "tool", "id": "get_charge", "properties": {"server": agent.audience, "arguments": {}}},
            "context": {"agent": spiffe, "key_tier": "TPM"},
        }

        def ask(account: str, audience: str) -> tuple[int, bool | str]:
            crds.kubectl("create", "serviceaccount", account, "-n", namespace, check=False)
            token = crds.kubectl("create", "token", account, "-n", namespace, "--audience", audience).strip()
            asked = urllib.request.Request(
                f"{issuer}/access/v1/evaluation",
                data=json.dumps(question).encode(),
                headers={"content-type": "application/json", "authorization": f"Bearer {token}"},
            )
            tls = ssl.create_default_context(cadata=ca.pem.decode())
            try:
                with urllib.request.urlopen(asked, timeout=5, context=tls) as answer:
                    return answer.status, json.load(answer)["decision"]
            except urllib.error.HTTPError as error:
                return error.code, str(json.load(error)).partition(":")[0]

        assert ask("gateway", issuer) == (200, True)
        assert ask("gateway", "https://elsewhere.example.com") == (401, "pep.unknown")
        assert ask("agent", issuer) == (401, "pep.unknown")
    finally:
        child.stop()
