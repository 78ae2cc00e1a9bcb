"""Pod to patch: golden pods, and what holds for every pod."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kube.given import OPTED_IN, SETTINGS, identity, pod
from support.jsonpatch import patched

from countersign.kube import faults
from countersign.kube.injection import InjectionSettings, hindrances, inject, injection_faults, select_identities

DATA = Path(__file__).parents[1] / "data" / "pods"
CASES = sorted(path for path in DATA.glob("*.yaml") if not path.stem.endswith(".injected"))


# Golden pods: NAME.yaml holds a pod and its AgentIdentity, NAME.injected.yaml what becomes of the pod.


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_golden_pod(path: Path, request: pytest.FixtureRequest) -> None:
    before, owner = yaml.safe_load_all(path.read_text())
    untouched = copy.deepcopy((before, owner))

    after = patched(before, inject(before, owner, SETTINGS))

    golden = path.with_suffix(".injected.yaml")
    if request.config.getoption("--update-golden"):
        golden.write_text(yaml.safe_dump(after, sort_keys=False))
    assert after == yaml.safe_load(golden.read_text())
    assert (before, owner) == untouched
    assert inject(after, owner, SETTINGS) == []
    assert injection_faults(after, owner, SETTINGS) == []
    assert hindrances(before, owner, SETTINGS) == hindrances(after, owner, SETTINGS) == []


def test_there_are_golden_pods() -> None:
    assert len(CASES) >= 12


# Any pod


names = st.sampled_from(["COUNTERSIGN_URL", "NO_PROXY", "no_proxy", "HOME"])
values = st.sampled_from(["", "localhost", "a.example,127.0.0.1", "http://127.0.0.1:7080", "$(HOME)"])
entries = st.one_of(
    st.fixed_dictionaries({"name": names, "value": values}),
    st.fixed_dictionaries({"name": names}),
    st.fixed_dictionaries({"name": names, "valueFrom": st.just({"fieldRef": {"fieldPath": "metadata.name"}})}),
)
containers = st.fixed_dictionaries(
    {"name": st.sampled_from(["agent", "other", "countersign-signer"]), "image": st.just("image")},
    optional={"env": st.lists(entries, max_size=4), "restartPolicy": st.just("Always")},
)
mounted = st.sampled_from(
    [
        {"name": "countersign-token", "emptyDir": {}},
        {"name": "countersign-trust", "configMap": {"name": "countersign-trust", "defaultMode": 420}},
        {"name": "data", "emptyDir": {}},
    ]
)
unique = {"unique_by": lambda each: each["name"]}
specs = st.fixed_dictionaries(
    {
        "containers": st.lists(
            containers.filter(lambda one: one["name"] != "countersign-signer"), min_size=1, max_size=2, **unique
        )
    },
    optional={
        "initContainers": st.none() | st.lists(containers, max_size=3, **unique),
        "volumes": st.none() | st.lists(mounted, max_size=3, **unique),
    },
)
annotations = st.none() | st.dictionaries(
    st.sampled_from(["countersign.dev/injected", "note"]), st.sampled_from(["0.1.0", "0.0.9"])
)
identities = st.builds(
    identity,
    minAssurance=st.sampled_from(["Software", "Hardware"]),
    signer=st.fixed_dictionaries({}, optional={"port": st.sampled_from([7080, 9000])}),
)


@settings(max_examples=200, deadline=None)
@given(specs, annotations, identities)
def test_injecting_twice_is_injecting_once_and_leaves_no_fault(
    spec: dict[str, Any], notes: dict[str, str] | None, owner: dict[str, Any]
) -> None:
    before = {"metadata": {"name": "x", "annotations": notes}, "spec": spec}

    once = patched(before, inject(before, owner, SETTINGS))

    assert inject(once, owner, SETTINGS) == []
    assert injection_faults(once, owner, SETTINGS) == []
    assert once["metadata"]["annotations"]["countersign.dev/injected"] == "0.1.0"
    kept = [one["name"] for one in spec["containers"]]
    assert [one["name"] for one in once["spec"]["containers"]] == kept


def test_a_forged_annotation_saves_nobody_from_the_signer() -> None:
    forged = pod()
    forged["metadata"]["annotations"] = {"countersign.dev/injected": "0.1.0"}

    found = patched(forged, inject(forged, identity(), SETTINGS))

    assert found["spec"]["initContainers"][0]["name"] == "countersign-signer"


def test_a_signer_of_somebody_else_is_replaced() -> None:
    other = pod(initContainers=[{"name": "first", "image": "x"}, {"name": "countersign-signer", "image": "evil"}])

    found = patched(other, inject(other, identity(), SETTINGS))

    assert [one["name"] for one in found["spec"]["initContainers"]] == ["countersign-signer", "first"]
    assert found["spec"]["initContainers"][0]["image"] == "countersign:test"


def test_a_signer_behind_another_injectors_container_comes_first_again() -> None:
    once = patched(pod(), inject(pod(), identity(), SETTINGS))
    once["spec"]["initContainers"].insert(0, {"name": "mesh", "image": "mesh"})

    found = patched(once, inject(once, identity(), SETTINGS))

    assert [one["name"] for one in found["spec"]["initContainers"]] == ["countersign-signer", "mesh"]
    assert inject(found, identity(), SETTINGS) == []


def test_the_signer_of_a_former_release_is_left_as_it_is() -> None:
    old = InjectionSettings(image="countersign:old", version="0.1.0")
    new = InjectionSettings(image="countersign:new", version="0.1.0", former_images=("countersign:old",))
    running = patched(pod(), inject(pod(), identity(), old))

    assert inject(running, identity(), new) == []
    assert injection_faults(running, identity(), new) == []


def test_a_pod_that_brings_its_own_signer_is_left_alone() -> None:
    own = identity(signer={"injection": "None"})

    assert inject(pod(), own, SETTINGS) == []
    assert injection_faults(pod(), own, SETTINGS) == []


# Pods that no patch makes an agent's


def mounting(volume: str) -> dict[str, Any]:
    return {"name": "agent", "image": "x", "volumeMounts": [{"name": volume, "mountPath": "/t"}]}


OURS = {"serviceAccountToken": {"audience": "countersign.dev", "path": "t"}}
HINDERED: dict[str, tuple[dict[str, Any], str]] = {
    "hostNetwork": ({"hostNetwork": True}, "hostNetwork is set"),
    "hostPID": ({"hostPID": True}, "hostPID is set"),
    "hostIPC": ({"hostIPC": True}, "hostIPC is set"),
    "shareProcessNamespace": ({"shareProcessNamespace": True}, "shareProcessNamespace is set"),
    "our name": (
        {"containers": [{"name": "agent", "image": "x"}, {"name": "countersign-signer", "image": "x"}]},
        "a container is called countersign-signer, as the signer would be",
    ),
    "our uid": ({"securityContext": {"runAsUser": 64174}}, "container agent runs as the signer's uid"),
    "privileged": (
        {"containers": [{"name": "agent", "image": "x", "securityContext": {"privileged": True}}]},
        "container agent is privileged",
    ),
    "our volume": ({"containers": [mounting("countersign-token")]}, "container agent mounts countersign-token"),
    "our audience": (
        {"volumes": [{"name": "mine", "projected": {"sources": [OURS]}}]},
        "volume mine holds a token for the signer's audience too",
    ),
    "a TPM": (
        {"containers": [{"name": "agent", "image": "x", "resources": {"limits": {"countersign.dev/tpm": "1"}}}]},
        "container agent asks for countersign.dev/tpm",
    ),
    "hostPath": ({"volumes": [{"name": "node", "hostPath": {"path": "/"}}]}, "volume node is a hostPath"),
    "Windows": ({"os": {"name": "windows"}}, "it runs on Windows"),
}


@pytest.mark.parametrize("name", HINDERED)
def test_a_pod_that_would_be_refused_when_it_enrols_says_why(name: str) -> None:
    spec, phrase = HINDERED[name]

    assert hindrances(pod(**spec), identity(), SETTINGS) == [phrase]


def test_a_static_pod_is_its_nodes_alone() -> None:
    mirror = pod()
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "1"}

    assert hindrances(mirror, identity(), SETTINGS) == ["it is a static pod of its node"]


@pytest.mark.parametrize("look", faults.HINDRANCES, ids=lambda look: look.__name__)
def test_each_hindrance_is_looked_for(look: Any) -> None:
    looks = [one for one in faults.HINDRANCES if one is not look]

    assert [
        name for name, (spec, _) in HINDERED.items() if not hindrances(pod(**spec), identity(), SETTINGS, looks=looks)
    ]


@settings(max_examples=200, deadline=None)
@given(specs, annotations, identities, st.sampled_from(sorted(HINDERED)))
def test_whatever_is_not_hindered_is_an_agents_once_patched(
    spec: dict[str, Any], notes: dict[str, str] | None, owner: dict[str, Any], name: str
) -> None:
    """What is left alone and what the authority would refuse are the same pods."""
    before = {"metadata": {"name": "x", "annotations": notes}, "spec": {**spec, **HINDERED[name][0]}}

    assert hindrances(before, owner, SETTINGS)
    if name not in ("our name", "Windows"):
        assert injection_faults(patched(before, inject(before, owner, SETTINGS)), owner, SETTINGS)


def test_a_pod_that_brings_its_own_signer_is_hindered_by_nothing() -> None:
    assert hindrances(pod(hostNetwork=True), identity(signer={"injection": "None"}), SETTINGS) == []


# Which identity


def chosen(a_pod: dict[str, Any], *owners: dict[str, Any], labels: dict[str, str] | None = None) -> list[str]:
    found = select_identities(a_pod, owners, OPTED_IN if labels is None else labels)
    return [one["metadata"]["name"] for one in found]


def test_the_service_account_selects() -> None:
    assert chosen(pod(), identity("a"), identity("b", serviceAccountName="other")) == ["a"]
    assert chosen(pod(serviceAccountName=None), identity("a", serviceAccountName="default")) == ["a"]


def test_two_that_select_are_both_told() -> None:
    assert chosen(pod(), identity("a"), identity("b")) == ["a", "b"]


@pytest.mark.parametrize(
    ("selector", "selects"),
    [
        ({"matchLabels": {"app": "refund-agent"}}, True),
        ({"matchLabels": {"app": "other"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["refund-agent"]}]}, False),
        ({}, False),
        ({"matchLabels": {"app": "refund-agent"}, "matchFuture": {}}, False),
    ],
)
def test_a_pod_selector_narrows_and_one_that_cannot_be_read_selects_nothing(
    selector: dict[str, Any],
    selects: bool,  # noqa: FBT001 - a table
) -> None:
    assert chosen(pod(), identity("a", podSelector=selector)) == (["a"] if selects else [])


def test_injection_wants_the_namespaces_yes_and_respects_the_pods_no() -> None:
    opted_out = pod({"countersign.dev/inject": "disabled"})
    assert chosen(pod(), identity("a"), labels={}) == []
    assert chosen(pod(), identity("a"), labels={"countersign.dev/injection": "disabled"}) == []
    assert chosen(opted_out, identity("a")) == []


def test_an_identity_whose_pods_bring_a_signer_needs_no_yes() -> None:
    own = identity("a", signer={"injection": "None"})
    assert chosen(pod(), own, labels={}) == ["a"]
    assert chosen(pod({"countersign.dev/inject": "disabled"}), own) == ["a"]


def test_an_identity_that_is_being_deleted_or_is_elsewhere_selects_nothing() -> None:
    going, foreign = identity("going"), identity("foreign")
    going["metadata"]["deletionTimestamp"] = "2026-11-24T12:00:00Z"
    foreign["metadata"]["namespace"] = "other"
    assert chosen(pod(), going, foreign) == []


def test_kube_system_is_never_selected() -> None:
    system, owner = pod(), identity("a")
    system["metadata"]["namespace"] = owner["metadata"]["namespace"] = "kube-system"
    assert chosen(system, owner) == []
