"""Upgrading from the chart before this one while agents call, and uninstalling."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from support import fleet, host, image, install, records
from support.agents import Agents, image_of
from support.eventually import until
from support.redis import RedisServer
from support.streams import ALLOWED, NEVER_FINAL, Outcome, Streams, now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.real_cluster import RealCluster

SPACE = "e2e-upgrade"
BEFORE = image.ROOT / "tests" / "data" / "charts" / "countersign-0.1.0.tgz"
OLD = f"{image.NAME}:before"
KINDS = 8
# A chip outlives the pod that hands it out, a simulator does not: its pod stays what it was.
KEEP_SIMULATORS = """#!{python}
import sys, yaml
found = [each for each in yaml.safe_load_all(sys.stdin) if each]
for each in found:
    if each["kind"] == "DaemonSet":
        each["spec"]["updateStrategy"] = {{"type": "OnDelete"}}
yaml.safe_dump_all(found, sys.stdout)
"""


def say(line: str) -> None:
    sys.stderr.write(f"==> {line}\n")


@pytest.fixture(scope="module")
def current(cluster: RealCluster) -> Iterator[dict[str, Any]]:
    """The values of the installation as it was; it is there again after these tests."""
    values = json.loads(install.helm(cluster, "get", "values", "countersign", "-o", "json"))
    yield values
    install.release(cluster, install.CHART, values)
    fleet.approve(cluster, say)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    """A Redis that both webhooks share, on this machine's side of the bridge."""
    server = RedisServer(tmp_path, "--port", "6379", "--bind", host.ADDRESS, "--protected-mode", "no")
    server.start()
    yield f"redis://{host.ADDRESS}:6379"
    server.stop()


def name_twice(cluster: RealCluster, name: str) -> None:
    """Let every node know the image ``name`` as OLD too: to Kubernetes another image, as after any release."""
    for node in cluster.nodes:
        node.shell("ctr", "-n", "k8s.io", "images", "tag", "--force", name, OLD)


def test_an_upgrade_decides_nothing_wrong_and_every_instance_stays(
    cluster: RealCluster, current: dict[str, Any], store: str, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    name_twice(cluster, image_of(cluster))
    install.uninstall(cluster)
    two = {**current, "webhook": {**current["webhook"], "replicas": 2}, "replay": {"url": store}}
    before = {**two, "image": {**current["image"], "tag": "before"}}
    install.release(cluster, BEFORE, before)
    agents = Agents(cluster, SPACE)
    agents.prepare()
    agents.start("stream")
    streams = Streams(agents)
    began = now()
    streams.flow(0)
    instances = {each["metadata"]["name"]: each["metadata"]["uid"] for each in agents.get("agentinstances")["items"]}
    assert len(instances) == len(streams.all)
    renderer = tmp_path / "keep-simulators"
    renderer.write_text(KEEP_SIMULATORS.format(python=sys.executable))
    renderer.chmod(0o755)

    started = time.monotonic()
    after = {**two, "injection": {"formerImages": [OLD]}}
    install.release(cluster, install.CHART, after, "--post-renderer", renderer)
    took = time.monotonic() - started

    streams.flow(now())
    assert image_of(cluster) != OLD
    outcome = Outcome.of(streams.calls(), began)
    figure(f"upgrade from the chart before, two webhooks: {took:.1f} s; {outcome}")
    # A webhook that ends may leave a call without an answer, which is a no.
    assert set(outcome.failed) <= {"decide.unavailable"}
    assert [call for call in streams.calls() if call.answer == "allowed" and call.kind not in ALLOWED] == []
    assert [call for call in streams.calls() if call.code in NEVER_FINAL] == []
    again = {each["metadata"]["name"]: each["metadata"]["uid"] for each in agents.get("agentinstances")["items"]}
    assert again == instances
    report = records.verified(cluster)
    assert report.ok, report.faults
    agents.delete()
    install.uninstall(cluster)
    install.release(cluster, install.CHART, current)


def left(cluster: RealCluster) -> list[str]:
    """Return what of Countersign is in the cluster beside its kinds, their objects and what is kept on purpose."""
    cluster_wide = (
        "mutatingwebhookconfigurations,validatingwebhookconfigurations,validatingadmissionpolicies,"
        "validatingadmissionpolicybindings,clusterroles,clusterrolebindings"
    )
    found = cluster.kubectl("get", cluster_wide, "-o", "name").split()
    kinds = "leases,deployments,statefulsets,daemonsets,services,networkpolicies,roles,rolebindings,serviceaccounts"
    found += cluster.kubectl("get", kinds, "-n", install.NAMESPACE, "-o", "name").split()
    return [each for each in found if "countersign" in each]


@pytest.mark.short
def test_uninstalling_leaves_no_rule_no_right_and_no_lease_but_the_kinds_and_their_objects(
    cluster: RealCluster,
) -> None:
    if "countersign" not in install.helm(cluster, "list", "-q"):
        pytest.fail("nothing is installed")
    devices = cluster.kubectl("get", "devices", "-o", "name").split()
    assert devices
    install.uninstall(cluster)
    until(lambda: left(cluster) == [], "nothing is left")
    assert len(cluster.kubectl("get", "crd", "-o", "name").split()) == KINDS
    assert cluster.kubectl("get", "devices", "-o", "name").split() == devices


def test_uninstalling_removes_the_kinds_where_the_values_say_so(cluster: RealCluster, current: dict[str, Any]) -> None:
    install.release(cluster, install.CHART, {**current, "crds": {"keep": False}})
    install.uninstall(cluster)
    until(lambda: cluster.kubectl("get", "crd", "-o", "name").split() == [], "the kinds are gone")
    assert left(cluster) == []
