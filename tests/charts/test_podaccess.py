"""Who changes an agent's pod, gets into it, or gives TPMs out (crds.md 4, rows V), with our webhook not even installed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kube.given import identity, pod
from support.agent_pods import DEBUGGER, DEVELOPER, SETTINGS, create, init, injected, label, patch, refused
from support.chart import render
from support.jsonpatch import patched

from countersign.devcluster import Plane, PlaneError
from countersign.kube.injection import inject

pytestmark = [pytest.mark.plane, pytest.mark.usefixtures("developers")]

TPM = "only the signer may use the TPM"


# What changes about a pod that runs


@pytest.mark.parametrize("which", ["containers", "initContainers"])
def test_c13_an_image_of_an_agent_is_never_swapped(installed: Plane, agents: str, which: str) -> None:
    create(installed, injected(agents))

    with pytest.raises(PlaneError, match="images of an agent are immutable"):
        patch(
            installed,
            agents,
            [{"op": "replace", "path": f"/spec/{which}/0/image", "value": "evil"}],
            user=DEVELOPER,
        )


def test_c13_somebody_elses_pod_may_change_its_image(installed: Plane, agents: str) -> None:
    other = pod()
    other["metadata"]["namespace"] = agents
    create(installed, other)

    patch(installed, agents, [{"op": "replace", "path": "/spec/containers/0/image", "value": "other"}], user=DEVELOPER)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"app": None}}, "labels of an agent's pod may be neither removed nor changed"),
        ({"labels": {"app": "other"}}, "labels of an agent's pod may be neither removed nor changed"),
        ({"labels": {"countersign.dev/inject": "disabled"}}, "takes no label of countersign.dev"),
        ({"annotations": {"countersign.dev/injected": None}}, "countersign.dev/injected is written by Countersign"),
        ({"annotations": {"countersign.dev/injected": "2"}}, "countersign.dev/injected is written by Countersign"),
    ],
)
@pytest.mark.parametrize("way", [[], ["--subresource=status"]], ids=["itself", "its status"])
def test_c2_an_agent_keeps_what_it_is_known_by(
    installed: Plane, agents: str, change: dict[str, Any], message: str, way: list[str]
) -> None:
    create(installed, injected(agents))

    with pytest.raises(PlaneError, match=message):
        patch(installed, agents, {"metadata": change}, *way, user=DEVELOPER)


def test_everything_else_about_an_agents_pod_changes_as_ever(installed: Plane, agents: str) -> None:
    create(installed, injected(agents))

    patch(installed, agents, {"metadata": {"labels": {"new": "label"}, "annotations": {"new": "note"}}}, user=DEVELOPER)
    patch(installed, agents, {"status": {"phase": "Running"}}, "--subresource=status", user=DEVELOPER)
    installed.kubectl("delete", "pod", "refund-1", "-n", agents, "--grace-period=0", "--force", f"--as={DEVELOPER}")


# Getting into one


def debugger(**fields: Any) -> dict[str, Any]:
    return {"spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox", **fields}]}}


@pytest.mark.parametrize(
    ("words", "subresource"),
    [
        (["exec", "refund-1", "--", "id"], "exec"),
        (["exec", "refund-1", "-c", "countersign-signer", "--", "id"], "exec"),
        (["attach", "refund-1"], "attach"),
        (["port-forward", "refund-1", "17080:7080"], "portforward"),
        (["debug", "refund-1", "--image=busybox"], "ephemeralcontainers"),
        (["debug", "refund-1", "--image=busybox", "--target=agent"], "ephemeralcontainers"),
    ],
    ids=["exec", "exec into the signer", "attach", "port-forward", "debug", "debug --target"],
)
def test_c9_getting_into_an_agents_pod_needs_the_verb(
    installed: Plane, agents: str, words: list[str], subresource: str
) -> None:
    create(installed, injected(agents))
    ready(installed, agents)

    said = f"{DEVELOPER} may not use pods/{subresource} in namespace {agents}: it needs the verb exec on agentinstances"
    assert said in answer(installed, "-n", agents, f"--as={DEVELOPER}", *words)
    # Nobody runs the pod, so nothing comes of it; but it is not forbidden.
    assert "orbidden" not in answer(installed, "-n", agents, f"--as={DEBUGGER}", *words)


def answer(plane: Plane, *words: str) -> str:
    """What kubectl says went wrong, or nothing."""
    try:
        plane.kubectl(*words)
    except PlaneError as error:
        return str(error)
    return ""


def ready(plane: Plane, namespace: str) -> None:
    """Say of the pod what a kubelet would: kubectl looks before it asks."""
    patch(plane, namespace, {"status": {"phase": "Running"}}, "--subresource=status")


def test_c9_the_verb_can_be_granted_in_one_namespace(installed: Plane, agents: str) -> None:
    create(installed, injected(agents))
    rule = ["--verb=exec", "--resource=agentinstances.countersign.dev"]
    installed.kubectl("create", "role", "exec", *rule, "-n", agents)
    installed.kubectl("create", "rolebinding", "exec", "--role=exec", f"--user={DEVELOPER}", "-n", agents)

    patch(installed, agents, debugger(), "--subresource=ephemeralcontainers", user=DEVELOPER)


def test_c9_namespaces_without_agents_are_as_they_were(installed: Plane, namespace: str) -> None:
    installed.kubectl("create", "serviceaccount", "refund-agent", "-n", namespace)
    other = pod()
    other["metadata"]["namespace"] = namespace
    create(installed, other)

    patch(installed, namespace, debugger(), "--subresource=ephemeralcontainers", user=DEVELOPER)


@pytest.mark.parametrize(
    "fields",
    [
        {"targetContainerName": "countersign-signer"},
        {"securityContext": {"runAsUser": 64174}},
        {"securityContext": {"privileged": True}},
        {"volumeMounts": [{"name": "countersign-token", "mountPath": "/t"}]},
        {"volumeMounts": [{"name": "countersign-trust", "mountPath": "/t"}]},
    ],
    ids=["target", "uid", "privileged", "token", "trust"],
)
def test_c9_who_may_debug_still_does_not_become_the_signer(
    installed: Plane, agents: str, fields: dict[str, Any]
) -> None:
    create(installed, injected(agents))

    with pytest.raises(PlaneError, match="an ephemeral container may not be the signer's uid"):
        patch(installed, agents, debugger(**fields), "--subresource=ephemeralcontainers", user=DEBUGGER)
    patch(installed, agents, debugger(), "--subresource=ephemeralcontainers", user=DEBUGGER)


def test_c9_the_guard_can_be_left_to_others() -> None:
    names = [each["metadata"]["name"] for each in render("guards.exec=false")]
    assert "countersign-pod-access" not in names
    assert "countersign-pod-access" in [each["metadata"]["name"] for each in render()]


# TPMs, and the namespaces that may have them


@pytest.mark.parametrize("kind", ["limits", "requests"])
def test_a_tpm_is_for_signers_in_any_namespace(installed: Plane, agents: str, kind: str) -> None:
    thief = pod(containers=[init("thief", resources={kind: {"countersign.dev/tpm": "1"}})])
    thief["metadata"]["namespace"] = agents

    # Kubernetes wants limits beside requests; requests beside limits it writes by itself.
    refused(installed, thief, TPM if kind == "limits" else "is invalid")


def test_a_tpm_is_given_out_where_the_platform_says_so(installed: Plane, agents: str) -> None:
    found = injected(agents)
    create(installed, found, "--dry-run=server")

    label(installed, agents, "countersign.dev/tpm-")

    refused(installed, found, f"{TPM}, in namespaces labelled countersign.dev/tpm: allowed, and {agents} is not")
    software = pod()
    software["metadata"]["namespace"] = agents
    create(installed, patched(software, inject(software, identity(minAssurance="Software"), SETTINGS)))


@pytest.mark.parametrize("key", ["scope.countersign.dev/tenant", "countersign.dev/tpm"])
def test_what_rules_select_by_is_not_the_namespace_editors(installed: Plane, namespace: str, key: str) -> None:
    said = f"{DEVELOPER} may not relabel"
    with pytest.raises(PlaneError, match=said):
        label(installed, namespace, f"{key}=a", user=DEVELOPER)
    label(installed, namespace, f"{key}=a")
    with pytest.raises(PlaneError, match=said):
        label(installed, namespace, f"{key}=b", user=DEVELOPER)
    with pytest.raises(PlaneError, match=said):
        label(installed, namespace, f"{key}-", user=DEVELOPER)
    change = json.dumps({"metadata": {"labels": {key: None}}})
    where = ["namespace", namespace, "--subresource=status", "--type=merge"]
    with pytest.raises(PlaneError, match=said):
        installed.kubectl("patch", *where, "-p", change, f"--as={DEVELOPER}")
    label(installed, namespace, "other=label", user=DEVELOPER)

    new = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"{namespace}-b", "labels": {key: "a"}}}
    with pytest.raises(PlaneError, match=said):
        create(installed, new, "--dry-run=server", user=DEVELOPER)


def test_c9_a_namespace_takes_part_for_good_unless_the_platform_says_otherwise(installed: Plane, agents: str) -> None:
    """Else who may edit a Namespace takes the guard off its agents and walks in."""
    for change in ("countersign.dev/injection-", "countersign.dev/injection=disabled"):
        with pytest.raises(PlaneError, match=f"{DEVELOPER} may not relabel"):
            label(installed, agents, change, user=DEVELOPER)
    label(installed, agents, "countersign.dev/injection-")
    label(installed, agents, "countersign.dev/injection=enabled", user=DEVELOPER)


def test_the_right_to_relabel_is_a_verb(installed: Plane, namespace: str) -> None:
    rule = ["--verb=label", "--resource=clustertoolpolicies.countersign.dev"]
    installed.kubectl("create", "clusterrole", f"{namespace}-label", *rule)
    for role in (f"{namespace}-label", DEVELOPER):
        binding = ["clusterrolebinding", f"{namespace}-{role}", f"--clusterrole={role}", f"--user={namespace}"]
        installed.kubectl("create", *binding)

    label(installed, namespace, "scope.countersign.dev/tenant=a", user=namespace)
