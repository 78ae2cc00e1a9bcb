"""Each thing that a live pod may not be: one hostile change, one phrase, and only that."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from kube.given import SETTINGS, identity, pod
from support.hostile_pods import HOSTILE, agent, signer
from support.jsonpatch import patched

from countersign.kube import faults
from countersign.kube.injection import inject, injection_faults

if TYPE_CHECKING:
    from countersign.devcluster import Plane


def injected(**spec: Any) -> dict[str, Any]:
    plain = pod(**spec)
    return patched(plain, inject(plain, identity(), SETTINGS))


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
