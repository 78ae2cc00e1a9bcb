"""The real process beside a real API server: registered, asked, and seen by what it does to real objects."""

from __future__ import annotations

import base64
import json
import socket
import ssl
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
from support.world import Ca, write_keys

from countersign.devcluster import LocalCA, Plane, PlaneError, free_ports, start

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
    write_tls(directory, ca)
    (directory / "client-ca.crt").write_bytes(plane.webhook_client_ca.pem)
    now = datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    write_keys(directory / "keys", (key, now - timedelta(days=1), now + timedelta(days=30)))
    tls = {"host": HOST, "tls_cert": str(directory / "tls.crt"), "tls_key": str(directory / "tls.key")}
    settings = {
        "kubeconfig": str(plane.admin_kubeconfig),
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
    roots = Ca("EK root").pem
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


def test_the_key_set_is_published(webhook: Running) -> None:
    assert [key["use"] for key in webhook.get("/.well-known/jwks.json")["keys"]] == ["sig"]


def test_settings_that_are_wrong_end_the_process_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("issuer: http://x\nunknown: 1\n")

    child = start(
        "webhook", [str(COUNTERSIGN), "webhook", "--config", str(tmp_path / "bad.yaml")], log=tmp_path / "log"
    )

    until(lambda: not child.alive, "it runs")
    assert "unknown" in (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
