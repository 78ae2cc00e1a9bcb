"""The plane is a real one: TLS, RBAC, the Node authorizer, tokens, garbage collection; and it leaves nothing."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest

from countersign.devcluster import LocalCA, Plane, PlaneError, find_or_build, start_time

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.plane

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "agent"},
    "spec": {
        "nodeName": "node-a",
        "automountServiceAccountToken": False,
        "containers": [{"name": "agent", "image": "agent"}],
        "volumes": [
            {
                "name": "countersign-token",
                "projected": {"sources": [{"serviceAccountToken": {"audience": "countersign.dev", "path": "token"}}]},
            }
        ],
    },
}


def as_user(plane: Plane, kubeconfig: Path, *arguments: str, data: str | None = None) -> str:
    return plane.kubectl(*arguments, f"--kubeconfig={kubeconfig}", data=data)


def token_request(plane: Plane, kubeconfig: Path, namespace: str, audience: str) -> dict[str, Any]:
    pod = plane.get("pod", "agent", "-n", namespace)
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "agent", "uid": pod["metadata"]["uid"]}
    spec = {"audiences": [audience], "expirationSeconds": 600, "boundObjectRef": bound}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token"
    answer: dict[str, Any] = json.loads(
        as_user(plane, kubeconfig, "create", "--raw", path, "-f", "-", data=json.dumps(body))
    )
    return answer


@pytest.fixture
def pod(plane: Plane, namespace: str) -> str:
    nodes = [
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {}} for name in ("node-a", "node-b")
    ]
    plane.kubectl("apply", "-f", "-", data=json.dumps({"apiVersion": "v1", "kind": "List", "items": nodes}))
    plane.kubectl("wait", "--for=create", "serviceaccount/default", "-n", namespace, "--timeout=20s")
    plane.kubectl("create", "-n", namespace, "-f", "-", data=json.dumps(POD))
    return namespace


def node(plane: Plane, tmp_path: Path, name: str) -> Path:
    return plane.kubeconfig(tmp_path / f"{name}.kubeconfig", plane.client(f"system:node:{name}", ["system:nodes"]))


def test_a_node_gets_a_bound_token_for_its_own_pod(plane: Plane, tmp_path: Path, pod: str) -> None:
    answer = token_request(plane, node(plane, tmp_path, "node-a"), pod, "countersign.dev")
    assert answer["status"]["token"].count(".") == 2


def test_a_node_gets_no_token_for_another_nodes_pod(plane: Plane, tmp_path: Path, pod: str) -> None:
    with pytest.raises(PlaneError, match="no relationship found between node 'node-b' and this object"):
        token_request(plane, node(plane, tmp_path, "node-b"), pod, "countersign.dev")


def test_a_node_gets_no_token_of_an_audience_the_pod_does_not_name(plane: Plane, tmp_path: Path, pod: str) -> None:
    with pytest.raises(PlaneError, match=r'audience "evil\.example" not found in pod spec volume'):
        token_request(plane, node(plane, tmp_path, "node-a"), pod, "evil.example")


def test_a_user_without_a_role_may_do_nothing(plane: Plane, tmp_path: Path) -> None:
    nobody = plane.kubeconfig(tmp_path / "nobody", plane.client("nobody"))
    with pytest.raises(PlaneError, match='User "nobody" cannot list resource "pods"'):
        as_user(plane, nobody, "get", "pods")


def test_a_service_account_token_file_authenticates(plane: Plane, tmp_path: Path, namespace: str) -> None:
    plane.kubectl("wait", "--for=create", "serviceaccount/default", "-n", namespace, "--timeout=20s")
    file = tmp_path / "token"
    file.write_text(plane.kubectl("create", "token", "default", "-n", namespace))
    who = json.loads(as_user(plane, plane.kubeconfig(tmp_path / "k", file), "auth", "whoami", "-o", "json"))
    assert who["status"]["userInfo"]["username"] == f"system:serviceaccount:{namespace}:default"


def test_owners_are_collected_and_namespaces_end(plane: Plane, namespace: str) -> None:
    plane.kubectl("create", "configmap", "owner", "-n", namespace)
    uid = plane.get("configmap", "owner", "-n", namespace)["metadata"]["uid"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    owned = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "owned", "namespace": namespace, "ownerReferences": [reference]},
    }
    plane.kubectl("create", "-f", "-", data=json.dumps(owned))
    plane.kubectl("delete", "configmap", "owner", "-n", namespace)
    plane.kubectl("wait", "--for=delete", "configmap/owned", "-n", namespace, "--timeout=30s")
    plane.kubectl("delete", "namespace", namespace, "--timeout=60s")


def test_the_data_survives_an_api_server_that_is_killed_and_nothing_survives_stop(tmp_path: Path) -> None:
    plane = Plane(find_or_build(), tmp_path / "own")
    plane.start()
    try:
        pids = [child.process.pid for child in plane.children]
        plane.kubectl("create", "namespace", "kept")
        plane.kill_apiserver()
        with pytest.raises(PlaneError, match="refused"):
            plane.kubectl("get", "namespace", "kept")
        plane.start_apiserver()
        assert plane.get("namespace", "kept")["metadata"]["name"] == "kept"
        pids += [child.process.pid for child in plane.children]
    finally:
        plane.stop()
        plane.stop()
    assert [pid for pid in pids if start_time(pid) is not None] == []


def test_the_api_server_shows_its_client_certificate_to_a_webhook(plane: Plane, tmp_path: Path, namespace: str) -> None:
    seen: list[dict[str, Any]] = []

    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert isinstance(self.connection, ssl.SSLSocket)
            seen.append(dict(self.connection.getpeercert() or {}))
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = {"uid": review["request"]["uid"], "allowed": False, "status": {"message": "seen and refused"}}
            body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    ca = LocalCA("webhook")
    certificate, key = ca.issue("webhook", names=["127.0.0.1"]).write(tmp_path, "webhook")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(cadata=plane.webhook_client_ca.pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    name = f"{namespace}.example.com"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    hook = {
        "name": name,
        "clientConfig": {
            "url": f"https://127.0.0.1:{server.server_address[1]}/",
            "caBundle": b64encode(ca.pem).decode(),
        },
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
    plane.kubectl("create", "-f", "-", data=json.dumps({**kind, "metadata": {"name": name}, "webhooks": [hook]}))
    try:
        # A new configuration takes up to a second to be seen by the API server: every name is tried once.
        refused = ""
        for number in range(100):
            try:
                plane.kubectl("create", "configmap", f"c{number}", "-n", namespace)
            except PlaneError as error:
                refused = str(error)
                break
        assert "seen and refused" in refused
        assert seen[-1]["subject"] == ((("commonName", "kube-apiserver"),),)
    finally:
        plane.kubectl("delete", "validatingwebhookconfiguration", name)
        server.shutdown()
        server.server_close()
        thread.join()
