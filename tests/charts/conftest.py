"""The chart on a plane: RBAC and admission policies, without the webhooks, and taken away again."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.agent_pods import DEBUGGER, DEVELOPER, label
from support.chart import FACTS, SYSTEM, apply, as_list, instance, render

from countersign.devcluster import Plane, PlaneError

if TYPE_CHECKING:
    from collections.abc import Iterator

# What one of our kinds would need: the webhooks are left out, so that the policies alone answer.
KINDS = (
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
)
WITH_NODES = (*FACTS, "node.enabled=true")
SECONDS = 30
THIEF = {"name": "probe", "image": "probe", "resources": {"limits": {"countersign.dev/tpm": "1"}}}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "probe", "namespace": "default"},
    "spec": {"containers": [THIEF]},
}
PROBES = (
    (instance("probe", "default"), "made by Countersign"),
    (POD, "only the signer may use the TPM"),
)


@pytest.fixture(scope="module")
def installed(crds: Plane) -> Iterator[Plane]:
    objects = [each for each in render(*WITH_NODES) if each["kind"] in KINDS]
    apply(crds, [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}])
    apply(crds, objects)
    try:
        bite(crds, expected=True)
        yield crds
    finally:
        crds.kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", data=as_list(objects))
        bite(crds, expected=False)


def bite(plane: Plane, *, expected: bool) -> None:
    """Return when the policies are in force, or no longer: the API server follows them by a watch, one by one."""
    end = time.monotonic() + SECONDS
    while any(says(plane, *each) is not expected for each in PROBES):
        assert time.monotonic() < end, f"the admission policies are {'not yet' if expected else 'still'} in force"


def says(plane: Plane, found: dict[str, Any], message: str) -> bool:
    try:
        plane.kubectl("create", "--dry-run=server", "-f", "-", data=json.dumps(found))
    except PlaneError as error:
        return message in str(error)
    return False


@pytest.fixture(scope="module")
def developers(installed: Plane) -> Iterator[None]:
    rbac = "rbac.authorization.k8s.io"
    verbs = ["get", "list", "create", "update", "patch", "delete"]
    every = ["pods", *(f"pods/{each}" for each in ("attach", "exec", "ephemeralcontainers", "portforward", "status"))]
    rules = {
        DEVELOPER: [{"apiGroups": [""], "resources": [*every, "namespaces", "namespaces/status"], "verbs": verbs}],
        DEBUGGER: [{"apiGroups": ["countersign.dev"], "resources": ["agentinstances"], "verbs": ["exec"]}],
    }
    users = {DEVELOPER: [DEVELOPER, DEBUGGER], DEBUGGER: [DEBUGGER]}
    objects: list[dict[str, Any]] = []
    for name, granted in rules.items():
        head = {"apiVersion": f"{rbac}/v1", "metadata": {"name": name}}
        subjects = [{"apiGroup": rbac, "kind": "User", "name": user} for user in users[name]]
        ref = {"apiGroup": rbac, "kind": "ClusterRole", "name": name}
        objects.append({**head, "kind": "ClusterRole", "rules": granted})
        objects.append({**head, "kind": "ClusterRoleBinding", "roleRef": ref, "subjects": subjects})
    apply(installed, objects)
    yield
    # Other tests look at all pods of this plane.
    installed.kubectl("delete", "pods", "-A", "-l", "app=refund-agent", "--grace-period=0", "--force")
    for kind in ("clusterrole", "clusterrolebinding"):
        installed.kubectl("delete", kind, *rules)


@pytest.fixture
def agents(installed: Plane, namespace: str) -> str:
    label(installed, namespace, "countersign.dev/injection=enabled", "countersign.dev/tpm=allowed")
    installed.kubectl("create", "serviceaccount", "refund-agent", "-n", namespace)
    return namespace
