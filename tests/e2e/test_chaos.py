"""Everything is killed in turn while agents call without a pause: no wrong yes, no lost record, and how long each took.

On each node an agent makes allowed and hostile calls in turn, also past its signer, and a thief at the tool server sends all
that arrives once more. The last tests compare what they saw with the audit log.
"""

from __future__ import annotations

import urllib.request
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from support import records
from support.agents import Agents
from support.eventually import until
from support.install import NAMESPACE
from support.streams import ALLOWED, NEVER_FINAL, Outcome, Streams, lines, now, volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.node import Node
    from support.real_cluster import RealCluster

    Figure = Callable[[str], None]

SPACE = "e2e-chaos"
SIGNER_METRICS = 7081
# For whom no allowed call may fail: what is killed takes no part in a call.
NOBODY, ALL = (), ("node-a", "node-b")
# Without the API server the webhook decides by what it knows for so long at least: 30 s since its last contact, and a watch
# that is quiet has one every 15 s.
KNOWS = 10.0
# How a call may fail: no decision, no tool server, or the agent itself was cut off.
FAIL_CLOSED = {
    "decide.unavailable",
    "http.502",
    "ConnectionRefusedError",
    "ConnectionResetError",
    "RemoteDisconnected",
    "TimeoutError",
}


@pytest.fixture(scope="module")
def streams(cluster: RealCluster) -> Iterator[Streams]:
    agents = Agents(cluster, SPACE)
    agents.prepare()
    agents.start("stream")
    found = Streams(agents)
    found.flow(0)
    yield found
    agents.delete()


def pods(cluster: RealCluster, process: str) -> list[dict[str, Any]]:
    label = f"app.kubernetes.io/component={process}"
    return list(cluster.get("pods", "-n", NAMESPACE, "-l", label)["items"])


def container(pod: dict[str, Any], name: str) -> dict[str, Any]:
    return next(dict(each) for each in pod["status"]["containerStatuses"] if each["name"] == name)


def node_of(cluster: RealCluster, pod: dict[str, Any]) -> Node:
    return next(node for node in cluster.nodes if node.name == pod["spec"]["nodeName"])


def crash(cluster: RealCluster, process: str) -> Callable[[], bool]:
    """Kill a process of ours as the kernel would for want of memory; return how to see that it is Ready again."""
    chosen = pods(cluster, process)[-1]
    before = container(chosen, process)
    node_of(cluster, chosen).kill_container(before["containerID"])

    def back() -> bool:
        found = next(each for each in pods(cluster, process) if each["metadata"]["uid"] == chosen["metadata"]["uid"])
        after = container(found, process)
        return bool(after["ready"] and after["restartCount"] > before["restartCount"])

    return back


def kill_api_server(cluster: RealCluster) -> Callable[[], bool]:
    cluster.restart("kube-apiserver")
    return lambda: "ok" in cluster.kubectl("get", "--raw", "/readyz", check=False)


def kill_kubelet(cluster: RealCluster) -> Callable[[], bool]:
    node = cluster.nodes[1]
    cluster.restart_kubelet(node)
    return lambda: cluster.ready(node)


def survive(
    streams: Streams, what: str, kill: Callable[[], Callable[[], bool]], unharmed: tuple[str, ...], figure: Figure
) -> Outcome:
    """Kill something, wait until it and every agent's calls are back, and say what that did to the calls."""
    began = now()
    streams.flow(began)
    killed = now()
    back = kill()
    until(back, f"{what} is back", 300)
    ready = now()
    streams.flow(ready)
    outcome = Outcome.of(streams.calls(began), killed)
    figure(f"{what} killed during calls: back after {ready - killed:.1f} s; {outcome}")
    assert not Outcome.of(streams.calls(began, unharmed), killed).failed
    assert set(outcome.failed) <= FAIL_CLOSED
    assert_no_wrong_yes(streams)
    return outcome


def assert_no_wrong_yes(streams: Streams) -> None:
    calls = streams.calls()
    assert [call for call in calls if call.answer == "allowed" and call.kind not in ALLOWED] == []
    assert [call for call in calls if call.code in NEVER_FINAL] == []
    assert [theft for theft in thefts(streams) if 200 <= theft["status"] < 300] == []


def tools(streams: Streams, file: str) -> list[dict[str, Any]]:
    """Return a file of the tool server's pod."""
    pod = streams.agents.pod("tools")
    return lines(volume(node_of(streams.agents.cluster, pod), pod, "tmp") / file)


def thefts(streams: Streams) -> list[dict[str, Any]]:
    return tools(streams, "thefts.jsonl")


@pytest.mark.short
def test_calls_while_the_webhook_is_killed(streams: Streams, cluster: RealCluster, figure: Figure) -> None:
    survive(streams, "webhook", lambda: crash(cluster, "webhook"), NOBODY, figure)


@pytest.mark.parametrize("process", ["operator", "authority", "node"])
def test_calls_while_another_process_of_ours_is_killed(
    streams: Streams, cluster: RealCluster, process: str, figure: Figure
) -> None:
    survive(streams, process, lambda: crash(cluster, process), ALL, figure)


def test_calls_while_the_api_server_is_killed(streams: Streams, cluster: RealCluster, figure: Figure) -> None:
    outcome = survive(streams, "API server", lambda: kill_api_server(cluster), NOBODY, figure)
    assert not outcome.failed or outcome.first > KNOWS
    assert set(outcome.failed) <= {"decide.unavailable"}


def test_calls_while_a_kubelet_is_killed(streams: Streams, cluster: RealCluster, figure: Figure) -> None:
    survive(streams, "kubelet", lambda: kill_kubelet(cluster), ALL, figure)


@pytest.mark.short
def test_each_signer_counted_every_call_by_what_came_of_it(streams: Streams) -> None:
    streams.hold()
    try:
        for each in streams.all:
            through = [call for call in each.calls() if call.kind != "past"]
            seen = Counter(call.code or "policy.allowed" for call in through)
            assert counted(each.pod) == seen
    finally:
        streams.go_on()


def counted(pod: dict[str, Any]) -> Counter[str]:
    """Return what a signer's metrics say of its calls, by code."""
    with urllib.request.urlopen(f"http://{pod['status']['podIP']}:{SIGNER_METRICS}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    head = 'countersign_signer_calls_total{code="'
    found = [line.removeprefix(head).split('"} ') for line in text.splitlines() if line.startswith(head)]
    return Counter({code: int(float(count)) for code, count in found})


def power_cut(streams: Streams, lost: Node) -> Callable[[], bool]:
    """Cut a node's power, and boot it when the cluster has noticed."""
    cluster = streams.agents.cluster
    lost.kill()
    until(lambda: not cluster.ready(lost), "the cluster notices")
    streams.read()  # what its agents have written to their end
    cluster.reboot(lost)
    return lambda: cluster.ready(lost)


def test_calls_while_a_node_loses_its_power(streams: Streams, cluster: RealCluster, figure: Figure) -> None:
    lost, other = cluster.nodes[1], cluster.nodes[0]
    survive(streams, f"{lost.name} (an agent's)", lambda: power_cut(streams, lost), (other.name,), figure)


def test_calls_while_the_node_of_the_webhook_and_its_log_loses_its_power(
    streams: Streams, cluster: RealCluster, figure: Figure
) -> None:
    lost = cluster.nodes[0]
    places = {pod["spec"]["nodeName"] for process in ("webhook", "authority") for pod in pods(cluster, process)}
    assert places == {lost.name}
    survive(streams, f"{lost.name} (the webhook's, the authority's)", lambda: power_cut(streams, lost), NOBODY, figure)


@pytest.mark.short
def test_no_record_is_lost_and_each_yes_was_policys(streams: Streams, cluster: RealCluster, figure: Figure) -> None:
    streams.hold()
    calls, ran = [call for call in streams.calls() if call.kind != "past"], tools(streams, "ran.jsonl")
    found = records.records(cluster)

    for call in calls:
        if call.decision:
            record = found[call.decision]
            assert records.allows(record) == (call.answer == "allowed")
            assert record["status_code"] == (call.code or "policy.allowed")
            assert record["unmapped"]["countersign"]["args"] == records.args_of(call.arguments)
    for run in ran:
        record = found[run["decision"]]
        assert records.allows(record)
        assert record["resources"][0]["name"] == run["did"]
        assert record["unmapped"]["countersign"]["args"] == records.args_of(run["with"])
    tokens = {dict(each["headers"]).get("authorization", "") for each in tools(streams, "captures")} - {""}
    issued = {records.decision_of(token.removeprefix("Countersign ")) for token in tokens}
    assert issued <= found.keys()
    assert all(records.allows(found[each]) for each in issued)
    # Whatever an agent did not live to write down: the log has it, and only what policy allows has a yes.
    ours = [each for each in found.values() if each["time"] > streams.began * 1000 and in_space(each)]
    yes = [each["unmapped"]["countersign"] for each in ours if records.allows(each) and is_call(each)]
    evil = {records.args_of(call.arguments) for call in calls if call.kind == "pay-much"}
    assert {each["args"] for each in yes}.isdisjoint(evil)
    assert {each["rule"] for each in yes} == {"read", "pay-little"}
    report = records.verified(cluster)
    assert report.ok, report.faults
    codes = Counter(theft["code"] for theft in thefts(streams))
    figure(f"calls through signers: {len(calls)} that agents know of, {len(yes)} allowed in the log, {len(ran)} ran")
    figure(f"audit log: {report.records} records, chain and heads whole; sent again by a thief: {dict(codes)}")
    streams.go_on()


def in_space(record: dict[str, Any]) -> bool:
    return str(record["actor"].get("app_uid")).startswith(f"{SPACE}/")


def is_call(record: dict[str, Any]) -> bool:
    return bool(record["api"]["operation"] == "tools/call")
