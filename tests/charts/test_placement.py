"""Where pods run and how many a drain may take: what is said for all, and what one process says instead."""

from __future__ import annotations

from typing import Any

import pytest
from support.chart import one, render

PROCESSES = ("operator", "webhook", "authority")
COMMON = (
    "priorityClassName=low",
    "nodeSelector.disk=ssd",
    "tolerations[0].key=all",
    "podAnnotations.owner=platform",
    "podLabels.cost=shared",
)


def template(objects: list[dict[str, Any]], process: str, kind: str = "Deployment") -> dict[str, Any]:
    found: dict[str, Any] = one(objects, kind, f"countersign-{process}")["spec"]["template"]
    return found


@pytest.mark.parametrize("process", PROCESSES)
def test_what_is_said_for_all_is_for_each(process: str) -> None:
    pod = template(render(*COMMON), process)
    spec = pod["spec"]
    assert (spec["priorityClassName"], spec["nodeSelector"]) == ("low", {"disk": "ssd"})
    assert spec["tolerations"] == [{"key": "all"}]
    assert pod["metadata"]["annotations"] == {"owner": "platform"}
    assert pod["metadata"]["labels"]["cost"] == "shared"


def test_what_a_process_says_counts_there_and_labels_are_added() -> None:
    own = ("webhook.priorityClassName=high", "webhook.tolerations[0].key=own", "webhook.podLabels.tier=front")
    objects = render(*COMMON, *own, "webhook.podAnnotations.owner=security")
    webhook, operator = template(objects, "webhook"), template(objects, "operator")
    assert (webhook["spec"]["priorityClassName"], operator["spec"]["priorityClassName"]) == ("high", "low")
    assert webhook["spec"]["tolerations"] == [{"key": "own"}]
    assert webhook["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert webhook["metadata"]["annotations"] == {"owner": "security"}
    assert {"cost": "shared", "tier": "front"}.items() <= webhook["metadata"]["labels"].items()


def test_no_label_takes_the_place_of_one_that_pods_are_found_by() -> None:
    key = "webhook.podLabels.app\\.kubernetes\\.io/component"
    webhook = template(render(f"{key}=authority"), "webhook")
    assert webhook["metadata"]["labels"]["app.kubernetes.io/component"] == "webhook"


def test_what_is_said_for_all_is_not_for_the_nodes() -> None:
    node = template(render(*COMMON, "node.enabled=true", "node.tolerations[0].key=tpm"), "node", "DaemonSet")
    assert node["spec"]["tolerations"] == [{"key": "tpm"}]
    assert not {"priorityClassName", "nodeSelector", "topologySpreadConstraints"} & node["spec"].keys()
    assert "annotations" not in node["metadata"]


def test_replicas_are_spread_by_the_labels_of_their_own_process() -> None:
    for process in PROCESSES:
        pod = template(render(), process)
        [spread] = pod["spec"]["topologySpreadConstraints"]
        assert spread["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        assert spread["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == process


@pytest.mark.parametrize("share", [1, "34%"])
def test_a_drain_may_take_so_many_of_several_and_the_only_one(share: Any) -> None:
    values = ("operator.replicas=2", f"podDisruptionBudget.maxUnavailable={share}")
    [budget] = [each for each in render(*values) if each["kind"] == "PodDisruptionBudget"]
    assert budget["metadata"]["name"] == "countersign-operator"
    assert (budget["spec"]["maxUnavailable"], budget["spec"]["unhealthyPodEvictionPolicy"]) == (share, "AlwaysAllow")
    labels = template(render(*values), "operator")["metadata"]["labels"]
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_the_image_is_named_by_tag_and_digest_everywhere() -> None:
    digest = "sha256:" + "a" * 64
    objects = render("image.tag=2.0", f"image.digest={digest}", "node.enabled=true")
    images = {
        container["image"]
        for each in objects
        if each["kind"] in ("Deployment", "DaemonSet")
        for container in each["spec"]["template"]["spec"]["containers"]
    }
    assert images == {f"localhost/countersign:2.0@{digest}"}
    [policy] = [
        each for each in objects if each["metadata"]["name"] == "countersign-pod" and "validations" in each["spec"]
    ]
    assert f"localhost/countersign:2.0@{digest}" in str(policy)
