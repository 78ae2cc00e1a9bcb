"""``/mutate-pods``: the patch of a pod is ``kube.injection``'s; here is which identity it comes from, and what is warned of."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from countersign.kube import AGENT_IDENTITIES, NAMESPACES
from countersign.kube.injection import hindrances, inject, select_identities
from countersign.kube.sidecar import port_of
from countersign_webhook.admission.review import Refused

if TYPE_CHECKING:
    from countersign.kube.injection import InjectionSettings
    from countersign_webhook.admission.review import Review
    from countersign_webhook.source import PolicySource

__all__ = ["mutate_pod"]

_LAG_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.05


async def mutate_pod(
    review: Review, source: PolicySource, settings: InjectionSettings, *, own_namespace: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the JSON Patch for a pod that is being created, and the warnings for who creates it.

    A pod that cannot be an agent's is left alone with a warning; the operator writes the Event.

    ``own_namespace`` is Countersign's own, of which no pod is an agent (crds.md 4.1).

    Raises
    ------
    Refused
        If the pod's Namespace is not known yet: then nobody can say whether it opted in.

    """
    if review.operation != "CREATE" or (review.group, review.kind) != ("", "Pod"):
        return [], []
    if review.namespace == own_namespace:
        return [], []
    pod = review.object
    labels = await _labels(source, review.namespace)
    placed = {**pod, "metadata": {**(pod.get("metadata") or {}), "namespace": review.namespace}}
    living = [
        one for one in source.list(AGENT_IDENTITIES, review.namespace) if not one["metadata"].get("deletionTimestamp")
    ]
    identities = select_identities(placed, living, labels)
    if not identities:
        return [], []
    if len(identities) > 1:
        names = ", ".join(sorted(one["metadata"]["name"] for one in identities))
        return [], [f"AgentIdentities {names} all select this pod: it gets no signer and no identity (Overlap)"]
    if found := hindrances(pod, identities[0], settings):
        return [], [f"this pod gets no signer and no identity (NotInjected): {'; '.join(found)}"]
    return inject(pod, identities[0], settings), [*_token_warnings(pod), *_port_warnings(pod, identities[0])]


async def _labels(source: PolicySource, namespace: str) -> dict[str, str]:
    """Return the Namespace's labels; one made a moment ago may reach the watch after its first pod."""
    for _ in range(int(_LAG_SECONDS / _LOOK_SECONDS)):
        found = source.get(NAMESPACES, namespace)
        if found is not None:
            return dict(found["metadata"].get("labels") or {})
        await asyncio.sleep(_LOOK_SECONDS)
    raise Refused(f"Namespace {namespace} has not been seen yet; try again", status=503)


def _token_warnings(pod: dict[str, Any]) -> list[str]:
    """Warn of an API token in the agent's reach. The API server's own admission has put its volume in by now."""
    spec = pod.get("spec") or {}
    holders = {volume.get("name") for volume in spec.get("volumes") or [] if _has_token(volume)}
    mounted = any(
        mount.get("name") in holders
        for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
        for mount in container.get("volumeMounts") or []
    )
    if not mounted:
        return []
    return ["this agent's containers mount a ServiceAccount token; set automountServiceAccountToken: false"]


def _port_warnings(pod: dict[str, Any], identity: dict[str, Any]) -> list[str]:
    """Warn of a container that says it listens where the signer does: all of a pod share their ports."""
    port = port_of(identity)
    return [
        f"container {container.get('name')} names port {taken.get('containerPort')}, which is the signer's; "
        f"set signer.port of AgentIdentity {identity['metadata']['name']}"
        for kind in ("initContainers", "containers")
        for container in (pod.get("spec") or {}).get(kind) or []
        for taken in container.get("ports") or []
        if taken.get("containerPort") in (port, port + 1)
    ]


def _has_token(volume: dict[str, Any]) -> bool:
    sources = (volume.get("projected") or {}).get("sources") or []
    return any("serviceAccountToken" in source for source in sources)
