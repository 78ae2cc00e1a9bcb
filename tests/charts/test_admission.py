"""The rows V of crds.md 4 on a real API server, with our webhook not even installed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support.chart import MDM, SYSTEM, apply, as_list, instance

from countersign.devcluster import Plane, PlaneError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.plane

OPERATOR, WEBHOOK, AUTHORITY = (
    f"system:serviceaccount:{SYSTEM}:countersign-{process}" for process in ("operator", "webhook", "authority")
)
NODE = f"system:serviceaccount:{SYSTEM}:countersign-node"
COLLECTOR = "system:serviceaccount:kube-system:generic-garbage-collector"
# May write everything of ours, has neither of the two verbs.
WRITER, APPROVER, LOWERER = "chart-test-writer", "chart-test-approver", "chart-test-lowerer"
# `kubectl patch` reads first what it patches, which the authority itself need not do.
READER = "chart-test-reader"
MADE = "AgentInstance objects are made by Countersign"


@pytest.fixture(scope="module", autouse=True)
def people(installed: Plane) -> Iterator[None]:
    rbac = "rbac.authorization.k8s.io"
    verbs = ["get", "list", "watch", "create", "update", "patch", "delete"]
    roles = {
        WRITER: [{"apiGroups": ["countersign.dev"], "resources": ["*"], "verbs": verbs}],
        APPROVER: [{"apiGroups": ["countersign.dev"], "resources": ["devices"], "verbs": ["approve"]}],
        LOWERER: [{"apiGroups": ["countersign.dev"], "resources": ["toolservers"], "verbs": ["lower"]}],
        READER: [{"apiGroups": ["countersign.dev"], "resources": ["devices/status"], "verbs": ["get"]}],
    }
    objects: list[dict[str, Any]] = []
    for name, rules in roles.items():
        head = {"apiVersion": f"{rbac}/v1", "metadata": {"name": name}}
        users = {WRITER: [WRITER, APPROVER, LOWERER, MDM, NODE], READER: [AUTHORITY]}.get(name, [name])
        subjects = [{"apiGroup": rbac, "kind": "User", "name": user} for user in users]
        objects.append({**head, "kind": "ClusterRole", "rules": rules})
        ref = {"apiGroup": rbac, "kind": "ClusterRole", "name": name}
        objects.append({**head, "kind": "ClusterRoleBinding", "roleRef": ref, "subjects": subjects})
    apply(installed, objects)
    yield
    installed.kubectl("delete", "--wait=false", "-f", "-", data=as_list(objects))


def create(plane: Plane, found: dict[str, Any], user: str | None = None) -> None:
    plane.kubectl("create", "-f", "-", *([f"--as={user}"] if user else []), data=json.dumps(found))


def patch(plane: Plane, found: dict[str, Any], change: dict[str, Any], user: str | None = None) -> None:
    meta = found["metadata"]
    where = ["-n", meta["namespace"]] if "namespace" in meta else []
    words = [
        "patch",
        f"{found['kind'].lower()}s.countersign.dev",
        meta["name"],
        *where,
        "--type=merge",
        "-p",
        json.dumps(change),
    ]
    plane.kubectl(*words, *([f"--as={user}"] if user else []))


# -- AgentInstance --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [None, WRITER, OPERATOR, WEBHOOK])
def test_an_instance_is_made_by_the_authority_alone(installed: Plane, namespace: str, user: str | None) -> None:
    found = instance("refund-agent-7f9c4", namespace)
    # Our own processes are stopped by RBAC before; an administrator by nothing but the policy.
    with pytest.raises(PlaneError, match="forbidden" if user in (OPERATOR, WEBHOOK) else MADE):
        create(installed, found, user)
    create(installed, found, AUTHORITY)


def test_a_person_changes_only_the_state(installed: Plane, namespace: str) -> None:
    found = instance("refund-agent-7f9c4", namespace)
    create(installed, found, AUTHORITY)
    patch(installed, found, {"spec": {"state": "Revoked", "stateReason": "seen where it should not be"}}, WRITER)


def owner(plane: Plane, namespace: str) -> dict[str, Any]:
    """An owner that exists, else the garbage collector is quicker than the test."""
    uid = plane.get("namespace", namespace)["metadata"]["uid"]
    return {"apiVersion": "v1", "kind": "Namespace", "name": namespace, "uid": uid}


@pytest.mark.parametrize("user", [None, WRITER, OPERATOR])
@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"finalizers": ["example.com/stay"]}},
        {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "other", "uid": "1"}]}},
        {"metadata": {"ownerReferences": None}},
    ],
    ids=["finalizer", "another owner", "no owner"],
)
def test_nobody_keeps_an_instance_alive(
    installed: Plane, namespace: str, change: dict[str, Any], user: str | None
) -> None:
    found = instance("refund-agent-7f9c4", namespace)
    found["metadata"]["ownerReferences"] = [owner(installed, namespace)]
    create(installed, found, AUTHORITY)
    with pytest.raises(PlaneError, match=f"{MADE}: their owners and finalizers may not change"):
        patch(installed, found, change, user)


def test_what_an_instance_joins_cannot_be_changed(installed: Plane, namespace: str) -> None:
    found = instance("refund-agent-7f9c4", namespace)
    create(installed, found, AUTHORITY)
    # The CRD's own rule answers first; the policy stands behind it.
    with pytest.raises(PlaneError, match="deviceRef"):
        patch(installed, found, {"spec": {"deviceRef": {"name": "node-b"}}})


def test_the_garbage_collector_is_not_kept_from_its_work(installed: Plane, namespace: str) -> None:
    """With --cascade=orphan, and where one of several owners is gone, it takes an owner out of what it owned."""
    found = instance("refund-agent-7f9c4", namespace)
    found["metadata"]["ownerReferences"] = [owner(installed, namespace)]
    create(installed, found, AUTHORITY)
    patch(installed, found, {"metadata": {"ownerReferences": None}}, COLLECTOR)


# -- Device ---------------------------------------------------------------------------------------------------------------


def device(name: str, state: str | None) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "poolRef": {"name": "lab"},
        "ek": {"publicKeySHA256": "sha256:" + "0" * 64},
        "binding": {"type": "Node", "node": {"name": name}},
    }
    if state is not None:
        spec["state"] = state
    return {"apiVersion": "countersign.dev/v1alpha1", "kind": "Device", "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def name(namespace: str, installed: Plane) -> Iterator[str]:
    """A name for a cluster-scoped object that nobody else uses."""
    yield namespace
    installed.kubectl("delete", "device", namespace, "--ignore-not-found")


@pytest.mark.parametrize("user", [WRITER, LOWERER, AUTHORITY])
def test_who_may_write_devices_may_not_approve_them(installed: Plane, name: str, user: str) -> None:
    with pytest.raises(PlaneError, match=f"{user} may not approve devices"):
        create(installed, device(name, "Approved"), user)
    create(installed, device(name, None), user)


def test_a_pending_device_is_approved_by_who_may(installed: Plane, name: str) -> None:
    found = device(name, "Pending")
    create(installed, found, WRITER)
    with pytest.raises(PlaneError, match=f"{WRITER} may not approve devices"):
        patch(installed, found, {"spec": {"state": "Approved"}}, WRITER)
    patch(installed, found, {"spec": {"state": "Approved"}}, APPROVER)
    # Whatever else of an approved Device, and to deny it, needs no such right; to approve it again does.
    patch(installed, found, {"spec": {"owner": "platform"}}, WRITER)
    patch(installed, found, {"spec": {"state": "Denied"}}, WRITER)
    with pytest.raises(PlaneError, match=f"{WRITER} may not approve devices"):
        patch(installed, found, {"spec": {"state": "Approved"}}, WRITER)


def test_approve_can_be_granted_for_one_device(installed: Plane, name: str) -> None:
    rule = ["--verb=approve", "--resource=devices.countersign.dev", f"--resource-name={name}"]
    installed.kubectl("create", "clusterrole", f"{name}-approve", *rule)
    installed.kubectl(
        "create", "clusterrolebinding", f"{name}-approve", f"--clusterrole={name}-approve", f"--user={name}"
    )
    installed.kubectl("create", "clusterrolebinding", f"{name}-write", f"--clusterrole={WRITER}", f"--user={name}")
    create(installed, device(name, "Approved"), name)
    with pytest.raises(PlaneError, match=f"{name} may not approve devices"):
        create(installed, device(f"{name}-b", "Approved"), name)


def laptop(name: str) -> dict[str, Any]:
    found = device(name, "Pending")
    found["spec"]["binding"] = {"type": "Users", "users": ["ana@example.com"]}
    return found


def test_the_users_of_an_approved_device_are_part_of_what_was_approved(installed: Plane, name: str) -> None:
    found = laptop(name)
    more = {"spec": {"binding": {"users": ["ana@example.com", "eve@example.com"]}}}
    create(installed, found, WRITER)
    patch(installed, found, more, WRITER)
    patch(installed, found, {"spec": {"state": "Approved"}}, APPROVER)

    with pytest.raises(PlaneError, match=f"{WRITER} may not change the users of an approved device"):
        patch(installed, found, {"spec": {"binding": {"users": ["eve@example.com"]}}}, WRITER)
    patch(installed, found, {"spec": {"owner": "platform"}}, WRITER)
    patch(installed, found, {"spec": {"binding": {"users": ["ana@example.com"]}}}, APPROVER)


# May write status of Devices, as the MDM may, and each speaks for one source.


def facts(plane: Plane, name: str, *entries: tuple[str, str, str], user: str) -> None:
    """Write all facts of a Device anew, as ``user``: name, value and source of each."""
    seen = "2026-11-24T11:00:00Z"
    listed = [{"name": fact, "value": value, "source": source, "observedTime": seen} for fact, value, source in entries]
    change = json.dumps({"status": {"facts": listed}})
    words = [*as_node(plane, name)] if user == NODE else [f"--as={user}"]
    plane.kubectl("patch", "device", name, "--subresource=status", "--type=merge", "-p", change, *words)


def as_node(plane: Plane, node: str) -> list[str]:
    """Say who speaks as the API server says it of a token that was made for a pod on ``node``: in a kubeconfig of its own."""
    found = yaml.safe_load(plane.admin_kubeconfig.read_text())
    for each in found["users"]:
        each["user"] |= {"as": NODE, "as-user-extra": {"authentication.kubernetes.io/node-name": [node]}}
    path = plane.admin_kubeconfig.with_name("as-node.kubeconfig")
    path.write_text(yaml.safe_dump(found))
    return [f"--kubeconfig={path}"]


DISK, PATCHED = ("disk-encryption", "on", "node"), ("patched", "yes", "mdm")


def test_each_source_writes_its_own_facts(installed: Plane, name: str) -> None:
    create(installed, device(name, "Pending"))
    facts(installed, name, DISK, user=NODE)
    facts(installed, name, DISK, PATCHED, user=MDM)
    facts(installed, name, ("disk-encryption", "off", "node"), PATCHED, user=NODE)
    facts(installed, name, PATCHED, user=NODE)
    facts(installed, name, user=MDM)


@pytest.mark.parametrize(
    "entries",
    [
        (DISK, ("patched", "no", "mdm")),
        (DISK,),
        (DISK, PATCHED, ("jailbroken", "no", "mdm")),
    ],
    ids=["another's value", "without another's", "one more of another's"],
)
def test_a_source_speaks_for_no_other(installed: Plane, name: str, entries: tuple[Any, ...]) -> None:
    create(installed, device(name, "Pending"))
    facts(installed, name, DISK, user=NODE)
    facts(installed, name, DISK, PATCHED, user=MDM)

    with pytest.raises(PlaneError, match="source must be node"):
        facts(installed, name, *entries, user=NODE)


def test_a_fact_of_the_node_is_the_nodes(installed: Plane, name: str) -> None:
    create(installed, device(name, "Pending"))
    with pytest.raises(PlaneError, match="source must be mdm"):
        facts(installed, name, DISK, user=MDM)


@pytest.mark.parametrize("user", [WRITER, AUTHORITY])
def test_who_speaks_for_no_source_writes_no_facts(installed: Plane, name: str, user: str) -> None:
    create(installed, device(name, "Pending"))
    facts(installed, name, PATCHED, user=MDM)
    for entries in ((PATCHED, DISK), ()):
        with pytest.raises(PlaneError, match=f"{user} may not write facts"):
            facts(installed, name, *entries, user=user)
    # The rest of the status is not its affair.
    change = json.dumps({"status": {"model": "SLB9670"}})
    installed.kubectl("patch", "device", name, "--subresource=status", "--type=merge", "-p", change, f"--as={user}")


def test_a_device_with_as_many_facts_as_there_may_be_is_judged_in_time(installed: Plane, name: str) -> None:
    create(installed, device(name, "Pending"))
    many = [(f"{'x' * 50}-{number}", "y" * 256, "mdm") for number in range(64)]
    facts(installed, name, *many, user=MDM)
    facts(installed, name, *((fact, "z" * 256, source) for fact, _, source in many), user=MDM)
    with pytest.raises(PlaneError, match=f"{WRITER} may not write facts"):
        facts(installed, name, *many, user=WRITER)


# -- ToolServer -----------------------------------------------------------------------------------------------------------


def server(namespace: str, requires: dict[str, Any] | None = None, access: str = "ReadWrite") -> dict[str, Any]:
    spec: dict[str, Any] = {
        "audience": f"http://tools.{namespace}.svc:8000/mcp",
        "protocol": "MCP",
        "tools": [{"name": "get", "access": "ReadOnly", "inputSchema": {"type": "object"}}],
    }
    spec["tools"].append({"name": "put", "access": access, "inputSchema": {"type": "object"}})
    if requires is not None:
        spec["requires"] = requires
    head = {"apiVersion": "countersign.dev/v1alpha1", "kind": "ToolServer"}
    return {**head, "metadata": {"name": "tools", "namespace": namespace}, "spec": spec}


FULL = {"minAssurance": "Hardware", "minKeyTier": "TPM", "maxAttestationAgeSeconds": 3600}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((None, "Destructive"), (None, "ReadWrite")),
        ((None, "ReadWrite"), (None, "ReadOnly")),
        ((FULL,), ({**FULL, "minAssurance": "Virtual"},)),
        ((FULL,), ({**FULL, "minKeyTier": "TPMSession"},)),
        ((FULL,), ({**FULL, "maxAttestationAgeSeconds": 3601},)),
        ((FULL,), ({**FULL, "maxAttestationAgeSeconds": None},)),
        ((FULL,), (None,)),
        ((None,), ({"minAssurance": "Software"},)),
        ((None,), ({"minKeyTier": "DPoP"},)),
    ],
    ids=[
        "destructive",
        "read-write",
        "assurance",
        "tier",
        "age",
        "no age",
        "no requires",
        "below Virtual",
        "below session",
    ],
)
def test_lowering_needs_the_verb(
    installed: Plane, namespace: str, before: tuple[Any, ...], after: tuple[Any, ...]
) -> None:
    found, lowered = server(namespace, *before), server(namespace, *after)["spec"]
    create(installed, found, WRITER)
    # Merged, so that what the new one leaves out is taken away.
    change = {"spec": {"tools": lowered["tools"], "requires": lowered.get("requires")}}
    for user in (WRITER, APPROVER):
        with pytest.raises(PlaneError, match=f"{user} may not lower access or requires of toolservers"):
            patch(installed, found, change, user)
    patch(installed, found, change, LOWERER)


def test_raising_and_everything_else_needs_no_more_than_the_right_to_write(installed: Plane, namespace: str) -> None:
    found = server(namespace, {"maxAttestationAgeSeconds": 7200})
    create(installed, found, WRITER)
    raised = server(namespace, FULL, access="Destructive")
    patch(installed, found, {"spec": raised["spec"]}, WRITER)
    more = [*raised["spec"]["tools"], {"name": "new", "access": "ReadOnly", "inputSchema": {"type": "object"}}]
    patch(installed, found, {"spec": {"tools": more[1:]}}, WRITER)
    patch(installed, found, {"spec": {"exposeTo": {"from": "All"}}}, WRITER)


def test_a_server_with_as_many_tools_as_there_may_be_is_judged_in_time(installed: Plane, namespace: str) -> None:
    found = server(namespace)
    names = [f"{'x' * 120}{number:08}" for number in range(128)]
    found["spec"]["tools"] = [
        {"name": each, "access": "ReadWrite", "inputSchema": {"type": "object"}} for each in names
    ]
    create(installed, found, WRITER)
    patch(installed, found, {"spec": {"endpoint": f"http://other.{namespace}.svc:8000/mcp"}}, WRITER)
    found["spec"]["tools"][-1]["access"] = "ReadOnly"
    with pytest.raises(PlaneError, match=f"{WRITER} may not lower"):
        patch(installed, found, {"spec": {"tools": found["spec"]["tools"]}}, WRITER)


# -- our processes, as RBAC and the policies together let them ----------------------------------------------------------------


def test_the_operator_revokes(installed: Plane, namespace: str) -> None:
    found = instance("refund-agent-7f9c4", namespace)
    create(installed, found, AUTHORITY)
    patch(installed, found, {"spec": {"state": "Revoked", "stateReason": "AgentGone: it went"}}, OPERATOR)


def test_the_operator_writes_the_trust_map_of_any_namespace_and_no_other_map(installed: Plane, namespace: str) -> None:
    def trust(name: str) -> list[dict[str, Any]]:
        meta = {"name": name, "namespace": namespace}
        return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"ca.crt": "x"}}]

    apply(installed, trust("countersign-trust"), f"--as={OPERATOR}")
    apply(installed, trust("countersign-trust"), f"--as={OPERATOR}")
    with pytest.raises(PlaneError, match="forbidden"):
        apply(installed, trust("kube-root-ca.crt"), f"--as={OPERATOR}")
