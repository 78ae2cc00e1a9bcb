"""CI runners: what a person copies is accepted, holds no secret, is injected whole, and decides as its README says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from policy.given import question
from support.chart import apply
from support.ci_runner import FOLDER, job, objects
from support.jsonpatch import patched

from countersign.kube.injection import InjectionSettings, hindrances, inject, injection_faults, select_identities
from countersign.policy import Catalogue, RuleSet, audience_owned, decide

if TYPE_CHECKING:
    from collections.abc import Iterator

    from countersign.devcluster import Plane

FILES = ("10-tools.yaml", "20-job.yaml", "30-runners.yaml")
SIGNER = InjectionSettings(image="countersign:test", version="0.1.0")
OPTED_IN = {"countersign.dev/injection": "enabled"}


def every() -> list[dict[str, Any]]:
    return [each for name in FILES for each in objects(name, "ci")]


def one(kind: str, name: str) -> dict[str, Any]:
    (found,) = [each for each in every() if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def pod(name: str) -> dict[str, Any]:
    template = one({"job": "Job", "runner": "Deployment"}[name], name)["spec"]["template"]
    return {**template, "metadata": {**template["metadata"], "name": name, "namespace": "ci"}}


@pytest.mark.plane
def test_the_api_server_accepts_every_object_strictly(crds: Plane, namespace: str) -> None:
    found = [each for name in FILES for each in objects(name, namespace)]

    said = apply(crds, found, "--dry-run=server")

    assert len(said.splitlines()) == len(found) == 8


@pytest.mark.plane
def test_the_job_for_real_nodes_is_the_one_of_the_example(crds: Plane, namespace: str) -> None:
    identity, work = job(namespace, "countersign:test", node="node-a")

    assert apply(crds, [each for text in (identity, work) for each in yaml.safe_load_all(text)], "--dry-run=server")
    spec = yaml.safe_load(work)["spec"]["template"]["spec"]
    del spec["nodeSelector"], spec["containers"][0]["imagePullPolicy"]
    spec["containers"][0]["image"] = pod("job")["spec"]["containers"][0]["image"]
    assert spec == pod("job")["spec"]


@pytest.mark.parametrize("name", ["job", "runner"])
def test_a_pod_is_one_agent_and_is_injected_whole(name: str) -> None:
    identities = [each for each in every() if each["kind"] == "AgentIdentity"]

    [identity] = select_identities(pod(name), identities, OPTED_IN)

    assert identity["metadata"]["name"] == name
    assert hindrances(pod(name), identity, SIGNER) == []
    assert injection_faults(patched(pod(name), inject(pod(name), identity, SIGNER)), identity, SIGNER) == []


def test_nothing_holds_a_secret() -> None:
    text = "\n".join(path.read_text() for path in FOLDER.glob("*.yaml"))
    pods = [pod(name)["spec"] for name in ("job", "runner")]

    assert "secret" not in "".join(line for line in text.lower().splitlines() if not line.lstrip().startswith("#"))
    assert [spec["automountServiceAccountToken"] for spec in pods] == [False, False]
    assert [container.get("env") for spec in pods for container in spec["containers"]] == [None, None]


def test_the_namespace_is_injected_and_may_have_tpms() -> None:
    [namespace] = objects("00-namespace.yaml", "ci")
    assert namespace["metadata"]["labels"] == {**OPTED_IN, "countersign.dev/tpm": "allowed"}
    server = one("ToolServer", "tools")
    assert audience_owned(server["spec"]["audience"], "ci", [])


@pytest.mark.parametrize(
    ("agent", "tool", "arguments", "code"),
    [
        ("job", "read", {"name": "job"}, "policy.allowed"),
        ("job", "publish", {"version": "1.0.0"}, "policy.allowed"),
        ("runner", "read", {"name": "runner"}, "policy.allowed"),
        ("runner", "publish", {"version": "1.0.0"}, "policy.default_deny"),
        ("job", "read", {"name": "job", "path": "/etc"}, "tool.arguments_invalid"),
    ],
)
def test_a_call_is_decided_as_the_readme_says(agent: str, tool: str, arguments: dict[str, Any], code: str) -> None:
    spec = one("AgentIdentity", agent)["spec"]
    given = {
        "now": "2026-11-24T12:00:00Z",
        "cluster": "kind",
        "caller": {
            "agent": {
                "name": agent,
                "namespace": "ci",
                **{key: spec[key] for key in ("tasks", "minAssurance", "minKeyTier")},
            },
            "instance": {"name": f"{agent}-7f9c4", "uid": "1", "source": "Pod"},
            "device": {"name": "n", "pool": "lab", "assurance": "Virtual", "attestationTime": "2026-11-24T11:00:00Z"},
            "keyTier": "TPM",
        },
    }
    asked = question(given, {"server": "ci/tools", "tool": tool, "arguments": arguments})

    found = decide(
        asked, RuleSet.compile([one("ToolPolicy", "steps")]), Catalogue.build([one("ToolServer", "tools")], [])
    )

    assert found.code == code


class Loopback(BaseHTTPRequestHandler):
    """What a signer answers on loopback: an allowed call, or an error of JSON-RPC."""

    asked: list[tuple[str, dict[str, str], Any]]
    body: dict[str, Any]

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        type(self).asked.append((self.path, dict(self.headers.items()), request))
        data = json.dumps(type(self).body).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture
def loopback() -> Iterator[str]:
    Loopback.asked = []
    server = HTTPServer(("127.0.0.1", 0), Loopback)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("body", "status", "word"), [({"result": {"content": []}}, 0, "result"), ({"error": {"code": 403}}, 1, "refused")]
)
def test_the_step_calls_its_tool_and_says_how_it_went(
    loopback: str, body: dict[str, Any], status: int, word: str
) -> None:
    Loopback.body = {"jsonrpc": "2.0", "id": 1, **body}

    done = subprocess.run(
        [sys.executable, str(FOLDER / "step.py"), "read", '{"name": "job"}'],
        env={**os.environ, "COUNTERSIGN_URL": loopback},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )

    assert (done.returncode, list(json.loads(done.stdout))) == (status, ["status", word])
    [(path, headers, request)] = Loopback.asked
    assert (path, request["params"]) == ("/tools", {"name": "read", "arguments": {"name": "job"}})
    assert not {"authorization", "cookie"} & {name.lower() for name in headers}
