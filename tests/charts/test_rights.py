"""Who may do what (crds.md 8), asked of a real API server: every right of the table, and not one more."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.chart import SYSTEM, as_list, render

from countersign.api import KINDS
from countersign.devcluster import PlaneError
from countersign.kube import Kube, Resource

if TYPE_CHECKING:
    from countersign.devcluster import Plane

pytestmark = pytest.mark.plane

OURS = tuple(kind.names.plural for kind in KINDS)
FOLLOW = ("list", "watch")
READ = ("get", *FOLLOW)
WRITE = (*READ, "create", "update", "patch", "delete")
VERBS = (*WRITE, "deletecollection", "approve", "lower", "exec", "label", "audit")
KNOWN: dict[str, str] = {
    **dict.fromkeys(OURS, "countersign.dev"),
    **{f"{plural}/status": "countersign.dev" for plural in OURS},
    **dict.fromkeys(("agenttasks", "toolapprovals"), "countersign.dev"),
    **dict.fromkeys(("namespaces", "nodes", "pods", "serviceaccounts", "secrets", "configmaps", "events", "users"), ""),
    **dict.fromkeys(
        (
            "pods/exec",
            "pods/attach",
            "pods/portforward",
            "pods/proxy",
            "pods/ephemeralcontainers",
            "serviceaccounts/token",
            "nodes/proxy",
        ),
        "",
    ),
    "deployments": "apps",
    "leases": "coordination.k8s.io",
    "clusterroles": "rbac.authorization.k8s.io",
    "rolebindings": "rbac.authorization.k8s.io",
    "mutatingwebhookconfigurations": "admissionregistration.k8s.io",
    "validatingwebhookconfigurations": "admissionregistration.k8s.io",
    "validatingadmissionpolicies": "admissionregistration.k8s.io",
    "customresourcedefinitions": "apiextensions.k8s.io",
    "tokenreviews": "authentication.k8s.io",
    "subjectaccessreviews": "authorization.k8s.io",
    "certificatesigningrequests": "certificates.k8s.io",
}
# Events have two groups and one name; the one that is written is named with its group.
GROUPS = {"events.k8s.io/events": "events.k8s.io"}

OUR_GROUP = {resource: group for resource, group in KNOWN.items() if group == "countersign.dev"}

# Right: where (everywhere, or Countersign's own namespace), resource, name ("" for any), verb.
Right = tuple[str, str, str, str]


def rights(where: str, resources: str, verbs: tuple[str, ...], name: str = "") -> set[Right]:
    return {(where, resource, name, verb) for resource in resources.split() for verb in verbs}


EVENTS = rights("everywhere", "events.k8s.io/events", ("create", "patch"))
PROCESSES: dict[str, set[Right]] = {
    "operator": {
        *rights("everywhere", " ".join(OURS), FOLLOW),
        *rights("everywhere", "pods namespaces serviceaccounts", FOLLOW),
        *rights("everywhere", "agentidentities agentinstances devices pods", ("get",)),
        *rights("everywhere", "agentidentities/status devicepools/status toolservers/status", ("patch",)),
        *rights("everywhere", "toolpolicies/status clustertoolpolicies/status agentinstances/status", ("patch",)),
        *rights("everywhere", "agentinstances", ("patch", "delete")),
        *rights("everywhere", "configmaps", ("create", "patch"), "countersign-trust"),
        *rights("everywhere", "mutatingwebhookconfigurations", ("get", "patch"), "countersign"),
        *rights("everywhere", "validatingwebhookconfigurations", ("get", "patch"), "countersign"),
        *rights("own", "secrets leases", ("get", "create", "update")),
        *EVENTS,
    },
    "webhook": {
        *rights("everywhere", " ".join(OURS), FOLLOW),
        *rights("everywhere", "namespaces pods", FOLLOW),
        *rights("everywhere", "tokenreviews subjectaccessreviews", ("create",)),
        *rights("everywhere", "certificatesigningrequests", ("get",)),
        *rights("own", "configmaps", ("create", "patch")),
        *EVENTS,
    },
    "authority": {
        *rights("everywhere", "tokenreviews", ("create",)),
        *rights("everywhere", "identityissuers devicepools devices agentidentities agentinstances namespaces", FOLLOW),
        *rights("everywhere", "agentinstances devices pods", ("get",)),
        *rights("everywhere", "agentinstances devices", ("create",)),
        *rights("everywhere", "identityissuers/status devices/status agentinstances/status", ("patch",)),
        *rights("own", "configmaps secrets", ("get", "create", "update")),
        *EVENTS,
    },
    "node": rights("everywhere", "devices/status", ("patch",)),
}
CLUSTER_SCOPED = "clustertoolpolicies devicepools devices identityissuers"
PEOPLE: dict[str, set[Right]] = {
    "countersign-view": rights("everywhere", " ".join(OURS), READ),
    "countersign-server-owner": rights("everywhere", "toolservers", WRITE),
    "countersign-policy-editor": rights("everywhere", "toolpolicies", WRITE),
    "countersign-agent-owner": {
        *rights("everywhere", "agentidentities", WRITE),
        *rights("everywhere", "agentinstances", (*READ, "patch")),
    },
    "countersign-auditor": rights("everywhere", "agentinstances", (*READ, "audit")),
    "countersign-platform-admin": {
        *rights("everywhere", CLUSTER_SCOPED, WRITE),
        *rights("everywhere", "devices", ("approve",)),
    },
}


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_has_the_rights_of_the_table_and_no_other(installed: Plane, process: str) -> None:
    user = {
        "user": f"system:serviceaccount:{SYSTEM}:countersign-{process}",
        "groups": ["system:serviceaccounts", f"system:serviceaccounts:{SYSTEM}", "system:authenticated"],
    }
    assert allowed(installed, user, {**KNOWN, **GROUPS}) == spread(PROCESSES[process])


@pytest.mark.parametrize("role", PEOPLE)
def test_a_person_has_the_rights_of_the_role_and_no_other(installed: Plane, role: str) -> None:
    name = f"chart-test-{role}"
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}],
    }
    installed.kubectl("create", "-f", "-", data=as_list([binding]))
    try:
        user = {"user": name, "groups": ["system:authenticated"]}
        assert allowed(installed, user, OUR_GROUP) == spread(PEOPLE[role])
    finally:
        installed.kubectl("delete", "clusterrolebinding", name)


def test_the_way_to_the_log_is_these_rights_and_shows_nothing_by_itself(installed: Plane) -> None:
    name, group = "chart-test-audit-reader", "rbac.authorization.k8s.io"
    subjects = [{"apiGroup": group, "kind": "User", "name": name}]
    refs = {"ClusterRoleBinding": "ClusterRole", "RoleBinding": "Role"}
    bindings = [
        {
            "apiVersion": f"{group}/v1",
            "kind": kind,
            "metadata": {"name": name, **({"namespace": SYSTEM} if kind == "RoleBinding" else {})},
            "roleRef": {"apiGroup": group, "kind": role, "name": "countersign-audit-reader"},
            "subjects": subjects,
        }
        for kind, role in refs.items()
    ]
    installed.kubectl("create", "-f", "-", data=as_list(bindings))
    try:
        user = {"user": name, "groups": ["system:authenticated"]}
        table = {
            *rights("everywhere", "certificatesigningrequests", ("create",)),
            *rights("own", "pods", ("list",)),
            *rights("own", "pods/proxy", ("get",)),
        }
        assert allowed(installed, user, KNOWN) == spread(table)
    finally:
        installed.kubectl("delete", "clusterrolebinding", name)
        installed.kubectl("delete", "rolebinding", name, "-n", SYSTEM)


def test_a_role_for_people_is_about_our_kinds_alone() -> None:
    roles = [each for each in render() if each["kind"] == "ClusterRole" and each["metadata"]["name"] in PEOPLE]
    assert len(roles) == len(PEOPLE)
    assert {group for role in roles for rule in role["rules"] for group in rule["apiGroups"]} == {"countersign.dev"}


def test_no_rule_has_a_wildcard_or_a_verb_that_was_not_asked_about() -> None:
    rules = [rule for each in render() if each["kind"] in ("ClusterRole", "Role") for rule in each["rules"]]
    assert {verb for rule in rules for verb in rule["verbs"]} <= set(VERBS)
    assert not [rule for rule in rules if "*" in json.dumps(rule) or "nonResourceURLs" in rule]
    places = {each["metadata"]["namespace"] for each in render() if each["kind"] in ("Role", "RoleBinding")}
    assert places == {SYSTEM}


@pytest.mark.parametrize(("role", "added"), [("view", set(READ)), ("edit", set(READ)), ("admin", set(READ))])
def test_of_our_roles_only_view_is_part_of_those_of_kubernetes(installed: Plane, role: str, added: set[str]) -> None:
    rules = installed.get("clusterrole", role)["rules"]
    ours = [rule for rule in rules if "countersign.dev" in rule["apiGroups"]]
    assert {verb for rule in ours for verb in rule["verbs"]} == added
    assert {resource for rule in ours for resource in rule["resources"]} == set(OURS)


def test_a_server_side_apply_that_creates_needs_both_verbs(installed: Plane, namespace: str) -> None:
    """So `create` stands beside `patch` for ConfigMaps, though an audit log shows `patch` alone."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "countersign-trust", "namespace": namespace}}
    words = ("apply", "--server-side", f"--as={namespace}", "-f", "-")
    role = ("create", "role", "trust", "-n", namespace, "--resource=configmaps", "--resource-name=countersign-trust")
    installed.kubectl(*role, "--verb=patch")
    installed.kubectl("create", "rolebinding", "trust", "-n", namespace, "--role=trust", f"--user={namespace}")
    with pytest.raises(PlaneError, match=r"cannot (patch|create) resource"):
        installed.kubectl(*words, data=json.dumps(body))
    more = [{"op": "add", "path": "/rules/0/verbs/-", "value": "create"}]
    installed.kubectl("patch", "role", "trust", "-n", namespace, "--type=json", "-p", json.dumps(more))
    eventually_allowed(installed, words, json.dumps(body))


def eventually_allowed(plane: Plane, words: tuple[str, ...], data: str) -> None:
    """The authorizer follows roles by a watch."""
    end = time.monotonic() + 20
    while True:
        try:
            plane.kubectl(*words, data=data)
        except PlaneError:
            assert time.monotonic() < end
        else:
            return


def spread(table: set[Right]) -> set[Right]:
    """Say each right for every place and name that is asked about."""
    places = {"everywhere": ("", SYSTEM), "own": (SYSTEM,)}
    return {
        (place, resource, asked, verb)
        for where, resource, name, verb in table
        for place in places[where]
        for asked in ((name,) if name else names(resource))
    }


def names(resource: str) -> tuple[str, ...]:
    """Return the names that are asked about: none, and where the chart limits a right to a name, that one."""
    named = {"configmaps": "countersign-trust"}
    named |= dict.fromkeys(("mutatingwebhookconfigurations", "validatingwebhookconfigurations"), "countersign")
    return ("", named[resource]) if resource in named else ("",)


def allowed(plane: Plane, user: dict[str, Any], resources: dict[str, str]) -> set[Right]:
    """Ask the API server for everything that ``user`` may do with ``resources``, of all that could be thought of here."""
    questions = [
        (place, resource, name, verb)
        for place, resource, verb in itertools.product(("", SYSTEM), resources, VERBS)
        for name in names(resource)
    ]
    return asyncio.run(ask(plane, user, resources, questions))


async def ask(plane: Plane, user: dict[str, Any], resources: dict[str, str], questions: list[Right]) -> set[Right]:
    reviews = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False)
    kube, found, limit = await Kube.connect(plane.admin_kubeconfig), set(), asyncio.Semaphore(16)

    async def one(question: Right) -> None:
        place, resource, name, verb = question
        plural, _, subresource = resource.removeprefix("events.k8s.io/").partition("/")
        attributes = {"group": resources[resource], "resource": plural, "subresource": subresource}
        attributes |= {"namespace": place, "name": name, "verb": verb}
        body = {"metadata": {}, "spec": {**user, "resourceAttributes": attributes}}
        async with limit:
            answer = await kube.create(reviews, {"apiVersion": "authorization.k8s.io/v1", "kind": reviews.kind, **body})
        if answer["status"]["allowed"]:
            found.add(question)

    try:
        await asyncio.gather(*(one(each) for each in questions))
    finally:
        await kube.aclose()
    return found
