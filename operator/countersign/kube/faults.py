"""What may differ between a live pod and an injected one, each as one function; injection.py asks all of them. Pure.

A fault is a phrase for people that names containers and fields, never a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from countersign.kube.sidecar import (
    SIGNER,
    SIGNER_UID,
    TOKEN,
    TPM,
    TRUST,
    InjectionSettings,
    signer_container,
    volumes,
)

__all__ = ["FAULTS", "HINDRANCES", "Look", "same_volume", "signer_faults"]

Look = Callable[[Mapping[str, Any], dict[str, Any], InjectionSettings], list[str]]
# Filled in by the API server and its plugins; none of them changes what the signer is.
_FILLED_IN: Final = frozenset({"terminationMessagePath", "terminationMessagePolicy", "imagePullPolicy"})
# Compared in their own way: the image with those of former releases too, amounts only where they are the TPM.
_APART: Final = frozenset({"image", "resources", "volumeMounts", "startupProbe"})
# The API server's own admission mounts the pod's API token in every container, the signer's too.
_API_TOKEN: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
_SHARED: Final = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace")
_MIRROR: Final = "kubernetes.io/config.mirror"


def signer_is_ours(pod: Mapping[str, Any], identity: dict[str, Any], settings: InjectionSettings) -> list[str]:
    """Demand exactly one signer, an init container, and that it is what injection makes."""
    named = [one for one in _containers(pod) if one.get("name") == SIGNER]
    own = [one for one in _spec(pod).get("initContainers") or [] if one.get("name") == SIGNER]
    if len(named) != 1 or len(own) != 1:
        return [f"there is no init container {SIGNER}"]
    return signer_faults(own[0], identity, settings)


def signer_faults(live: Mapping[str, Any], identity: dict[str, Any], settings: InjectionSettings) -> list[str]:
    """Return the fields in which a container named as the signer is not ours: one more is as bad as another value."""
    ours = signer_container(identity, settings)
    faults = [
        f"{SIGNER} has another {field}"
        for field in sorted((set(live) | set(ours)) - _APART - _FILLED_IN)
        if _plain(field, live.get(field)) != ours.get(field)
    ]
    if live.get("image") not in {settings.image, *settings.former_images}:
        faults.append(f"{SIGNER} has another image")
    if not _covers(live.get("startupProbe"), ours["startupProbe"]):
        faults.append(f"{SIGNER} has another startupProbe")
    mounts = [one for one in live.get("volumeMounts") or [] if one.get("mountPath") != _API_TOKEN]
    if sorted(map(_mount, mounts)) != sorted(map(_mount, ours["volumeMounts"])):
        faults.append(f"{SIGNER} has other volumeMounts")
    if _tpms(live) != _tpms(ours):
        faults.append(f"{SIGNER} asks for another number of {TPM}")
    return faults


def volumes_are_ours(pod: Mapping[str, Any], identity: dict[str, Any], settings: InjectionSettings) -> list[str]:
    """Demand both volumes as injection makes them."""
    del identity
    present = _spec(pod).get("volumes") or []
    faults = []
    for ours in volumes(settings):
        named = [one for one in present if one.get("name") == ours["name"]]
        if len(named) != 1 or not same_volume(named[0], ours):
            faults.append(f"volume {ours['name']} is missing or another")
    return faults


def no_second_token(pod: Mapping[str, Any], identity: dict[str, Any], settings: InjectionSettings) -> list[str]:
    """Demand that no volume but the signer's has a token for our audience."""
    del identity
    return [
        f"volume {one.get('name')} holds a token for the signer's audience too"
        for one in _spec(pod).get("volumes") or []
        if one.get("name") != TOKEN and settings.token_audience in _audiences(one)
    ]


def nothing_of_the_node(pod: Mapping[str, Any], identity: dict[str, Any], settings: InjectionSettings) -> list[str]:
    """Demand that no volume is a path of the node: there are the sockets and tokens of everybody else."""
    del identity, settings
    present = _spec(pod).get("volumes") or []
    return [f"volume {one.get('name')} is a hostPath" for one in present if "hostPath" in one]


def others_keep_away(pod: Mapping[str, Any], identity: dict[str, Any], settings: InjectionSettings) -> list[str]:
    """Demand that no other container has the signer's uid, volumes or TPM, or is above all of that."""
    del identity, settings
    default = (_spec(pod).get("securityContext") or {}).get("runAsUser")
    faults = []
    for one in _containers(pod):
        name, context = one.get("name"), one.get("securityContext") or {}
        if name == SIGNER:
            continue
        if context.get("runAsUser", default) == SIGNER_UID:
            faults.append(f"container {name} runs as the signer's uid")
        if context.get("privileged"):
            faults.append(f"container {name} is privileged")
        mounted = {mount.get("name") for mount in one.get("volumeMounts") or []} & {TOKEN, TRUST}
        faults += [f"container {name} mounts {volume}" for volume in sorted(mounted)]
        if any(_tpms(one)):
            faults.append(f"container {name} asks for {TPM}")
    return faults


def nothing_is_shared(pod: Mapping[str, Any], identity: dict[str, Any], settings: InjectionSettings) -> list[str]:
    """Demand namespaces of the pod's own, and that nobody has put an ephemeral container in."""
    del identity, settings
    spec = _spec(pod)
    faults = [f"{field} is set" for field in _SHARED if spec.get(field)]
    if spec.get("ephemeralContainers"):
        faults.append("there is an ephemeral container")
    return faults


def can_be_patched(pod: Mapping[str, Any], identity: dict[str, Any], settings: InjectionSettings) -> list[str]:
    """Demand what a patch cannot make: a free name, Linux, and a pod that the API server decides about."""
    del identity, settings
    spec = _spec(pod)
    faults = []
    # An init container of our name is replaced; one beside the agent would be taken away from somebody.
    if any(one.get("name") == SIGNER for one in spec.get("containers") or []):
        faults.append(f"a container is called {SIGNER}, as the signer would be")
    if (spec.get("os") or {}).get("name") == "windows":
        faults.append("it runs on Windows")
    if _MIRROR in ((pod.get("metadata") or {}).get("annotations") or {}):
        faults.append("it is a static pod of its node")
    return faults


FAULTS: Final[tuple[Look, ...]] = (
    signer_is_ours,
    volumes_are_ours,
    no_second_token,
    others_keep_away,
    nothing_is_shared,
    nothing_of_the_node,
)
"""Every look at an injected pod, so that a test can leave one out."""

HINDRANCES: Final[tuple[Look, ...]] = (
    can_be_patched,
    no_second_token,
    others_keep_away,
    nothing_is_shared,
    nothing_of_the_node,
)
"""Every look at a pod that is to be injected: what injection would leave as it is, and the authority would refuse."""


def _plain(field: str, value: Any) -> Any:
    """Return a field without what newer API servers fill in."""
    if field == "securityContext" and isinstance(value, dict) and value.get("procMount") == "Default":
        return {name: each for name, each in value.items() if name != "procMount"}
    return value


def same_volume(live: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Tell whether two volumes are the same but for the file mode that the API server fills in."""
    return _without_mode(live) == _without_mode(ours)


def _without_mode(volume: Mapping[str, Any]) -> dict[str, Any]:
    return {
        kind: {name: value for name, value in source.items() if name != "defaultMode"}
        if isinstance(source, dict)
        else source
        for kind, source in volume.items()
    }


def _spec(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    return pod.get("spec") or {}


def _containers(pod: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from _spec(pod).get(kind) or []


def _audiences(volume: Mapping[str, Any]) -> set[str]:
    sources = (volume.get("projected") or {}).get("sources") or []
    return {(source.get("serviceAccountToken") or {}).get("audience") or "" for source in sources}


def _mount(mount: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return a mount in an order of its own, to compare; ``recursiveReadOnly: Disabled`` is filled in."""
    return tuple(sorted((name, str(value)) for name, value in mount.items() if name != "recursiveReadOnly"))


def _tpms(container: Mapping[str, Any]) -> tuple[str, ...]:
    """Return how many TPMs a container asks for, in requests and in limits; one implies the other."""
    resources = container.get("resources") or {}
    found = {str((resources.get(kind) or {}).get(TPM, "")) for kind in ("requests", "limits")}
    return tuple(sorted(found - {""}))


def _covers(live: Any, ours: Any) -> bool:
    """Tell whether a block says all that ours says; what it says beyond that was filled in."""
    if isinstance(ours, dict):
        return isinstance(live, dict) and all(_covers(live.get(name), value) for name, value in ours.items())
    return bool(live == ours)
