"""Whose token: what the API server says, and everything else is a no."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from countersign.kube import TokenReview
from countersign.kube.reviews import read_review, review_body

if TYPE_CHECKING:
    from countersign.devcluster import Plane
    from countersign.kube import Kube

OURS = ["countersign.dev"]
GOOD: dict[str, Any] = {
    "authenticated": True,
    "audiences": ["countersign.dev"],
    "user": {
        "username": "system:serviceaccount:default:agent",
        "uid": "uid-sa",
        "groups": ["system:authenticated"],
        "extra": {
            "authentication.kubernetes.io/node-name": ["node-a"],
            "authentication.kubernetes.io/node-uid": ["uid-node"],
            "authentication.kubernetes.io/pod-name": ["side"],
            "authentication.kubernetes.io/pod-uid": ["uid-pod"],
        },
    },
}


def test_a_bound_token_names_pod_and_node() -> None:
    assert read_review(GOOD, OURS) == TokenReview(
        authenticated=True,
        username="system:serviceaccount:default:agent",
        namespace="default",
        service_account="agent",
        pod_name="side",
        pod_uid="uid-pod",
        node_name="node-a",
        node_uid="uid-node",
        uid="uid-sa",
        groups=("system:authenticated",),
        audiences=("countersign.dev",),
    )


@pytest.mark.parametrize(
    "status",
    [
        None,
        {},
        {"error": "[invalid bearer token]", "user": {}},
        GOOD | {"authenticated": False},
        GOOD | {"authenticated": "true"},
        GOOD | {"audiences": []},
        GOOD | {"audiences": ["https://kubernetes.default.svc"]},
        {key: value for key, value in GOOD.items() if key != "audiences"},
        GOOD | {"user": {}},
    ],
)
def test_anything_unexpected_is_a_no_that_says_nothing(status: Any) -> None:
    assert read_review(status, OURS) == TokenReview(authenticated=False)


@pytest.mark.parametrize("username", ["ana@example.com", "system:serviceaccount:default", "system:serviceaccount::x"])
def test_a_user_is_no_service_account(username: str) -> None:
    found = read_review(GOOD | {"user": {"username": username}}, OURS)
    assert (found.authenticated, found.namespace, found.service_account, found.pod_uid) == (True, None, None, None)


def test_two_pods_are_no_pod() -> None:
    extra = GOOD["user"]["extra"] | {"authentication.kubernetes.io/pod-uid": ["a", "b"]}
    assert read_review(GOOD | {"user": GOOD["user"] | {"extra": extra}}, OURS).pod_uid is None


def test_a_review_names_an_audience() -> None:
    with pytest.raises(ValueError, match="at least one audience"):
        review_body("token", [])


@pytest.mark.plane
async def test_the_api_server_knows_a_token_bound_to_a_pod(plane: Plane, kube: Kube, namespace: str) -> None:
    plane.kubectl("wait", "--for=create", "serviceaccount/default", "-n", namespace, "--timeout=20s")
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-{namespace}"}}
    spec = {"nodeName": f"node-{namespace}", "containers": [{"name": "agent", "image": "agent"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "side", "namespace": namespace}, "spec": spec}
    plane.kubectl("create", "-f", "-", data=json.dumps({"apiVersion": "v1", "kind": "List", "items": [node, pod]}))
    uid = plane.get("pod", "side", "-n", namespace)["metadata"]["uid"]
    words = ["create", "token", "default", "-n", namespace, "--audience=countersign.dev", "--bound-object-kind=Pod"]
    token = plane.kubectl(*words, "--bound-object-name=side", f"--bound-object-uid={uid}").strip()

    found = await kube.review_token(token, OURS)
    elsewhere = await kube.review_token(token, ["other"])
    broken = await kube.review_token(f"{token[:-4]}AAAA", OURS)

    assert (found.authenticated, found.namespace, found.service_account) == (True, namespace, "default")
    assert (found.pod_name, found.pod_uid, found.node_name) == ("side", uid, f"node-{namespace}")
    assert elsewhere == broken == TokenReview(authenticated=False)
