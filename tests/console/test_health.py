"""Is Countersign well: each part of the answer, from objects of one moment."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from countersign.console.health import Seen, judge
from countersign.devcluster import LocalCA

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
CA = base64.b64encode(LocalCA("serving").pem).decode()


def thing(kind: str, name: str, namespace: str | None = None, **more: Any) -> dict[str, Any]:
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"kind": kind, "metadata": meta, "spec": {}, **more}


def told(status: str, reason: str, kind: str = "Ready", message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": status, "reason": reason, "message": message}]}


def deployment(name: str, ready: int = 1, replicas: int = 1) -> dict[str, Any]:
    return thing("Deployment", f"countersign-{name}", spec={"replicas": replicas}, status={"readyReplicas": ready})


def hooks(bundle: str = CA, policy: str = "Fail") -> list[dict[str, Any]]:
    hook = {"name": "pods.countersign.dev", "clientConfig": {"caBundle": bundle}, "failurePolicy": policy}
    return [
        thing(kind, "countersign", webhooks=[hook])
        for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
    ]


def lease(seconds_ago: float = 2, holder: str = "pod-1") -> dict[str, Any]:
    at = (NOW - timedelta(seconds=seconds_ago)).isoformat()
    return thing(
        "Lease", "countersign-operator", spec={"renewTime": at, "holderIdentity": holder, "leaseDurationSeconds": 15}
    )


def crd(name: str, status: str = "True") -> dict[str, Any]:
    established = [{"type": "Established", "status": status}]
    return thing(
        "CustomResourceDefinition", name, spec={"group": "countersign.dev"}, status={"conditions": established}
    )


def issuer(status: str = "True", reason: str = "Ready", days: int = 300) -> dict[str, Any]:
    until = (NOW + timedelta(days=days)).isoformat()
    return thing(
        "IdentityIssuer",
        "default",
        spec={"trustDomain": "a.example"},
        status={**told(status, reason), "expirationTime": until},
    )


def device(name: str, state: str = "Approved", **status: Any) -> dict[str, Any]:
    return thing("Device", name, spec={"state": state}, status=status or told("True", "Attested", "Attested"))


WELL = Seen(
    version="v1.34.4",
    now=NOW,
    server_now=NOW,
    system="countersign-system",
    crds=[crd(f"{number}.countersign.dev") for number in range(8)],
    workloads=[deployment("operator"), deployment("webhook"), deployment("authority")],
    pods=[],
    hooks=hooks(),
    leases=[lease()],
    issuers=[issuer()],
    pools=[thing("DevicePool", "racks", status=told("True", "Ready"))],
    devices=[device("worker-1")],
    identities=[thing("AgentIdentity", "agent", "billing", status=told("True", "Ready"))],
    instances=[thing("AgentInstance", "agent-1", "billing", status=told("True", "Ready"))],
    servers=[thing("ToolServer", "stripe", "billing", status=told("True", "Accepted", "Accepted"))],
    policies=[],
)


def said(seen: Seen, part: str) -> tuple[str, str]:
    [found] = [one for one in judge(seen) if one.part == part]
    return found.state, found.detail


def test_a_cluster_in_order_is_well() -> None:
    assert {one.part: one.state for one in judge(WELL) if one.state != "ok"} == {}


HIDDEN = [name for name in vars(WELL) if isinstance(getattr(WELL, name), list) and name != "pods"]


@pytest.mark.parametrize("name", HIDDEN)
def test_what_may_not_be_seen_is_never_well(name: str) -> None:
    assert "unknown" in {one.state for one in judge(replace(WELL, **{name: None}))}


POD = {
    "kind": "Pod",
    "metadata": {"name": "w", "labels": {"app.kubernetes.io/component": "webhook"}},
    "status": {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]},
}
STRANDED = {
    "kind": "Pod",
    "metadata": {"name": "w", "labels": {"app.kubernetes.io/component": "webhook"}},
    "status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]},
}
EMPTY = thing("DaemonSet", "countersign-node", status={"desiredNumberScheduled": 0, "numberReady": 0})
HALF = thing("DaemonSet", "countersign-node", status={"desiredNumberScheduled": 2, "numberReady": 1})


@pytest.mark.parametrize(
    ("change", "part", "state", "detail"),
    [
        (
            {"now": NOW + timedelta(minutes=10)},
            "clock",
            "bad",
            "this machine is 10m off: what it shows as ages is wrong",
        ),
        ({"crds": WELL.crds[:7] if WELL.crds else []}, "kinds", "bad", "7 of 8 established"),
        ({"crds": [*(WELL.crds or [])[:7], crd("x", "False")]}, "kinds", "bad", "7 of 8 established"),
        (
            {"workloads": [deployment("webhook", 1, 2)], "pods": [POD]},
            "webhook",
            "bad",
            "1 of 2 ready: ImagePullBackOff",
        ),
        (
            {"workloads": [deployment("webhook", 0)], "pods": [STRANDED]},
            "webhook",
            "bad",
            "0 of 1 ready: Unschedulable",
        ),
        ({"workloads": [deployment("webhook", 0, 0)]}, "webhook", "bad", "0 of 0 ready"),
        (
            {"workloads": []},
            "operator",
            "unknown",
            "no Deployment countersign-operator in countersign-system: it runs elsewhere or not",
        ),
        ({"workloads": [EMPTY]}, "node", "ok", "0 of 0 ready"),
        ({"workloads": [HALF]}, "node", "bad", "1 of 2 ready"),
        ({"leases": []}, "leader", "bad", "no operator leads: nothing is reconciled"),
        ({"leases": [lease(holder="")]}, "leader", "bad", "no operator leads: nothing is reconciled"),
        ({"leases": [lease(70)]}, "leader", "bad", "pod-1 was last heard of 70s ago"),
        ({"leases": [lease(-600)]}, "leader", "bad", "the clock of pod-1 is 10m ahead of the API server's"),
        ({"hooks": []}, "injection", "bad", "there is no MutatingWebhookConfiguration countersign"),
        (
            {"hooks": hooks("")},
            "injection",
            "bad",
            "the API server was told no CA of the webhook: the operator writes it",
        ),
        ({"hooks": hooks(policy="Ignore")}, "validation", "bad", "failurePolicy Ignore: pods.countersign.dev"),
        ({"issuers": []}, "issuers", "waiting", "there is none: no agent can get a certificate"),
        ({"issuers": [issuer("False", "SecretInvalid")]}, "issuer default", "bad", "SecretInvalid"),
        ({"issuers": [issuer(days=29)]}, "issuer default", "bad", "its CA ends on 2026-12-23"),
        (
            {"devices": [device("a"), device("b", "Pending", x=1)]},
            "devices",
            "waiting",
            "1 approved, 1 attested; 1 wait: kubectl countersign device list --pending",
        ),
        (
            {"devices": [device("a", **told("True", "DuplicateEK", "Conflicted"))]},
            "devices",
            "bad",
            "1 approved, 0 attested; in conflict: a",
        ),
        (
            {"identities": [thing("AgentIdentity", "agent", "billing", status=told("False", "Overlap"))]},
            "identities",
            "bad",
            "0 of 1 Ready; billing/agent (Overlap)",
        ),
        ({"pools": [thing("DevicePool", "new")]}, "pools", "bad", "0 of 1 Ready; new (not looked at yet)"),
        (
            {"instances": [thing("AgentInstance", "i", "billing", status=told("True", "ByPerson", "Revoked"))]},
            "instances",
            "ok",
            "0 of 0 Ready; 1 revoked",
        ),
        (
            {"policies": [thing("ToolPolicy", "p", "billing", status=told("True", "Accepted", "Accepted"))]},
            "policies",
            "bad",
            "0 of 1 Accepted; billing/p (not looked at yet)",
        ),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, Any], part: str, state: str, detail: str) -> None:
    assert said(replace(WELL, **change), part) == (state, detail)


def test_an_ended_ca_is_not_well() -> None:
    later = replace(WELL, now=NOW + timedelta(days=20000), server_now=NOW + timedelta(days=20000))
    state, detail = said(later, "injection")
    assert (state, detail.startswith("the CA that the API server believes ended on")) == ("bad", True)


def test_a_long_list_is_cut() -> None:
    many = [thing("AgentIdentity", f"a{number}", "n", status=told("False", "Overlap")) for number in range(9)]
    assert said(replace(WELL, identities=many), "identities")[1].endswith("n/a2 (Overlap) and 6 more")
