"""What the operator keeps of an object, and by what it finds it again without walking over all there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.cluster import RESOURCES, device, identity, instance, issuer, namespace, pod, policy, rule, server

from countersign import kube
from countersign.controller.indexes import INDEXES
from countersign.controller.slim import slim
from countersign.controller.view import View

if TYPE_CHECKING:
    from collections.abc import Iterator

FULL: dict[str, Any] = {
    "serviceAccountName": "refund-agent",
    "nodeName": "worker-1",
    "initContainers": [
        {"name": "countersign-signer", "image": "countersign:1", "restartPolicy": "Always", "env": [{"name": "A"}]},
        {"name": "other", "image": "other:1", "command": ["x"]},
    ],
    "containers": [{"name": "agent", "image": "agent:1", "env": [{"name": "A", "value": "b"}]}],
    "ephemeralContainers": [{"name": "debug", "image": "busybox", "command": ["sh"]}],
    "volumes": [{"name": "countersign-token"}],
    "tolerations": [{"operator": "Exists"}],
}
STATUS: dict[str, Any] = {
    "phase": "Running",
    "podIP": "10.0.0.1",
    "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True", "reason": "x"}],
    "initContainerStatuses": [{"name": "other", "imageID": "r/o@sha256:1", "ready": True}],
    "containerStatuses": [{"name": "agent", "imageID": "r/a@sha256:2", "state": {"running": {}}}],
}


def stored(found: dict[str, Any]) -> dict[str, Any]:
    """Return an object with what the API server adds for itself."""
    applied = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "countersign.dev/injected": "1"}
    return {**found, "metadata": {**found["metadata"], "managedFields": [{}], "annotations": applied}}


def test_of_an_injected_pod_stays_what_it_may_not_change() -> None:
    full = stored({**pod(), "spec": FULL, "status": STATUS})
    kept = slim(kube.PODS, full)

    assert kept["spec"] == {
        "serviceAccountName": "refund-agent",
        "nodeName": "worker-1",
        "initContainers": [
            {"name": "countersign-signer", "image": "countersign:1"},
            {"name": "other", "image": "other:1"},
        ],
        "containers": [{"name": "agent", "image": "agent:1"}],
        "ephemeralContainers": [{"name": "debug"}],
    }
    assert kept["status"] == {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "initContainerStatuses": [{"name": "other", "imageID": "r/o@sha256:1"}],
        "containerStatuses": [{"name": "agent", "imageID": "r/a@sha256:2"}],
    }
    assert kept["metadata"]["annotations"] == {"countersign.dev/injected": "1"}
    assert "managedFields" not in kept["metadata"]
    assert slim(kube.PODS, kept) == kept
    assert full["spec"] == FULL, "nobody changes what came from the API server"


def test_of_a_pod_without_a_signer_stays_all_that_says_why() -> None:
    bare = {**FULL, "initContainers": FULL["initContainers"][1:]}
    assert slim(kube.PODS, stored({**pod(), "spec": bare}))["spec"] == bare


@pytest.mark.parametrize("found", [identity(), instance(), device(), policy(rule()), server(), namespace(), issuer()])
def test_of_other_kinds_stays_all_but_the_api_servers_own(found: dict[str, Any]) -> None:
    kept = slim(RESOURCES[found["kind"]], stored(found))
    annotations = {"countersign.dev/injected": "1"}
    assert kept == {**found, "metadata": {**found["metadata"], "annotations": annotations}}


def walked(view: View, resource: kube.Resource, index: str, value: str) -> Iterator[str]:
    for one in view.list(resource):
        if value in INDEXES[resource][index](one):
            yield one["metadata"]["name"]


def assert_true(view: View) -> None:
    """Every index says what a walk over all objects says."""
    for resource, indexes in INDEXES.items():
        for index in indexes:
            for value in [*view.values(resource, index), "nothing"]:
                found = [one["metadata"]["name"] for one in view.by(resource, index, value)]
                assert sorted(found) == sorted(walked(view, resource, index, value))
                assert view.count(resource, index, value) == len(found)


def test_an_index_says_what_a_walk_says_whatever_happens_to_the_objects() -> None:
    view = View()
    steps: list[tuple[kube.Resource, dict[str, Any]]] = [
        (kube.PODS, pod()),
        (kube.PODS, pod("bare", signer=False)),
        (kube.PODS, pod("bare")),
        (kube.AGENT_IDENTITIES, identity()),
        (kube.AGENT_IDENTITIES, identity(serviceAccountName="other")),
        (kube.AGENT_INSTANCES, instance()),
        (kube.AGENT_INSTANCES, {**instance(), "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        (kube.DEVICES, device()),
        (kube.DEVICES, device(state="Pending", poolRef={"name": "other"})),
        (kube.TOOL_SERVERS, server()),
        (kube.TOOL_POLICIES, policy(rule(), rule("named", subjects={"agents": [{"name": "refund-agent"}]}))),
        (kube.CLUSTER_TOOL_POLICIES, policy(rule(), where=None, name="base")),
        (kube.IDENTITY_ISSUERS, issuer()),
        (kube.PODS, pod(deletionTimestamp="2026-11-24T11:00:00Z")),
    ]
    for number, (resource, found) in enumerate(steps, 1):
        view.put(resource, {**found, "metadata": {**found["metadata"], "resourceVersion": str(number)}})
        assert_true(view)
    assert view.values(kube.PODS, "account")

    view.drop(kube.AGENT_INSTANCES, {**instance(), "metadata": {**instance()["metadata"], "resourceVersion": "50"}})
    view.replace(kube.DEVICES, [], "60")
    assert_true(view)
    assert not view.values(kube.DEVICES, "pool")


def test_an_object_that_nobody_thought_of_is_in_no_index() -> None:
    view = View()
    assert view.put(kube.AGENT_INSTANCES, {**instance(), "spec": {}})
    assert not view.values(kube.AGENT_INSTANCES, "agent")
    assert len(view.list(kube.AGENT_INSTANCES)) == 1
