"""Why is this pod an agent, or why not: the way of an identity, and where it ended."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from countersign.console.diagnosis import Diagnosis, PodFacts, diagnose, hint
from countersign.errors import CODES

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ENABLED = {"countersign.dev/injection": "enabled"}
Change = dict[str, Any]


def told(status: str, reason: str, kind: str = "Ready", message: str = "") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def pod(*, signer: bool = True, phase: str = "Running", **spec: Any) -> dict[str, Any]:
    init = [{"name": "countersign-signer", "image": "s"}] if signer else []
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "agent-x2x9p",
            "namespace": "billing",
            "uid": "p1",
            "labels": {"app": "agent"},
            "annotations": {"countersign.dev/injected": "0.1.0"},
        },
        "spec": {
            "serviceAccountName": "agent",
            "nodeName": "worker-1",
            "initContainers": init,
            "containers": [{"name": "agent", "image": "a"}],
            **spec,
        },
        "status": {"phase": phase},
    }


def identity(name: str = "agent", *conditions: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "billing", "uid": f"i-{name}"},
        "spec": {"serviceAccountName": "agent", **spec},
        "status": {"conditions": list(conditions) or [told("True", "Ready")]},
    }


def instance(*conditions: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {"name": "agent-7f9c4", "namespace": "billing", "uid": "n1"},
        "spec": {
            "agentRef": {"name": "agent", "uid": "i-agent"},
            "deviceRef": {"name": "worker-1", "uid": "d1"},
            "pod": {"name": "agent-x2x9p", "uid": "p1"},
        },
        "status": {
            "conditions": list(conditions) or [told("True", "Ready"), told("True", "Attested", "Attested")],
            "certificate": {"notAfter": "2026-11-24T12:40:00Z"},
            "spiffeID": "spiffe://agents.example.com/ns/billing/sa/agent",
        },
    }


def device(state: str = "Approved") -> dict[str, Any]:
    return {
        "metadata": {"name": "worker-1", "uid": "d1"},
        "spec": {"state": state, "poolRef": {"name": "racks"}},
        "status": {"assurance": "Hardware", "conditions": [told("True", "Attested", "Attested")]},
    }


def event(note: str, count: int = 1, uid: str = "n1", source: str = "countersign-webhook") -> dict[str, Any]:
    found: dict[str, Any] = {
        "regarding": {"uid": uid},
        "type": "Warning",
        "reason": "CallsDenied",
        "note": note,
        "reportingController": source,
        "eventTime": "2026-11-24T11:00:00.000000Z",
    }
    if count > 1:
        found["series"] = {"count": count, "lastObservedTime": "2026-11-24T11:58:00.000000Z"}
    return found


WELL = PodFacts(
    pod=pod(), labels=ENABLED, identities=[identity()], instances=[instance()], devices=[device()], events=[], now=NOW
)


def text(found: Diagnosis, word: str) -> str:
    return next(text for each, text in found.lines if each.strip() == word)


def test_an_agent_that_may_call_is_told_whole() -> None:
    found = diagnose(WELL)

    assert found == Diagnosis(
        well=True,
        lines=[
            ("pod", "billing/agent-x2x9p: Running on node worker-1"),
            ("agent", "AgentIdentity agent: Ready"),
            ("signer", "injected by 0.1.0"),
            ("instance", "agent-7f9c4: Ready"),
            ("  Attested", "Attested"),
            ("  Revoked", "not looked at yet"),
            ("  certificate", "until 2026-11-24T12:40:00Z, 40m left"),
            ("  SPIFFE ID", "spiffe://agents.example.com/ns/billing/sa/agent"),
            ("device", "worker-1: Approved, pool racks, Hardware, attested: True"),
        ],
        next=[],
    )


REVOKED = instance(told("False", "Revoked", message="why"), told("True", "ByPerson", "Revoked"))


@pytest.mark.parametrize(
    ("change", "word", "expected", "step"),
    [
        (
            {"identities": []},
            "agent",
            "no AgentIdentity selects it (ServiceAccount agent): it is no agent",
            "make an AgentIdentity with serviceAccountName agent whose podSelector matches its labels",
        ),
        (
            {"identities": [identity("a"), identity("b")]},
            "agent",
            "AgentIdentities a, b all select it, so it gets no identity (Overlap)",
            "narrow their podSelector",
        ),
        (
            {"identities": [identity("agent", told("False", "IssuerNotFound", message="no issuer"))], "instances": []},
            "agent",
            "AgentIdentity agent: not Ready (IssuerNotFound): no issuer",
            "kubectl describe agentidentity agent",
        ),
        (
            {"pod": pod(signer=False), "labels": {}, "instances": []},
            "signer",
            "not injected: namespace billing is not labelled countersign.dev/injection=enabled",
            "kubectl label namespace billing countersign.dev/injection=enabled, and make the pod again",
        ),
        (
            {"pod": pod(signer=False, hostNetwork=True), "instances": []},
            "signer",
            "not injected: hostNetwork is set",
            "change the pod's template, and make it again",
        ),
        (
            {"pod": pod(signer=False), "instances": []},
            "signer",
            "not injected: the pod is older than its AgentIdentity, or admission was away",
            "make the pod again",
        ),
        (
            {"instances": []},
            "instance",
            "none: its signer has not attested",
            "kubectl logs agent-x2x9p -c countersign-signer -n billing",
        ),
        (
            {"instances": [], "pod": pod(phase="Succeeded")},
            "instance",
            "none: the pod has ended, and its identity with it",
            "",
        ),
        (
            {"instances": [REVOKED]},
            "instance",
            "agent-7f9c4: not Ready (Revoked): why",
            "a revoked instance stays so: delete the pod, and the next one gets its own",
        ),
        (
            {"devices": [device("Pending")], "instances": [instance(told("False", "DeviceNotApproved"))]},
            "device",
            "worker-1: Pending, pool racks, Hardware, attested: True",
            "kubectl countersign device approve worker-1",
        ),
        (
            {"devices": [], "instances": [instance(told("False", "DeviceNotFound"))]},
            "device",
            "worker-1: there is no such Device any more",
            "",
        ),
        ({"identities": None}, "agent", "you may not list AgentIdentities here", ""),
        ({"instances": None}, "instance", "you may not list AgentInstances here", ""),
    ],
)
def test_where_the_way_ended_is_told_with_what_to_do(change: Change, word: str, expected: str, step: str) -> None:
    found = diagnose(replace(WELL, **change))

    assert (text(found, word), found.well) == (expected, False)
    assert (step in found.next) if step else not found.next


def test_one_that_may_not_see_devices_is_told_the_rest() -> None:
    found = diagnose(replace(WELL, devices=None))

    assert (text(found, "device"), found.well) == ("worker-1 (you may not list Devices)", True)


def test_the_last_refusals_are_told_with_their_count_and_what_to_do() -> None:
    told_of = [
        event("policy.default_deny at https://tools.example.com", 117),
        event("policy.denied", uid="another"),
        event("x", source="kubelet"),
    ]

    found = diagnose(replace(WELL, events=told_of))

    assert found.lines[-1] == ("events", "2m ago x117  CallsDenied: policy.default_deny at https://tools.example.com")
    assert found.next == ["no rule allows it: write one, and try it with countersign policy eval"]


def test_hints_are_for_codes_that_there_are() -> None:
    families = {code.partition(".")[0] for code in CODES}
    from countersign.console.diagnosis import _HINTS  # noqa: PLC0415 - what is kept

    assert {key for key in _HINTS if key not in CODES and key not in families} == set()
    assert hint("parse.size") == ""
