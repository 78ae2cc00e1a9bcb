"""What the checks ask the cluster: intent from the watch cache, and what must be true *now* from the API server itself.

Nothing here decides; a stale cache and an API server that does not answer are ``attest.unavailable``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cryptography import x509

from countersign.clock import skew_fault
from countersign.errors import Unavailable
from countersign.kube import (
    AGENT_IDENTITIES,
    AGENT_INSTANCES,
    DEVICE_POOLS,
    DEVICES,
    IDENTITY_ISSUERS,
    NAMESPACES,
    PODS,
    Kube,
    KubeError,
    NotFound,
    Resource,
    TokenReview,
    WatchCache,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["WATCHED", "Cluster", "condition", "is_going", "is_live"]

WATCHED: Final = (IDENTITY_ISSUERS, DEVICE_POOLS, DEVICES, AGENT_IDENTITIES, AGENT_INSTANCES, NAMESPACES)
_BY_EK: Final = "ek"
_BY_NODE: Final = "node"
_BY_POD: Final = "pod"


class Cluster:
    """The cluster as the authority sees it; objects are plain dicts as the API server stores them."""

    def __init__(self, kube: Kube, cache: WatchCache, *, token_audience: str, max_staleness_seconds: float) -> None:
        """Index Devices by EK and instances by pod; the cache is started by the caller."""
        self.kube = kube
        self.cache = cache
        self._audience = token_audience
        self._max_staleness = max_staleness_seconds
        cache.add_index(DEVICES, _BY_EK, _ek_of)
        cache.add_index(DEVICES, _BY_NODE, _node_of)
        cache.add_index(AGENT_INSTANCES, _BY_POD, _pod_of)

    def require_fresh(self) -> None:
        """Refuse to answer from a cache that has lost contact, or by a clock that is not the API server's.

        :raises Unavailable: ``attest.unavailable``.
        """
        if not self.cache.synced or (stale := self.cache.stale(self._max_staleness)):
            which = ", ".join(stale) if self.cache.synced else "not synced"
            raise Unavailable("attest.unavailable", f"the watch cache is behind: {which}")
        if (fault := skew_fault(self.kube.clock_skew, "the API server")) is not None:
            raise Unavailable("attest.unavailable", f"the authority does not answer with a wrong clock: {fault}")

    async def review(self, token: str) -> TokenReview:
        """Ask the API server about a token with our audience."""
        try:
            return await self.kube.review_token(token, [self._audience])
        except KubeError as error:
            raise Unavailable("attest.unavailable", "the API server does not review tokens") from error

    async def live(self, resource: Resource, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """Return the object as it is now, or None."""
        try:
            return await self.kube.get(resource, name, namespace)
        except NotFound:
            return None
        except KubeError as error:
            raise Unavailable("attest.unavailable", f"the API server does not answer for {resource.plural}") from error

    async def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Return the pod as it is now, or None; TokenReview alone answers from a cache of ten seconds."""
        return await self.live(PODS, name, namespace)

    async def instance(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Return an AgentInstance as it is now: the one just made is not in the cache yet."""
        return await self.live(AGENT_INSTANCES, name, namespace)

    async def device(self, name: str) -> dict[str, Any] | None:
        """Return a Device as it is now."""
        return await self.live(DEVICES, name)

    def namespace(self, name: str) -> dict[str, Any]:
        """Return a Namespace; one that is not known has no labels."""
        return self.cache.get(NAMESPACES, name) or {"metadata": {"name": name}}

    def identities(self, namespace: str) -> list[dict[str, Any]]:
        """Return the AgentIdentities of a namespace that are not being deleted."""
        return [found for found in self.cache.list(AGENT_IDENTITIES, namespace) if not is_going(found)]

    def identity(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Return an AgentIdentity."""
        return _present(self.cache.get(AGENT_IDENTITIES, name, namespace))

    def issuer(self, name: str) -> dict[str, Any] | None:
        """Return an IdentityIssuer."""
        return _present(self.cache.get(IDENTITY_ISSUERS, name))

    def issuers(self) -> list[dict[str, Any]]:
        """Return every IdentityIssuer."""
        return [found for found in self.cache.list(IDENTITY_ISSUERS) if not is_going(found)]

    def pool(self, name: str) -> dict[str, Any] | None:
        """Return a DevicePool."""
        return _present(self.cache.get(DEVICE_POOLS, name))

    def devices(self) -> list[dict[str, Any]]:
        """Return every Device."""
        return [found for found in self.cache.list(DEVICES) if not is_going(found)]

    def devices_by_ek(self, sha256: str) -> list[dict[str, Any]]:
        """Return the Devices that name this endorsement key; more than one is a conflict."""
        return [found for found in self.cache.by_index(DEVICES, _BY_EK, sha256) if not is_going(found)]

    def neighbours(self, device: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the Devices of this one's endorsement key or node, itself among them."""
        places = [(_BY_EK, _ek_of(device)), (_BY_NODE, _node_of(device))]
        found: dict[str, dict[str, Any]] = {}
        for index, values in places:
            for value in values:
                found |= {one["metadata"]["uid"]: one for one in self.cache.by_index(DEVICES, index, value)}
        return [one for one in found.values() if not is_going(one)]

    def instances(self) -> list[dict[str, Any]]:
        """Return every AgentInstance."""
        return [found for found in self.cache.list(AGENT_INSTANCES) if not is_going(found)]

    def instances_of_pod(self, uid: str) -> list[dict[str, Any]]:
        """Return the AgentInstances of a pod, as far as the cache has seen them."""
        return [found for found in self.cache.by_index(AGENT_INSTANCES, _BY_POD, uid) if not is_going(found)]

    def roots(self) -> dict[str, Sequence[x509.Certificate]]:
        """Return the EK roots of each pool; a pool whose PEM cannot be read vouches for nobody."""
        found: dict[str, Sequence[x509.Certificate]] = {}
        for pool in self.cache.list(DEVICE_POOLS):
            pem = (pool.get("spec") or {}).get("ekRoots")
            if pem and not is_going(pool):
                try:
                    found[pool["metadata"]["name"]] = x509.load_pem_x509_certificates(pem.encode())
                except ValueError:
                    continue
        return found


def is_going(found: dict[str, Any]) -> bool:
    """Tell whether an object is being deleted, which is as good as gone (crds.md 2.9)."""
    return found["metadata"].get("deletionTimestamp") is not None


def is_live(instance: dict[str, Any]) -> bool:
    """Tell whether an AgentInstance is Active and stays."""
    return not is_going(instance) and bool(instance["spec"].get("state", "Active") == "Active")


def condition(found: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """Return a condition of an object; a missing one means Unknown."""
    conditions = (found.get("status") or {}).get("conditions") or []
    return next((item for item in conditions if item.get("type") == kind), None)


def _present(found: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if found is None or is_going(found) else found


def _ek_of(device: dict[str, Any]) -> list[str]:
    digest = (device["spec"].get("ek") or {}).get("publicKeySHA256")
    return [digest] if digest else []


def _node_of(device: dict[str, Any]) -> list[str]:
    name = ((device["spec"].get("binding") or {}).get("node") or {}).get("name")
    return [name] if name else []


def _pod_of(instance: dict[str, Any]) -> list[str]:
    uid = (instance["spec"].get("pod") or {}).get("uid")
    return [uid] if uid else []
