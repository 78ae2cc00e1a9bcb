"""The real process beside a real API server, with the rights that the chart gives it and no others."""

from __future__ import annotations

import base64
import json
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cryptography import x509

from countersign.controller.keys import WATCHED
from countersign.demo.processes import console
from countersign.devcluster import LocalCA, Plane, free_ports, start
from countersign_webhook.keys import TokenKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from countersign.devcluster import Child

pytestmark = pytest.mark.plane

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
SYSTEM = "countersign-system"
NAME = "countersign-operator"
API = "countersign.dev/v1alpha1"
LIFE = {"seconds": 3, "deadline_seconds": 2, "retry_seconds": 0.3}
RIGHTS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")


def until(true: Callable[[], bool], what: Callable[[], Any] | str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what if isinstance(what, str) else what()
        time.sleep(0.1)


@dataclass
class Operator:
    """A running operator and its health port."""

    child: Child
    port: int

    def health(self, path: str = "/readyz") -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}{path}", timeout=5) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    @property
    def leads(self) -> bool:
        status, body = self.health()
        return status == 200 and bool(json.loads(body)["leading"])

    def said(self) -> str:
        return f"{self.health()}\n{self.child.tail()[-2000:]}"


class Cluster:
    """The plane as the chart leaves it, and operators on it."""

    def __init__(self, plane: Plane, directory: Path) -> None:
        self.plane = plane
        self.directory = directory
        self.running: list[Operator] = []
        plane.kubectl("create", "namespace", SYSTEM, check=False)
        self.apply(*self._rights(), *hooks())
        token = directory / "token"
        token.write_text(plane.kubectl("create", "token", NAME, "-n", SYSTEM, "--duration=3600s").strip())
        self.kubeconfig = plane.kubeconfig(directory / "operator.kubeconfig", token, namespace=SYSTEM)

    def _rights(self) -> list[dict[str, Any]]:
        command = [str(self.plane.binaries.helm), "template", "countersign", str(ROOT / "charts" / "countersign")]
        command += ["--namespace", SYSTEM, "--set", "webhook.url=https://127.0.0.1:1"]
        rendered = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        found = [one for one in yaml.safe_load_all(rendered) if one and one["kind"] in RIGHTS]
        return [one for one in found if one["metadata"]["name"] == NAME]

    def start(self) -> Operator:
        [port] = free_ports(1)
        settings = {
            "kubeconfig": str(self.kubeconfig),
            "namespace": SYSTEM,
            "cluster": "dev",
            "webhook_url": "https://127.0.0.1:8443",
            "authority_url": "https://127.0.0.1:9443",
            "webhook_names": [HOST, "localhost"],
            "authority_names": [HOST],
            "health": {"host": HOST, "port": port},
            "lease": LIFE,
        }
        path = self.directory / f"operator-{port}.yaml"
        path.write_text(yaml.safe_dump(settings))
        log = self.directory / f"operator-{port}.log"
        operator = Operator(start("operator", [console(), "operator", "--config", str(path)], log=log), port)
        self.running.append(operator)
        until(lambda: operator.health()[0] == 200, operator.said)
        return operator

    def apply(self, *objects: dict[str, Any]) -> None:
        data = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", data=data)

    def status(self, kind: str, name: str, namespace: str | None, status: dict[str, Any]) -> None:
        where = ["-n", namespace] if namespace else []
        patch = json.dumps({"status": status})
        self.plane.kubectl("patch", kind, name, *where, "--subresource=status", "--type=merge", "-p", patch)

    def condition(self, kind: str, name: str, namespace: str | None, wanted: str = "Ready") -> str:
        """Return the reason of a condition that was judged for the present generation."""
        where = ["-n", namespace] if namespace else []
        text = self.plane.kubectl("get", kind, name, *where, "-o", "json", check=False)
        found = json.loads(text) if text else {"metadata": {}}
        for one in (found.get("status") or {}).get("conditions") or []:
            if one["type"] == wanted and one["observedGeneration"] == found["metadata"]["generation"]:
                return str(one["reason"])
        return ""

    def becomes(self, reason: str, kind: str, name: str, namespace: str | None, wanted: str = "Ready") -> None:
        def there() -> bool:
            return self.condition(kind, name, namespace, wanted) == reason

        def found() -> str:
            said = self.running[-1].said() if self.running else ""
            return f"{kind} {name} {wanted}: {self.condition(kind, name, namespace, wanted)!r}, not {reason}\n{said}"

        until(there, found)

    def events(self, name: str, namespace: str = "default") -> set[str]:
        found = self.plane.get("events.events.k8s.io", "-n", namespace)["items"]
        return {one["reason"] for one in found if one["regarding"]["name"] == name}

    def stop(self) -> None:
        for operator in self.running:
            operator.child.stop()
        for one in hooks():
            self.plane.kubectl("delete", one["kind"], one["metadata"]["name"], check=False)


def hooks() -> list[dict[str, Any]]:
    """The chart's two webhook configurations by name, for nobody's objects: the plane is everybody's."""
    hook = {
        "name": "pods.countersign.dev",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Ignore",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "namespaceSelector": {"matchLabels": {"countersign.dev/nobody": "yes"}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
    }
    api = "admissionregistration.k8s.io/v1"
    kinds = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
    return [
        {"apiVersion": api, "kind": kind, "metadata": {"name": "countersign"}, "webhooks": [hook]} for kind in kinds
    ]


@pytest.fixture(scope="module")
def cluster(crds: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(crds, tmp_path_factory.mktemp("operator"))
    cluster.apply(ours("IdentityIssuer", "default", {"trustDomain": "operator.example", "type": "Embedded"}))
    cluster.status("identityissuer", "default", None, {"conditions": [ready("Ready")]})
    operator = cluster.start()
    try:
        until(lambda: operator.leads, operator.said)
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def agents(cluster: Cluster, namespace: str) -> str:
    """A namespace that has opted in, with an agent whose pod runs on a device that was approved and attested."""
    cluster.plane.kubectl("label", "namespace", namespace, "countersign.dev/injection=enabled")
    binding = {"type": "Node", "node": {"name": namespace}}
    tools = [{"name": "look", "access": "ReadOnly", "inputSchema": {"type": "object"}}]
    read = [{"name": "read", "effect": "Allow", "tools": [{"server": {"name": "tools"}}]}]
    own = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    audience = f"https://tools.{namespace}.svc/mcp"
    ek = f"sha256:{namespace.removeprefix('test-'):0>64}"
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "agent", "namespace": namespace}},
        ours("AgentIdentity", "agent", {"serviceAccountName": "agent", "tasks": "Optional"}, namespace),
        ours("DevicePool", namespace, {"assurance": "Virtual", "ekRoots": LocalCA("EK root").pem.decode()}),
        ours("ToolServer", "tools", {"audience": audience, "protocol": "MCP", "tools": tools}, namespace),
        ours("ToolPolicy", "read", {"rules": read}, namespace),
        ours("ClusterToolPolicy", namespace, {"namespaceSelector": own, "rules": [{"name": "stop", "effect": "Deny"}]}),
        ours(
            "Device",
            namespace,
            {"poolRef": {"name": namespace}, "ek": {"publicKeySHA256": ek}, "binding": binding, "state": "Approved"},
        ),
        pod(namespace),
    )
    cluster.status("pod", "agent", namespace, {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})
    return namespace


def ours(kind: str, name: str, spec: dict[str, Any], namespace: str | None = None) -> dict[str, Any]:
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": API, "kind": kind, "metadata": meta, "spec": spec}


def pod(namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "agent", "namespace": namespace},
        "spec": {
            "serviceAccountName": "agent",
            "initContainers": [{"name": "countersign-signer", "image": "countersign", "restartPolicy": "Always"}],
            "containers": [{"name": "agent", "image": "agent"}],
        },
    }


def ready(reason: str, kind: str = "Ready") -> dict[str, Any]:
    at = "2026-11-24T12:00:00Z"
    return {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": "",
        "lastTransitionTime": at,
        "observedGeneration": 1,
    }


def enrol(cluster: Cluster, namespace: str, pod: str = "agent", name: str = "agent-bcdfg") -> str:
    """Make the AgentInstance as the authority does."""

    def ref(kind: str, name: str, *where: str) -> dict[str, str]:
        return {"name": name, "uid": cluster.plane.get(kind, name, *where)["metadata"]["uid"]}

    own = ref("pod", pod, "-n", namespace)
    spec = {
        "agentRef": ref("agentidentity", "agent", "-n", namespace),
        "deviceRef": ref("device", namespace),
        "type": "Pod",
        "pod": {**own, "nodeName": namespace},
    }
    made = ours("AgentInstance", name, spec, namespace)
    made["metadata"]["ownerReferences"] = [{"apiVersion": "v1", "kind": "Pod", **own}]
    cluster.apply(made)
    until_ = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    certificate = {
        "serialNumber": "01",
        "keyThumbprint": "A" * 43,
        "notBefore": "2026-11-24T12:00:00Z",
        "notAfter": until_,
    }
    cluster.status(
        "agentinstance",
        name,
        namespace,
        {"certificate": certificate, "conditions": [ready("Attested", "Attested")]},
    )
    return name


def secret(cluster: Cluster, name: str) -> dict[str, bytes]:
    found = cluster.plane.get("secret", name, "-n", SYSTEM)
    return {key: base64.b64decode(value) for key, value in found["data"].items()}


def test_certificates_and_keys_are_made_for_the_other_processes(cluster: Cluster, tmp_path: Path) -> None:
    webhook, authority = secret(cluster, "countersign-webhook-tls"), secret(cluster, "countersign-authority-tls")
    (tmp_path / "keys.json").write_bytes(secret(cluster, "countersign-token-keys")["keys.json"])
    keys = TokenKeys(tmp_path)
    keys.refresh()

    [ca] = x509.load_pem_x509_certificates(webhook["ca.crt"])
    for members in (webhook, authority):
        x509.load_pem_x509_certificate(members["tls.crt"]).verify_directly_issued_by(ca)
    assert keys.signing(int(time.time())).kid == keys.jwks(int(time.time()))["keys"][0]["kid"]


def test_the_api_server_and_the_signers_are_told_whom_to_believe(cluster: Cluster, agents: str) -> None:
    ca = secret(cluster, "countersign-webhook-tls")["ca.crt"]
    for kind in ("mutatingwebhookconfiguration", "validatingwebhookconfiguration"):
        [hook] = cluster.plane.get(kind, "countersign")["webhooks"]
        assert base64.b64decode(hook["clientConfig"]["caBundle"]) == ca
    until(lambda: bool(cluster.plane.kubectl("get", "cm", "countersign-trust", "-n", agents, check=False)), "no trust")
    assert cluster.plane.get("cm", "countersign-trust", "-n", agents)["data"] == {
        "ca.crt": ca.decode(),
        "authorityURL": "https://127.0.0.1:9443",
        "webhookURL": "https://127.0.0.1:8443",
    }
    assert cluster.plane.kubectl("get", "cm", "countersign-trust", "-n", "default", check=False) == ""


def test_everything_in_order_says_so(cluster: Cluster, agents: str) -> None:
    cluster.becomes("Ready", "devicepool", agents, None)
    cluster.becomes("Ready", "agentidentity", "agent", agents)
    cluster.becomes("Accepted", "toolserver", "tools", agents, "Accepted")
    cluster.becomes("Unpinned", "toolserver", "tools", agents, "ToolsPinned")
    cluster.becomes("Accepted", "toolpolicy", "read", agents, "Accepted")
    cluster.becomes("ResolvedRefs", "toolpolicy", "read", agents, "ResolvedRefs")
    cluster.becomes("Accepted", "clustertoolpolicy", agents, None, "Accepted")

    assert cluster.plane.get("clustertoolpolicy", agents)["status"]["matchedAgents"] == 1
    identity = cluster.plane.get("agentidentity", "agent", "-n", agents)["status"]
    assert identity["spiffeID"] == f"spiffe://operator.example/ns/{agents}/sa/agent"
    policy = cluster.plane.get("toolpolicy", "read", "-n", agents)["status"]
    assert (policy["rules"], policy["matchedAgents"]) == (1, 1)
    until(lambda: "Injected" in cluster.events("agent", agents), lambda: cluster.events("agent", agents))


def test_a_dangling_reference_is_reported_and_resolves_by_itself(cluster: Cluster, agents: str) -> None:
    cluster.plane.kubectl("delete", "toolserver", "tools", "-n", agents)
    cluster.becomes("RefNotFound", "toolpolicy", "read", agents, "ResolvedRefs")
    until(lambda: "RefNotFound" in cluster.events("read", agents), lambda: cluster.events("read", agents))

    cluster.plane.kubectl("delete", "serviceaccount", "agent", "-n", agents)
    cluster.becomes("ServiceAccountNotFound", "agentidentity", "agent", agents)

    cluster.plane.kubectl("create", "serviceaccount", "agent", "-n", agents)
    cluster.becomes("Ready", "agentidentity", "agent", agents)


def test_a_denied_device_revokes_its_instance_within_seconds(cluster: Cluster, agents: str) -> None:
    name = enrol(cluster, agents)
    cluster.becomes("Ready", "agentinstance", name, agents)
    until(
        lambda: cluster.plane.get("agentidentity", "agent", "-n", agents)["status"]["readyInstances"] == 1,
        "not counted",
    )

    cluster.plane.kubectl("patch", "device", agents, "--type=merge", "-p", '{"spec":{"state":"Denied"}}')

    cluster.becomes("DeviceDenied", "agentinstance", name, agents, "Revoked")
    found = cluster.plane.get("agentinstance", name, "-n", agents)
    assert found["spec"]["state"] == "Revoked"
    assert {one["type"] for one in found["status"]["conditions"]} == {"Attested", "Ready", "Revoked"}
    assert found["status"]["certificate"]["serialNumber"] == "01"
    until(lambda: "Revoked" in cluster.events(name, agents), lambda: cluster.events(name, agents))


def test_a_deleted_agent_revokes_and_a_deleted_pod_ends(cluster: Cluster, agents: str) -> None:
    name = enrol(cluster, agents)
    cluster.becomes("Ready", "agentinstance", name, agents)

    cluster.plane.kubectl("delete", "agentidentity", "agent", "-n", agents)
    cluster.becomes("AgentGone", "agentinstance", name, agents, "Revoked")

    cluster.plane.kubectl("delete", "pod", "agent", "-n", agents, "--grace-period=0", "--force")
    until(
        lambda: not cluster.plane.kubectl("get", "agentinstance", name, "-n", agents, check=False), "it is still there"
    )


def job(name: str, namespace: str) -> dict[str, Any]:
    template = {"metadata": {"labels": {"job": name}}, "spec": {**pod(namespace)["spec"], "restartPolicy": "Never"}}
    meta = {"name": name, "namespace": namespace}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta,
        "spec": {"backoffLimit": 0, "template": template},
    }


def pod_of_job(cluster: Cluster, name: str, namespace: str) -> str:
    """Wait for the pod that the job controller makes, and let it run."""

    def found() -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = cluster.plane.get("pods", "-n", namespace, "-l", f"job={name}")["items"]
        return items

    until(lambda: len(found()) == 1, found)
    own = str(found()[0]["metadata"]["name"])
    cluster.status("pod", own, namespace, {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})
    return own


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_the_identity_ends_with_the_job_and_the_next_job_has_its_own(cluster: Cluster, agents: str, phase: str) -> None:
    cluster.apply(job("first", agents))
    first = pod_of_job(cluster, "first", agents)
    name = enrol(cluster, agents, first, "agent-first")
    cluster.becomes("Ready", "agentinstance", name, agents)

    cluster.status("pod", first, agents, {"phase": phase})

    until(
        lambda: not cluster.plane.kubectl("get", "agentinstance", name, "-n", agents, "--ignore-not-found"), "it stays"
    )
    assert cluster.plane.get("pod", first, "-n", agents)["status"]["phase"] == phase  # for its logs

    cluster.apply(job("second", agents))
    again = enrol(cluster, agents, pod_of_job(cluster, "second", agents), "agent-second")
    cluster.becomes("Ready", "agentinstance", again, agents)
    names = cluster.plane.kubectl("get", "agentinstances", "-n", agents, "-o", "name").split()
    assert names == ["agentinstance.countersign.dev/agent-second"]


@pytest.mark.parametrize(
    ("change", "way"),
    [
        ({"metadata": {"labels": {"countersign.dev/inject": "disabled"}}}, []),
        ({"spec": {"ephemeralContainers": [{"name": "debug", "image": "x"}]}}, ["--subresource=ephemeralcontainers"]),
    ],
    ids=["opted out", "debugged"],
)
def test_c2_c9_a_pod_that_leaves_its_shape_revokes_its_instance_within_seconds(
    cluster: Cluster, agents: str, change: dict[str, Any], way: list[str]
) -> None:
    name = enrol(cluster, agents)
    cluster.becomes("Ready", "agentinstance", name, agents)

    cluster.plane.kubectl("patch", "pod", "agent", "-n", agents, *way, "-p", json.dumps(change))

    cluster.becomes("PodChanged", "agentinstance", name, agents, "Revoked")
    assert cluster.plane.get("agentinstance", name, "-n", agents)["spec"]["state"] == "Revoked"
    until(lambda: "Revoked" in cluster.events(name, agents), lambda: cluster.events(name, agents))


def test_a_pod_that_cannot_be_injected_has_an_event_that_says_why(cluster: Cluster, agents: str) -> None:
    meta = {"name": "sharing", "namespace": agents, "labels": {"app": "agent"}}
    spec = {
        "serviceAccountName": "agent",
        "shareProcessNamespace": True,
        "containers": [{"name": "agent", "image": "agent"}],
    }
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})

    until(lambda: "NotInjected" in cluster.events("sharing", agents), lambda: cluster.events("sharing", agents))
    found = cluster.plane.get("events.events.k8s.io", "-n", agents)["items"]
    notes = [one["note"] for one in found if one["regarding"]["name"] == "sharing"]
    assert notes == ["AgentIdentity agent selects this pod, which has no signer: shareProcessNamespace is set"]
    cluster.becomes("NotInjected", "agentidentity", "agent", agents)


def test_an_approval_is_an_event(cluster: Cluster, agents: str) -> None:
    binding = {"type": "Node", "node": {"name": f"{agents}-2"}}
    spec = {"poolRef": {"name": agents}, "ek": {"publicKeySHA256": f"sha256:{'c' * 64}"}, "binding": binding}
    cluster.apply(ours("Device", f"{agents}-2", spec))
    until(
        lambda: cluster.plane.get("devicepool", agents).get("status", {}).get("devices", {}).get("total") == 2, "total"
    )

    cluster.plane.kubectl("patch", "device", f"{agents}-2", "--type=merge", "-p", '{"spec":{"state":"Approved"}}')

    until(lambda: "Approved" in cluster.events(f"{agents}-2"), lambda: cluster.events(f"{agents}-2"))


def test_no_object_of_a_user_bears_a_finalizer_or_an_annotation_of_ours(cluster: Cluster, agents: str) -> None:
    name = enrol(cluster, agents)
    cluster.becomes("Ready", "agentinstance", name, agents)

    for resource in WATCHED:
        # Other tests' objects are on this plane too, some of them pods that injection has annotated.
        where = ["-n", agents] if resource.namespaced else []
        for found in cluster.plane.get(f"{resource.plural}.{resource.group}".rstrip("."), *where)["items"]:
            meta = found["metadata"]
            bearing = [*meta.get("finalizers", []), *meta.get("annotations", {})]
            assert [one for one in bearing if "kopf" in one or "countersign" in one] == [], meta["name"]
            writers = {(one["manager"], one.get("subresource", "")) for one in meta.get("managedFields", [])}
            assert {kind for manager, kind in writers if manager == NAME} <= {"status"}


def test_another_operators_finalizer_stays(cluster: Cluster, agents: str) -> None:
    theirs = "kopf.zalando.org/KopfFinalizerMarker"
    meta = {"name": "theirs", "namespace": agents, "finalizers": [theirs]}
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        ours("AgentIdentity", "theirs", {"serviceAccountName": "theirs"}, agents),
    )

    cluster.becomes("Ready", "agentidentity", "theirs", agents)

    assert cluster.plane.get("sa", "theirs", "-n", agents)["metadata"]["finalizers"] == [theirs]


def test_the_log_has_no_key_and_no_complaint(cluster: Cluster) -> None:
    [operator] = cluster.running
    lines = [json.loads(line) for line in operator.child.log.read_text().splitlines()]

    assert {line["process"] for line in lines} == {"operator"}
    assert [line for line in lines if line["level"] not in ("info", "debug")] == []
    assert "PRIVATE KEY" not in operator.child.log.read_text()


def test_metrics_are_served(cluster: Cluster) -> None:
    status, text = cluster.running[0].health("/metrics")

    assert status == 200
    assert 'countersign_operator_looks_total{kind="AgentIdentity",outcome="written"}' in text
    assert "countersign_operator_leading 1.0" in text


def test_another_replica_takes_over_from_one_that_was_killed(cluster: Cluster, agents: str) -> None:
    [first] = cluster.running
    second = cluster.start()
    assert (first.leads, second.leads) == (True, False)

    first.child.kill()
    cluster.running.remove(first)

    until(lambda: second.leads, second.said)
    cluster.plane.kubectl("delete", "toolserver", "tools", "-n", agents)
    cluster.becomes("RefNotFound", "toolpolicy", "read", agents, "ResolvedRefs")


def test_it_outlives_its_api_server(cluster: Cluster, agents: str) -> None:
    [operator] = cluster.running
    cluster.becomes("Ready", "agentidentity", "agent", agents)

    cluster.plane.kill_apiserver()
    cluster.plane.start_apiserver()

    until(lambda: operator.leads, operator.said)
    cluster.plane.kubectl("delete", "serviceaccount", "agent", "-n", agents)
    cluster.becomes("ServiceAccountNotFound", "agentidentity", "agent", agents)


def test_told_to_stop_it_gives_the_lease_back_and_ends_well(cluster: Cluster) -> None:
    [operator] = cluster.running
    until(lambda: operator.leads, operator.said)

    operator.child.process.terminate()

    assert operator.child.process.wait(timeout=10) == 0, operator.said()
    assert cluster.plane.get("lease", NAME, "-n", SYSTEM)["spec"].get("holderIdentity", "") == ""
    assert "Traceback" not in operator.child.log.read_text()
