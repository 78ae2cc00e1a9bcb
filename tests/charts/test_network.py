"""Which ports of our pods are reachable, and where they connect to: by names of ports and labels that the pods really have."""

from __future__ import annotations

from typing import Any

import pytest
from support.chart import DEMO, GOLDEN_SETS, one, render

WORKLOADS = {"operator": "Deployment", "webhook": "Deployment", "authority": "Deployment", "node": "DaemonSet"}
OPEN = {
    "operator": {"health"},
    "webhook": {"calls", "health"},
    "authority": {"enrolment", "health"},
    "node": {"health"},
}
NODE = GOLDEN_SETS["node-demo"]


def policy(objects: list[dict[str, Any]], process: str) -> dict[str, Any]:
    found: dict[str, Any] = one(objects, "NetworkPolicy", f"countersign-{process}")["spec"]
    return found


@pytest.mark.parametrize("process", WORKLOADS)
def test_each_process_has_a_policy_that_is_about_its_pods_and_opens_its_ports(process: str) -> None:
    objects = render(*NODE)
    template = one(objects, WORKLOADS[process], f"countersign-{process}")["spec"]["template"]
    found = policy(objects, process)
    assert found["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    ports = {each["name"] for each in template["spec"]["containers"][0]["ports"]}
    opened = {port["port"] for rule in found["ingress"] if "from" not in rule for port in rule["ports"]}
    assert opened == OPEN[process]
    assert {port["port"] for rule in found["ingress"] for port in rule["ports"]} == ports


def test_pods_are_kept_off_the_admission_port() -> None:
    found = policy(render("networkPolicy.podCIDRs={10.0.0.0/8,fd00::/8}"), "webhook")
    open_to_all, guarded = found["ingress"]
    assert [each["port"] for each in open_to_all["ports"]] == ["calls", "health"]
    assert "from" not in open_to_all
    assert [each["port"] for each in guarded["ports"]] == ["admission"]
    assert [each["ipBlock"] for each in guarded["from"]] == [
        {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]},
        {"cidr": "::/0", "except": ["fd00::/8"]},
    ]


def numbers(found: dict[str, Any]) -> set[int]:
    return {port["port"] for rule in found["egress"] for port in rule["ports"]}


def test_where_they_connect_to_is_limited_when_that_is_asked_for() -> None:
    assert "egress" not in policy(render(), "operator")
    assert policy(render(), "operator")["policyTypes"] == ["Ingress"]
    limited = render(*NODE, "networkPolicy.egress.apiServerPorts={16443}")
    for process in WORKLOADS:
        found = policy(limited, process)
        assert found["policyTypes"] == ["Ingress", "Egress"]
        assert numbers(found) == {53, 16443} | ({8443} if process == "node" else set())
    [enrolment] = [rule for rule in policy(limited, "node")["egress"] if "to" in rule]
    labels = one(limited, "Deployment", "countersign-authority")["spec"]["template"]["metadata"]["labels"]
    assert enrolment["to"][0]["podSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("redis://valkey.store.svc", 6379),
        ("rediss://valkey.store.svc:6380/1", 6380),
        ("redis://[fd00::7]:7000", 7000),
        ("redis://[fd00::7]", 6379),
    ],
)
def test_the_webhook_may_reach_its_replay_store(url: str, port: int) -> None:
    objects = render("networkPolicy.egress.enabled=true", f"replay.url={url}")
    assert numbers(policy(objects, "webhook")) == {53, 443, 6443, port}
    assert numbers(policy(objects, "operator")) == {53, 443, 6443}


def test_they_can_be_left_out() -> None:
    assert not [each for each in render("networkPolicy.enabled=false", *DEMO) if each["kind"] == "NetworkPolicy"]
