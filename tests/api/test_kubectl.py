"""What people see with kubectl: columns, category, explanations, defaults, status."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from countersign.api import KINDS
from countersign.devcluster import PlaneError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from countersign.devcluster import Plane

pytestmark = pytest.mark.plane

GOOD = Path(__file__).parents[1] / "data" / "crds" / "good"
ONE_OF_EACH = {
    "IdentityIssuer": "identityissuer-default",
    "DevicePool": "devicepool-racks",
    "Device": "device-worker-1",
    "AgentIdentity": "agentidentity-refund-agent",
    "AgentInstance": "agentinstance-run",
    "ToolServer": "toolserver-stripe",
    "ToolPolicy": "toolpolicy-refunds",
    "ClusterToolPolicy": "clustertoolpolicy-baseline",
}
SHORT = {
    "csissuer": "IdentityIssuer",
    "cspool": "DevicePool",
    "csdev": "Device",
    "csid": "AgentIdentity",
    "csinst": "AgentInstance",
    "cssrv": "ToolServer",
    "cstp": "ToolPolicy",
    "csctp": "ClusterToolPolicy",
}
HEADINGS = {
    "IdentityIssuer": "NAME|TRUST DOMAIN|TYPE|READY|CA EXPIRES|REASON*|AGE",
    "DevicePool": "NAME|ASSURANCE|ENROLLMENT|DEVICES|ATTESTED|READY|AGE",
    "Device": "NAME|POOL|STATE|ASSURANCE|ATTESTED|NODE|LAST ATTESTED|OWNER*|INSTANCES*|AGE",
    "AgentIdentity": "NAME|SERVICE ACCOUNT|ASSURANCE|KEY TIER|TASKS|INSTANCES|READY|REASON*|SPIFFE ID*|AGE",
    "AgentInstance": "NAME|AGENT|DEVICE|ASSURANCE|ATTESTED|READY|REASON|TASK|EXPIRES*|POD*|SPIFFE ID*|AGE",
    "ToolServer": "NAME|AUDIENCE|PROTOCOL|ENFORCEMENT|TOOLS|ACCEPTED|PINNED|MIN TIER*|AGE",
    "ToolPolicy": "NAME|MODE|RULES|AGENTS|ACCEPTED|REFS*|DIGEST*|AGE",
    "ClusterToolPolicy": "NAME|MODE|RULES|AGENTS|ACCEPTED|REFS*|DIGEST*|AGE",
}
SINCE = "2026-11-24T04:00:00Z"


class Objects:
    """One object of each kind, named for this module, and kubectl with a discovery cache of its own."""

    def __init__(self, plane: Plane, namespace: str, cache: Path) -> None:
        self.plane, self.namespace, self.cache = plane, namespace, cache
        self.names: dict[str, str] = {}
        for kind, stem in ONE_OF_EACH.items():
            found = yaml.safe_load((GOOD / f"{stem}.yaml").read_text("utf-8"))
            self.names[kind] = found["metadata"]["name"] = namespace
            if "namespace" in found["metadata"]:
                found["metadata"]["namespace"] = namespace
            plane.kubectl("create", "--validate=strict", "-f", "-", data=json.dumps(found))

    def kubectl(self, *arguments: str) -> str:
        return self.plane.kubectl(f"--cache-dir={self.cache}", *arguments)

    def get(self, resource: str, *flags: str) -> list[str]:
        return self.kubectl("get", resource, self.namespace, "-n", self.namespace, *flags).splitlines()

    def status(self, kind: str, status: dict[str, Any]) -> None:
        patch = json.dumps({"status": status})
        self.kubectl(
            "patch", kind, self.namespace, "-n", self.namespace, "--subresource=status", "--type=merge", "-p", patch
        )

    def cells(self, resource: str, *flags: str) -> list[str]:
        """Return the words of the one row, without name and age."""
        return self.get(resource, "--no-headers", *flags)[0].split()[1:-1]


@pytest.fixture(scope="module")
def objects(crds: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Objects]:
    namespace = f"test-{uuid.uuid4().hex[:12]}"
    crds.kubectl("create", "namespace", namespace)
    yield Objects(crds, namespace, tmp_path_factory.mktemp("discovery"))
    for kind in KINDS:
        if kind.names.scope == "Cluster":
            crds.kubectl("delete", f"{kind.names.plural}.countersign.dev", namespace)


def condition(kind: str, status: str, reason: str) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": SINCE}


@pytest.mark.parametrize("short", SHORT)
def test_the_columns_are_those_of_the_paper(objects: Objects, short: str) -> None:
    said = HEADINGS[SHORT[short]].split("|")
    assert objects.get(short)[0].split("   ")[0] == "NAME"
    assert headings(objects.get(short)[0]) == [one for one in said if not one.endswith("*")]
    assert headings(objects.get(short, "-o", "wide")[0]) == [one.removesuffix("*") for one in said]


def headings(line: str) -> list[str]:
    return [one.strip() for one in line.split("   ") if one.strip()]


def test_all_kinds_are_in_the_category(objects: Objects) -> None:
    lines = objects.kubectl("get", "countersign", "-A", "-o", "name").splitlines()
    mine = {line.partition(".")[0] for line in lines if line.endswith(f"/{objects.namespace}")}
    assert mine == {kind.__name__.lower() for kind in KINDS}


def test_conditions_are_shown_in_columns(objects: Objects) -> None:
    objects.status(
        "IdentityIssuer", {"conditions": [condition("Ready", "True", "CAExpiring")], "expirationTime": SINCE}
    )
    assert objects.cells("csissuer") == ["agents.example.com", "Embedded", "True", SINCE]
    assert objects.cells("csissuer", "-o", "wide")[-1] == "CAExpiring"
    devices = {"total": 3, "approved": 2, "attested": 0}
    objects.status("DevicePool", {"devices": devices, "conditions": [condition("Ready", "True", "Ready")]})
    assert objects.cells("cspool") == ["Hardware", "Request", "3", "0", "True"]
    attested = condition("Attested", "False", "NeverAttested")
    objects.status("Device", {"assurance": "Hardware", "instances": 0, "conditions": [attested]})
    assert objects.cells("csdev") == ["racks", "Approved", "Hardware", "False", "worker-1.eu.example.com"]
    assert objects.cells("csdev", "-o", "wide")[-2:] == ["platform", "0"]
    ready = condition("Ready", "False", "IssuerNotFound")
    objects.status("AgentIdentity", {"instances": 0, "conditions": [ready], "spiffeID": "spiffe://d/ns/n/sa/a"})
    assert objects.cells("csid") == ["refund-agent", "Hardware", "TPMSession", "Required", "0", "False"]
    assert objects.cells("csid", "-o", "wide")[-2:] == ["IssuerNotFound", "spiffe://d/ns/n/sa/a"]
    both = [condition("Attested", "True", "Attested"), condition("Ready", "False", "WaitingForCertificate")]
    certificate = {
        "serialNumber": "5f:0a",
        "keyThumbprint": "t",
        "notBefore": SINCE,
        "notAfter": "2099-01-01T00:00:00Z",
    }
    objects.status("AgentInstance", {"assurance": "Virtual", "conditions": both, "certificate": certificate})
    waiting = ["coder", "laptop-ana", "Virtual", "True", "False", "WaitingForCertificate"]
    assert objects.cells("csinst") == waiting
    assert objects.cells("csinst", "-o", "wide")[-1] == "2099-01-01T00:00:00Z"
    accepted = condition("Accepted", "True", "Accepted")
    objects.status("ToolServer", {"tools": 2, "conditions": [accepted, condition("ToolsPinned", "False", "Unpinned")]})
    assert objects.cells("cssrv")[1:] == ["MCP", "Verifier", "2", "True", "False"]
    assert objects.cells("cssrv", "-o", "wide")[-1] == "TPMSession"
    resolved = condition("ResolvedRefs", "False", "RefNotFound")
    for kind, short in (("ToolPolicy", "cstp"), ("ClusterToolPolicy", "csctp")):
        objects.status(kind, {"rules": 4, "matchedAgents": 1, "conditions": [accepted, resolved]})
        assert objects.cells(short) == ["Enforce", "4", "1", "True"]
        assert objects.cells(short, "-o", "wide")[-1] == "False"


def test_status_is_written_by_its_own_door_only(objects: Objects) -> None:
    before = json.loads("".join(objects.get("cstp", "-o", "json")))
    patch = json.dumps({"status": {"rules": 99}, "spec": {"description": "changed"}})
    objects.kubectl("patch", "cstp", objects.namespace, "-n", objects.namespace, "--type=merge", "-p", patch)
    after = json.loads("".join(objects.get("cstp", "-o", "json")))
    assert after.get("status", {}).get("rules") != 99
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1


def test_two_writers_of_conditions_keep_each_others(objects: Objects) -> None:
    for manager, kind in (("countersign-authority", "Attested"), ("countersign-operator", "Ready")):
        one = {
            "apiVersion": "countersign.dev/v1alpha1",
            "kind": "AgentInstance",
            "metadata": {"name": objects.namespace, "namespace": objects.namespace},
            "status": {"conditions": [condition(kind, "True", kind)]},
        }
        flags = ("--server-side", f"--field-manager={manager}", "--subresource=status", "--force-conflicts", "-f", "-")
        objects.plane.kubectl("apply", *flags, data=json.dumps(one))
    found = json.loads("".join(objects.get("csinst", "-o", "json")))["status"]["conditions"]
    assert {each["type"] for each in found} == {"Attested", "Ready"}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("device", "One TPM in the inventory"),
        ("device.spec.state", "The decision of people"),
        ("agentinstance.spec.pod.imageDigests", "Images of all containers but the signer"),
        ("toolpolicy.spec.rules.arguments.whenMissing", "What a missing value means"),
        ("clustertoolpolicy.spec.namespaceSelector.matchLabels", "Labels with exactly these values"),
        ("toolserver.spec.tools.inputSchema", "JSON Schema of the arguments"),
        ("identityissuer.spec.acme.directoryURL", "URL of the CA's ACME directory"),
    ],
)
def test_kubectl_explains(objects: Objects, path: str, words: str) -> None:
    said = " ".join(explained(objects, path).split())
    assert words in said


def explained(objects: Objects, path: str) -> str:
    """Ask until the API server publishes the schema, a moment after it serves the kind."""
    end = time.monotonic() + 30
    while True:
        try:
            return objects.kubectl("explain", path)
        except PlaneError:
            if time.monotonic() > end:
                raise


def created(plane: Plane, kind: str, spec: dict[str, Any], namespace: str) -> dict[str, Any]:
    one = {"apiVersion": "countersign.dev/v1alpha1", "kind": kind, "metadata": {"name": "small"}, "spec": spec}
    answer = plane.kubectl("create", "--dry-run=server", "-n", namespace, "-o", "json", "-f", "-", data=json.dumps(one))
    found: dict[str, Any] = json.loads(answer)["spec"]
    return found


IDENTITY_DEFAULTS = {
    "issuerRef": {"name": "default"},
    "lifeSeconds": 3600,
    "minAssurance": "Hardware",
    "minKeyTier": "TPMSession",
    "tasks": "Required",
    "signer": {"injection": "Sidecar", "port": 7080},
}
SERVER = {
    "audience": "https://t.example.com",
    "protocol": "MCP",
    "tools": [{"name": "t", "access": "ReadOnly", "inputSchema": {"type": "object", "additionalProperties": False}}],
}


@pytest.mark.parametrize(
    ("kind", "spec", "added"),
    [
        ("IdentityIssuer", {"trustDomain": "d", "type": "Embedded"}, {"lifeSeconds": 14400}),
        (
            "DevicePool",
            {"assurance": "Software"},
            {"enrollment": "Refuse", "attestation": {"maxAgeSeconds": 28800}, "devicesPerNode": 1},
        ),
        (
            "Device",
            {"poolRef": {"name": "p"}, "binding": {"type": "Node", "node": {"name": "n"}}},
            {"state": "Pending"},
        ),
        ("AgentIdentity", {"serviceAccountName": "a"}, IDENTITY_DEFAULTS),
        ("AgentIdentity", {"serviceAccountName": "a", **dict.fromkeys(IDENTITY_DEFAULTS)}, IDENTITY_DEFAULTS),
        (
            "ToolServer",
            SERVER,
            {
                "enforcement": "Verifier",
                "exposeTo": {"from": "Same"},
                "requires": {"minAssurance": "Virtual", "minKeyTier": "TPMSession"},
            },
        ),
        ("ToolPolicy", {"rules": [{"name": "stop", "effect": "Deny"}]}, {"mode": "Enforce"}),
    ],
)
def test_defaults_are_filled_in_and_an_explicit_null_is_none(
    crds: Plane, namespace: str, kind: str, spec: dict[str, Any], added: dict[str, Any]
) -> None:
    assert created(crds, kind, spec, namespace) == {**spec, **added}


def test_inner_defaults(crds: Plane, namespace: str) -> None:
    ref = {"name": "a", "uid": "u"}
    instance = {"agentRef": ref, "deviceRef": ref, "type": "Run", "run": {"username": "u", "client": None}}
    found = created(crds, "AgentInstance", instance, namespace)
    assert (found["state"], found["run"]) == ("Active", {"username": "u", "client": "Countersign"})
    rule = {"name": "ask", "effect": "RequireApproval", "tools": [{"server": {"name": "s"}}], "approval": {}}
    found = created(crds, "ToolPolicy", {"rules": [rule]}, namespace)
    assert found["rules"][0]["approval"] == {"expiresSeconds": 900}
    found = created(crds, "AgentIdentity", {"serviceAccountName": "a", "signer": {"port": 7090}}, namespace)
    assert found["signer"] == {"injection": "Sidecar", "port": 7090}
