"""What ``kubectl get`` prints of our kinds on a real API server: section 7 of docs/crds.md, and the columns of section 3."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from countersign.devcluster import Plane

pytestmark = pytest.mark.plane

UID = "0f4f3f5c-1111-4222-8333-444455556666"
SPIFFE = "spiffe://agents.example.com/ns/NAMESPACE/sa/refund-agent"
KINDS = {
    "csissuer": "identityissuers",
    "cspool": "devicepools",
    "csdev": "devices",
    "csid": "agentidentities",
    "csinst": "agentinstances",
    "cssrv": "toolservers",
    "cstp": "toolpolicies",
    "csctp": "clustertoolpolicies",
}
EXPECTED = {
    "csissuer": """
NAME   TRUST DOMAIN          TYPE       READY   CA EXPIRES             REASON       AGE
ID     agents.example.com    Embedded   True    2026-12-24T12:00:00Z   CAExpiring   0s
""",
    "cspool": """
NAME   ASSURANCE   ENROLLMENT   DEVICES   ATTESTED   READY   AGE
ID     Virtual     Request      2         1          True    0s
""",
    "csdev": """
NAME          POOL   STATE      ASSURANCE   ATTESTED   NODE                      LAST ATTESTED   OWNER      INSTANCES   AGE
ID-laptop     ID     Pending                False                                                                       0s
ID-worker-1   ID     Approved   Hardware    True       worker-1.eu.example.com   13m             platform   1           0s
""",
    "csid": """
NAME             SERVICE ACCOUNT   ASSURANCE   KEY TIER     TASKS      INSTANCES   READY   REASON           SPIFFE ID   AGE
nightly-report   nightly-report    Hardware    TPMSession   Optional   0           False   IssuerNotFound               0s
refund-agent     refund-agent      Hardware    TPMSession   Required   1           True    Ready            SPIFFE      0s
""",
    "csinst": """
NAME                 AGENT          DEVICE     ASSURANCE   ATTESTED   READY   REASON                  TASK          EXPIRES                POD           SPIFFE ID   AGE
refund-agent-7f9c4   refund-agent   worker-1   Hardware    True       True    Ready                   ticket-8123   2026-11-24T13:00:00Z   refund-x2x9p   SPIFFE      0s
refund-agent-8g2d5   refund-agent   worker-1   Hardware    True       False   WaitingForCertificate                                        refund-x2x9p   SPIFFE      0s
""",
    "cssrv": """
NAME     AUDIENCE                           PROTOCOL   ENFORCEMENT   TOOLS   ACCEPTED   PINNED   MIN TIER     AGE
stripe   https://tools.example.com/stripe   MCP        Verifier      1       True       False    TPMSession   0s
""",
    "cstp": """
NAME      MODE      RULES   AGENTS   ACCEPTED   REFS    DIGEST   AGE
refunds   Enforce   1       1        True       False   DIGEST   0s
""",
    "csctp": """
NAME   MODE    RULES   AGENTS   ACCEPTED   REFS   DIGEST   AGE
ID     Audit   1       3        True       True   DIGEST   0s
""",
}
DIGEST = f"sha256:{'d' * 64}"
WIDE = {  # the columns that only -o wide has, by section 3
    "csissuer": ["REASON"],
    "cspool": [],
    "csdev": ["OWNER", "INSTANCES"],
    "csid": ["REASON", "SPIFFE ID"],
    "csinst": ["EXPIRES", "POD", "SPIFFE ID"],
    "cssrv": ["MIN TIER"],
    "cstp": ["REFS", "DIGEST"],
    "csctp": ["REFS", "DIGEST"],
}


def condition(kind: str, status: str, reason: str) -> dict[str, Any]:
    at = "2026-11-24T12:00:00Z"
    return {"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": at}


def instance(reason: str, status: str, *, task: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    pod = {"name": "refund-x2x9p", "uid": UID, "nodeName": "worker-1.eu.example.com"}
    spec = {"agentRef": {"name": "refund-agent", "uid": UID}, "deviceRef": {"name": "worker-1", "uid": UID}}
    found: dict[str, Any] = {
        "spiffeID": SPIFFE,
        "assurance": "Hardware",
        "conditions": [condition("Attested", "True", "Attested"), condition("Ready", status, reason)],
    }
    if task:
        found["taskRef"] = {"name": "ticket-8123", "uid": UID}
        found["certificate"] = {
            "serialNumber": "5f:0a",
            "keyThumbprint": "A" * 43,
            "notBefore": "2026-11-24T12:00:00Z",
            "notAfter": "2026-11-24T13:00:00Z",
        }
    return {**spec, "type": "Pod", "pod": pod}, found


def objects(own: str) -> list[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """Kind, name, spec and status of each; ``own`` is the name of those of the cluster."""
    ek = [f"sha256:{sha256((own + mark).encode()).hexdigest()}" for mark in "ab"]
    seen = (datetime.now(UTC) - timedelta(minutes=13, seconds=20)).strftime("%Y-%m-%dT%H:%M:%SZ")
    rule = {"name": "read", "effect": "Allow", "tools": [{"server": {"name": "stripe"}}]}
    tool = {"name": "get_charge", "access": "ReadOnly", "inputSchema": {"type": "object"}}
    ready = [condition("Ready", "True", "Ready")]
    accepted = condition("Accepted", "True", "Accepted")
    refs = {
        "True": condition("ResolvedRefs", "True", "ResolvedRefs"),
        "False": condition("ResolvedRefs", "False", "RefNotFound"),
    }
    bound = {"type": "Node", "node": {"name": "worker-1.eu.example.com"}}
    return [
        (
            "IdentityIssuer",
            own,
            {"trustDomain": "agents.example.com", "type": "Embedded"},
            {"expirationTime": "2026-12-24T12:00:00Z", "conditions": [condition("Ready", "True", "CAExpiring")]},
        ),
        (
            "DevicePool",
            own,
            {
                "assurance": "Virtual",
                "enrollment": "Request",
                "ekRoots": "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
            },
            {"devices": {"total": 2, "approved": 1, "attested": 1}, "conditions": ready},
        ),
        (
            "Device",
            f"{own}-laptop",
            {
                "poolRef": {"name": own},
                "ek": {"publicKeySHA256": ek[0]},
                "binding": {"type": "Users", "users": ["ana@example.com"]},
            },
            {"conditions": [condition("Attested", "False", "NotApproved")]},
        ),
        (
            "Device",
            f"{own}-worker-1",
            {
                "poolRef": {"name": own},
                "ek": {"publicKeySHA256": ek[1]},
                "binding": bound,
                "owner": "platform",
                "state": "Approved",
            },
            {
                "assurance": "Hardware",
                "attestationTime": seen,
                "instances": 1,
                "conditions": [condition("Attested", "True", "Attested")],
            },
        ),
        (
            "AgentIdentity",
            "nightly-report",
            {"serviceAccountName": "nightly-report", "tasks": "Optional"},
            {"instances": 0, "conditions": [condition("Ready", "False", "IssuerNotFound")]},
        ),
        (
            "AgentIdentity",
            "refund-agent",
            {"serviceAccountName": "refund-agent"},
            {"instances": 1, "readyInstances": 1, "spiffeID": SPIFFE, "conditions": ready},
        ),
        ("AgentInstance", "refund-agent-7f9c4", *instance("Ready", "True", task=True)),
        ("AgentInstance", "refund-agent-8g2d5", *instance("WaitingForCertificate", "False", task=False)),
        (
            "ToolServer",
            "stripe",
            {"audience": "https://tools.example.com/stripe", "protocol": "MCP", "requires": {}, "tools": [tool]},
            {"tools": 1, "conditions": [accepted, condition("ToolsPinned", "False", "Unpinned")]},
        ),
        (
            "ToolPolicy",
            "refunds",
            {"rules": [rule]},
            {"rules": 1, "matchedAgents": 1, "digest": DIGEST, "conditions": [accepted, refs["False"]]},
        ),
        (
            "ClusterToolPolicy",
            own,
            {"mode": "Audit", "rules": [{"name": "stop", "effect": "Deny"}]},
            {"rules": 1, "matchedAgents": 3, "digest": DIGEST, "conditions": [accepted, refs["True"]]},
        ),
    ]


@pytest.fixture(scope="module")
def shown(crds: Plane) -> Iterator[tuple[Plane, str]]:
    """A plane on which the objects of section 7 are in their states, in a namespace of this name."""
    own = f"test-columns-{datetime.now(UTC):%H%M%S%f}"
    crds.kubectl("create", "namespace", own)
    made = [(kind, name, status) for kind, name, _spec, status in objects(own)]
    items = [
        {
            "apiVersion": "countersign.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "namespace": own},
            "spec": spec,
        }
        for kind, name, spec, _status in objects(own)
    ]
    for item in items:
        if item["kind"] in ("IdentityIssuer", "DevicePool", "Device", "ClusterToolPolicy"):
            del item["metadata"]["namespace"]
    crds.kubectl(
        "apply", "--server-side", "-f", "-", data=json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    )
    for kind, name, status in made:
        patch = json.dumps({"status": status})
        crds.kubectl("patch", kind, name, "-n", own, "--subresource=status", "--type=merge", "-p", patch)
    yield crds, own
    for kind, name, _status in made:
        crds.kubectl("delete", kind, name, "-n", own, check=False)


def table(text: str) -> list[dict[str, str]]:
    """Read a table of kubectl: columns begin where their heads do."""
    head, *lines = text.strip("\n").splitlines()
    starts = [(match.start(), match[0].strip()) for match in re.finditer(r"\S+(?: \S+)*", head)]
    ends = [start for start, _name in starts[1:]] + [None]
    return [
        {name: line[start:end].strip() for (start, name), end in zip(starts, ends, strict=True)}
        for line in lines
        if line.strip()
    ]


def printed(plane: Plane, own: str, short: str, *words: str) -> list[dict[str, str]]:
    text = plane.kubectl("get", short, "-n", own, *words)
    rows = [row for row in table(text) if short not in ("csissuer", "cspool", "csdev", "csctp") or own in row["NAME"]]
    assert all(re.fullmatch(r"\d+[smh]\d*[sm]?", row["AGE"]) for row in rows), text
    return [row | {"AGE": "0s"} for row in rows]


def expected(own: str, short: str) -> list[dict[str, str]]:
    said = {"SPIFFE": SPIFFE, "DIGEST": DIGEST}
    return [
        {name: re.sub(r"\bID\b", own, said.get(cell, cell)) for name, cell in row.items()}
        for row in table(EXPECTED[short])
    ]


@pytest.mark.parametrize("short", KINDS)
def test_wide_columns_are_those_of_the_page(shown: tuple[Plane, str], short: str) -> None:
    assert printed(*shown, short, "-o", "wide") == expected(shown[1], short)


@pytest.mark.parametrize("short", KINDS)
def test_columns_are_those_of_the_page(shown: tuple[Plane, str], short: str) -> None:
    wanted = [
        {name: cell for name, cell in row.items() if name not in WIDE[short]} for row in expected(shown[1], short)
    ]
    assert printed(*shown, short) == wanted


def test_every_kind_is_in_the_category_by_its_short_name(crds: Plane) -> None:
    lines = crds.kubectl("api-resources", "--api-group=countersign.dev", "--no-headers", "--categories=countersign")
    assert {line.split()[1]: line.split()[0] for line in lines.splitlines()} == KINDS


def test_the_category_lists_all_of_them(shown: tuple[Plane, str]) -> None:
    plane, own = shown
    found = plane.kubectl("get", "countersign", "-n", own, "-o", "name")
    for plural in (
        "agentidentity",
        "agentinstance",
        "toolserver",
        "toolpolicy",
        "device",
        "devicepool",
        "identityissuer",
    ):
        assert f"{plural}.countersign.dev/" in found
