"""Each thing that a live pod may not be: one hostile change, one phrase, and only that."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from kube.given import SETTINGS, identity, pod
from support.jsonpatch import patched

from countersign.kube import faults
from countersign.kube.injection import inject, injection_faults

if TYPE_CHECKING:
    from countersign.devcluster import Plane

Change = Callable[[dict[str, Any]], Any]
_TOKEN_VOLUME = {
    "name": "mine",
    "projected": {"sources": [{"serviceAccountToken": {"audience": "countersign.dev", "path": "t"}}]},
}


def injected(**spec: Any) -> dict[str, Any]:
    plain = pod(**spec)
    return patched(plain, inject(plain, identity(), SETTINGS))


def signer(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = spec["initContainers"][0]
    return found


def agent(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = spec["containers"][0]
    return found


HOSTILE: dict[str, tuple[Change, str]] = {
    "no signer": (lambda spec: spec.pop("initContainers"), "no init container countersign-signer"),
    "signer that does not stay": (lambda spec: signer(spec).pop("restartPolicy"), "another restartPolicy"),
    "another image": (lambda spec: signer(spec).update(image="evil"), "another image"),
    "another command": (lambda spec: signer(spec).update(command=["sh"]), "another command"),
    "arguments": (lambda spec: signer(spec).update(args=["--log-level=debug"]), "another args"),
    "one more variable": (
        lambda spec: signer(spec)["env"].append({"name": "PYTHONPATH", "value": "/x"}),
        "another env",
    ),
    "variables from a ConfigMap": (lambda spec: signer(spec).update(envFrom=[{"configMapRef": {}}]), "another envFrom"),
    "another uid": (lambda spec: signer(spec)["securityContext"].update(runAsUser=0), "another securityContext"),
    "a capability": (
        lambda spec: signer(spec)["securityContext"].update(capabilities={"add": ["SYS_PTRACE"]}),
        "another securityContext",
    ),
    "a hook": (lambda spec: signer(spec).update(lifecycle={"preStop": {}}), "another lifecycle"),
    "another probe": (lambda spec: signer(spec)["startupProbe"]["httpGet"].update(path="/"), "another startupProbe"),
    "one more mount in the signer": (
        lambda spec: signer(spec)["volumeMounts"].append({"name": "data", "mountPath": "/usr"}),
        "other volumeMounts",
    ),
    "a signer without a TPM": (lambda spec: signer(spec).update(resources={}), "another number of countersign.dev/tpm"),
    "another trust": (
        lambda spec: spec["volumes"][1].update(configMap={"name": "evil"}),
        "volume countersign-trust is missing or another",
    ),
    "another token": (
        lambda spec: spec["volumes"][0]["projected"]["sources"].append({"secret": {"name": "x"}}),
        "volume countersign-token is missing or another",
    ),
    "a token of our audience for the agent": (
        lambda spec: spec["volumes"].append(_TOKEN_VOLUME),
        "volume mine holds a token for the signer's audience",
    ),
    "the agent mounts the token": (
        lambda spec: agent(spec).update(volumeMounts=[{"name": "countersign-token", "mountPath": "/t"}]),
        "container agent mounts countersign-token",
    ),
    "the agent is the signer's uid": (
        lambda spec: agent(spec).update(securityContext={"runAsUser": 64174}),
        "container agent runs as the signer's uid",
    ),
    "the whole pod is the signer's uid": (
        lambda spec: spec.update(securityContext={"runAsUser": 64174}),
        "container agent runs as the signer's uid",
    ),
    "the agent is privileged": (
        lambda spec: agent(spec).update(securityContext={"privileged": True}),
        "container agent is privileged",
    ),
    "the agent asks for a TPM": (
        lambda spec: agent(spec).update(resources={"limits": {"countersign.dev/tpm": "1"}}),
        "container agent asks for countersign.dev/tpm",
    ),
    "an ephemeral container": (
        lambda spec: spec.update(ephemeralContainers=[{"name": "debug"}]),
        "there is an ephemeral container",
    ),
    **{
        f"{field}": (lambda spec, field=field: spec.update({field: True}), f"{field} is set")
        for field in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace")
    },
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_change_is_the_one_fault(name: str) -> None:
    change, phrase = HOSTILE[name]
    live = injected()
    assert injection_faults(live, identity(), SETTINGS) == []

    change(live["spec"])

    [fault] = injection_faults(live, identity(), SETTINGS)
    assert phrase in fault


@pytest.mark.parametrize("look", faults.FAULTS, ids=lambda look: look.__name__)
def test_each_look_is_needed(look: Any) -> None:
    """Without one of them some hostile pod would pass."""
    looks = [one for one in faults.FAULTS if one is not look]
    passing = []
    for name, (change, _) in HOSTILE.items():
        live = injected()
        change(live["spec"])
        if not injection_faults(live, identity(), SETTINGS, looks=looks):
            passing.append(name)
    assert passing


def test_a_fault_never_repeats_a_value() -> None:
    live = injected()
    signer(live["spec"])["env"][0]["value"] = "hunter2"
    agent(live["spec"])["env"].append({"name": "KEY", "value": "hunter2"})

    assert "hunter2" not in json.dumps(injection_faults(live, identity(), SETTINGS))


def test_more_resources_for_the_signer_are_no_fault() -> None:
    live = injected()
    signer(live["spec"])["resources"]["limits"]["memory"] = "128Mi"

    assert injection_faults(live, identity(), SETTINGS) == []


@pytest.mark.plane
@pytest.mark.parametrize("automount", [True, False])
def test_what_a_real_api_server_fills_in_is_no_fault(
    plane: Plane,
    namespace: str,
    automount: bool,  # noqa: FBT001 - a table
) -> None:
    plane.kubectl("create", "serviceaccount", "refund-agent", "-n", namespace)
    resources = {"limits": {"memory": "134217728", "cpu": "1000m"}, "requests": {"cpu": "0.1"}}
    owner = identity(signer={"resources": resources})
    plain = pod(automountServiceAccountToken=automount, initContainers=[{"name": "first", "image": "first"}])
    plain["metadata"]["namespace"] = namespace
    plane.kubectl("create", "-f", "-", data=json.dumps(patched(plain, inject(plain, owner, SETTINGS))))

    live = plane.get("pod", "refund-1", "-n", namespace)

    assert live["spec"]["initContainers"][0]["terminationMessagePath"]
    assert injection_faults(live, owner, SETTINGS) == []
    assert inject(live, owner, SETTINGS) == []
