"""Which identity selects a pod, the patch that puts the signer in, and what is wrong with a pod that should have one.

Pure: pod in, list out; so a dry run and a real run cannot differ. The front door patches with :func:`inject`, the authority
refuses by :func:`injection_faults`, and the operator tells people; all three agree because there is one of each.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

from countersign.kube.faults import FAULTS, HINDRANCES, same_volume, signer_faults
from countersign.kube.sidecar import SIGNER, InjectionSettings, port_of, signer_container, volumes
from countersign.policy.logic import Unreadable
from countersign.policy.selector import compile_selector

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from countersign.kube.faults import Look

__all__ = ["InjectionSettings", "hindrances", "inject", "injection_faults", "select_identities"]

_OPT_IN: Final = "countersign.dev/injection"
_OPT_OUT: Final = "countersign.dev/inject"
_INJECTED: Final = "countersign.dev/injected"
_NEVER: Final = frozenset({"kube-system"})
_LOOPBACK: Final = ("127.0.0.1", "localhost")


def select_identities(
    pod: Mapping[str, Any], identities: Iterable[dict[str, Any]], namespace_labels: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the AgentIdentities that select ``pod``: none, one, or more than one, and then it gets nothing (Overlap).

    ServiceAccount and selector must match. One with injection ``Sidecar`` counts only where the namespace has opted in
    and the pod has not opted out; one with ``None`` always, because its pods bring their own signer. A selector that this
    replica cannot read selects nothing. ``namespace_labels`` are those of the pod's namespace.
    """
    meta, spec = pod["metadata"], pod.get("spec") or {}
    labels = dict(meta.get("labels") or {})
    wanted = namespace_labels.get(_OPT_IN) == "enabled" and labels.get(_OPT_OUT) != "disabled"
    account = spec.get("serviceAccountName") or "default"
    if meta.get("namespace") in _NEVER:
        return []
    return [
        one
        for one in identities
        if one["metadata"].get("namespace") == meta.get("namespace")
        and not one["metadata"].get("deletionTimestamp")
        and one["spec"]["serviceAccountName"] == account
        and (wanted or not _sidecar(one))
        and _selects(one, labels)
    ]


def inject(pod: Mapping[str, Any], identity: dict[str, Any], settings: InjectionSettings) -> list[dict[str, Any]]:
    """Return the JSON Patch that makes ``pod`` an injected one; empty if it is already, or brings its own signer.

    What is there is looked at, not the annotation that says so: anybody can write that. Other people's containers keep
    all they have; a signer or a volume of our name that is not ours is replaced.
    """
    if not _sidecar(identity):
        return []
    spec = pod.get("spec") or {}
    patch = _annotate(pod["metadata"], settings.version)
    patch += _add_signer(spec.get("initContainers"), identity, settings)
    patch += _add_volumes(spec.get("volumes"), settings)
    others = [one for one in spec.get("initContainers") or [] if one["name"] != SIGNER]
    # Paths are those after the signer was put in front.
    for kind, first, containers in (("initContainers", 1, others), ("containers", 0, spec.get("containers") or [])):
        for number, container in enumerate(containers, first):
            env = _environment(container.get("env") or [], port_of(identity))
            if env != (container.get("env") or []):
                patch.append({"op": "add", "path": f"/spec/{kind}/{number}/env", "value": env})
    return patch


def hindrances(
    pod: Mapping[str, Any],
    identity: dict[str, Any],
    settings: InjectionSettings,
    *,
    looks: Sequence[Look] = HINDRANCES,
) -> list[str]:
    """Return why no patch makes an agent's pod of ``pod``; empty if one does, or if it brings its own signer.

    Such a pod is left alone: it is somebody's, and runs as it is, without an identity. Each entry is a phrase for people.
    """
    if not _sidecar(identity):
        return []
    return [fault for look in looks for fault in look(pod, identity, settings)]


def injection_faults(
    pod: Mapping[str, Any], identity: dict[str, Any], settings: InjectionSettings, *, looks: Sequence[Look] = FAULTS
) -> list[str]:
    """Return in what the live ``pod`` differs from what injection makes of it (enrolment.md 2, check 4); empty if in nothing.

    What the API server fills in by itself is no difference. Each entry is a phrase for people. A pod that brings its own
    signer is not looked at.
    """
    if not _sidecar(identity):
        return []
    return [fault for look in looks for fault in look(pod, identity, settings)]


def _sidecar(identity: dict[str, Any]) -> bool:
    return bool((identity["spec"].get("signer") or {}).get("injection", "Sidecar") == "Sidecar")


def _selects(identity: dict[str, Any], labels: dict[str, str]) -> bool:
    selector = identity["spec"].get("podSelector")
    if selector is None:
        return True
    try:
        return compile_selector(selector)(labels)
    except Unreadable:
        return False


def _annotate(meta: Mapping[str, Any], version: str) -> list[dict[str, Any]]:
    present = meta.get("annotations")
    if not present:
        return [{"op": "add", "path": "/metadata/annotations", "value": {_INJECTED: version}}]
    if present.get(_INJECTED) == version:
        return []
    return [{"op": "add", "path": f"/metadata/annotations/{_INJECTED.replace('/', '~1')}", "value": version}]


def _add_signer(
    present: list[dict[str, Any]] | None, identity: dict[str, Any], settings: InjectionSettings
) -> list[dict[str, Any]]:
    """Put the signer in front; one that is ours and stands there already stays as it is."""
    signer, path = signer_container(identity, settings), "/spec/initContainers"
    if not present:
        return [{"op": "add", "path": path, "value": [signer]}]
    places = [number for number, container in enumerate(present) if container.get("name") == SIGNER]
    if places == [0]:
        good = not signer_faults(present[0], identity, settings)
        return [] if good else [{"op": "replace", "path": f"{path}/0", "value": signer}]
    taken = [{"op": "remove", "path": f"{path}/{number}"} for number in reversed(places)]
    return [*taken, {"op": "add", "path": f"{path}/0", "value": signer}]


def _add_volumes(present: list[dict[str, Any]] | None, settings: InjectionSettings) -> list[dict[str, Any]]:
    ours = volumes(settings)
    if not present:
        return [{"op": "add", "path": "/spec/volumes", "value": ours}]
    numbers = {volume.get("name"): number for number, volume in enumerate(present)}
    patch: list[dict[str, Any]] = []
    for volume in ours:
        number = numbers.get(volume["name"])
        if number is None:
            patch.append({"op": "add", "path": "/spec/volumes/-", "value": volume})
        elif not same_volume(present[number], volume):
            patch.append({"op": "replace", "path": f"/spec/volumes/{number}", "value": volume})
    return patch


def _environment(present: list[dict[str, Any]], port: int) -> list[dict[str, Any]]:
    """Return the variables of a container with the signer's address, which no proxy is to be asked for."""
    env = copy.deepcopy(present)
    _set(env, "COUNTERSIGN_URL", f"http://127.0.0.1:{port}")
    for name in ("NO_PROXY", "no_proxy"):
        old = _find(env, name)
        # A value from elsewhere cannot be added to here; whoever wrote it must know.
        if old is None or "valueFrom" not in old:
            listed = [part for part in ((old or {}).get("value") or "").split(",") if part]
            _set(env, name, ",".join([*listed, *(host for host in _LOOPBACK if host not in listed)]))
    return env


def _find(env: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    """Return the last entry of a name, which is the one that counts."""
    return next((entry for entry in reversed(env) if entry.get("name") == name), None)


def _set(env: list[dict[str, Any]], name: str, value: str) -> None:
    entry = _find(env, name)
    if entry is None:
        env.append({"name": name, "value": value})
    elif entry.get("value") != value:
        entry.pop("valueFrom", None)
        entry["value"] = value
