"""AgentInstances and Devices: the one place that makes and describes them.

Every status write reads the object as it is, computes, and applies with the resourceVersion it read, so that a slower
writer never undoes a faster one.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Final

from countersign.authority.cluster import is_going, is_live
from countersign.errors import Denied, Unavailable
from countersign.kube import AGENT_INSTANCES, DEVICES, Conflict, Kube, KubeError, NotFound, Resource

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["MANAGER", "find_or_make", "instance_object", "write_status"]

MANAGER: Final = "countersign-authority"
_SIGNER: Final = "countersign-signer"
_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX: Final = 5
_ATTEMPTS: Final = 8
_UNKNOWN: Final = {AGENT_INSTANCES: "attest.instance_unknown", DEVICES: "attest.device_unknown"}
_DIGEST: Final = re.compile(r"@(sha256:[0-9a-f]{64})\Z")


def instance_name(agent: str, pod_uid: str, attempt: int) -> str:
    """Return ``<agent>-<5>``: the five look random and follow from the pod, so that two replicas choose the same name."""
    number = int.from_bytes(hashlib.sha256(f"{pod_uid}/{attempt}".encode()).digest())
    letters = []
    for _ in range(_SUFFIX):
        number, place = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[place])
    return f"{agent[: 63 - _SUFFIX - 1].rstrip('-')}-{''.join(letters)}"


def instance_object(name: str, pod: dict[str, Any], identity: dict[str, Any], device: dict[str, Any]) -> dict[str, Any]:
    """Return a new AgentInstance of type Pod (crds.md 3.5): one owner, its pod."""
    meta = pod["metadata"]
    owner = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
    described: dict[str, Any] = {"name": meta["name"], "uid": meta["uid"], "nodeName": pod["spec"]["nodeName"]}
    if digests := image_digests(pod):
        described["imageDigests"] = digests
    return {
        "apiVersion": AGENT_INSTANCES.api_version,
        "kind": AGENT_INSTANCES.kind,
        "metadata": {"name": name, "namespace": meta["namespace"], "ownerReferences": [owner]},
        "spec": {
            "agentRef": _ref(identity),
            "deviceRef": _ref(device),
            "type": "Pod",
            "pod": described,
            "state": "Active",
        },
    }


def image_digests(pod: dict[str, Any]) -> list[str]:
    """Return the digests of all containers but the signer, or nothing if one of them is not known yet.

    A container that is pinned by digest is known before it runs; the signer starts first, so others often are not.
    """
    statuses = pod.get("status") or {}
    pulled = {
        item["name"]: item.get("imageID", "")
        for kind in ("initContainerStatuses", "containerStatuses")
        for item in statuses.get(kind) or []
    }
    found: set[str] = set()
    for container in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]:
        if container["name"] == _SIGNER:
            continue
        digest = _DIGEST.search(container["image"]) or _DIGEST.search(pulled.get(container["name"], ""))
        if digest is None:
            return []
        found.add(digest[1])
    return sorted(found)


async def find_or_make(
    kube: Kube,
    pod: dict[str, Any],
    identity: dict[str, Any],
    device: dict[str, Any],
    *,
    known: Sequence[dict[str, Any]] = (),
) -> tuple[dict[str, Any], bool]:
    """Return the pod's AgentInstance, and whether it was made just now.

    The API server itself settles who was first, because the name follows from agent and pod. ``known`` are the instances
    of the pod that were seen before, whatever agent they are of: a pod whose labels changed is still on one device.

    :raises Denied: ``attest.pod_mismatch`` if another device has the pod's instance, which stays;
        ``attest.instance_inactive`` if it was revoked, which is final.
    """
    for there in known:
        if is_live(there) and there["spec"]["deviceRef"]["uid"] != device["metadata"]["uid"]:
            raise DuplicateKeyError(there, device["metadata"]["name"])
    for attempt in range(_ATTEMPTS):
        name = instance_name(identity["metadata"]["name"], pod["metadata"]["uid"], attempt)
        try:
            return await kube.create(AGENT_INSTANCES, instance_object(name, pod, identity, device)), True
        except Conflict:
            taken = await _read(kube, name, pod["metadata"]["namespace"])
        except KubeError as error:
            raise Unavailable("attest.unavailable", "the API server did not take the AgentInstance") from error
        if taken is None or not _is_of(taken, pod, identity):
            continue
        if taken["spec"]["deviceRef"]["uid"] != device["metadata"]["uid"]:
            raise DuplicateKeyError(taken, device["metadata"]["name"])
        if not is_live(taken):
            raise Denied("attest.instance_inactive", f"AgentInstance {name} is revoked or going")
        return taken, False
    raise Unavailable("attest.unavailable", "no name is free for the AgentInstance")


class DuplicateKeyError(Denied):
    """Another device asks for a pod that has an instance already: a stolen token, or a moved pod."""

    def __init__(self, instance: dict[str, Any], device: str) -> None:
        """Keep the instance, for the Event."""
        super().__init__("attest.pod_mismatch", f"the pod has an instance on another device than {device}")
        self.instance = instance


async def write_status(
    kube: Kube,
    resource: Resource,
    name: str,
    namespace: str | None,
    uid: str,
    compute: Callable[[dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """Apply the status that ``compute`` makes of the object as it is, and return the object.

    ``uid`` is that of the object that was examined: what is true of it is never written on a later one of its name.

    :raises Denied: ``attest.instance_unknown`` or ``attest.device_unknown`` if the object is gone or another.
    :raises Unavailable: ``attest.unavailable``.
    """
    for _ in range(_ATTEMPTS):
        try:
            found = await kube.get(resource, name, namespace)
            if is_going(found):
                raise Denied(_UNKNOWN[resource], f"{resource.kind} {name} is going")
            if found["metadata"]["uid"] != uid:
                raise Denied(_UNKNOWN[resource], f"{resource.kind} {name} is a later one of that name")
            return await apply_status(kube, resource, found, compute(found))
        except Conflict:
            continue
        except NotFound as error:
            raise Denied(_UNKNOWN[resource], f"{resource.kind} {name} is gone") from error
        except KubeError as error:
            raise Unavailable("attest.unavailable", f"the API server did not take the status of {name}") from error
    raise Unavailable("attest.unavailable", f"the status of {name} changes too often")


async def apply_status(kube: Kube, resource: Resource, found: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    """Apply ``status`` to the very version of the object that was read."""
    meta = found["metadata"]
    target = {name: meta[name] for name in ("name", "namespace", "uid", "resourceVersion") if name in meta}
    body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": target, "status": status}
    return await kube.apply_status(resource, body, MANAGER)


async def _read(kube: Kube, name: str, namespace: str) -> dict[str, Any] | None:
    try:
        return await kube.get(AGENT_INSTANCES, name, namespace)
    except NotFound:
        return None
    except KubeError as error:
        raise Unavailable("attest.unavailable", "the API server does not answer for agentinstances") from error


def _is_of(instance: dict[str, Any], pod: dict[str, Any], identity: dict[str, Any]) -> bool:
    spec = instance["spec"]
    same_pod = (spec.get("pod") or {}).get("uid") == pod["metadata"]["uid"]
    return same_pod and bool(spec["agentRef"]["uid"] == identity["metadata"]["uid"])


def _ref(found: dict[str, Any]) -> dict[str, str]:
    return {"name": found["metadata"]["name"], "uid": found["metadata"]["uid"]}
