"""Who holds a key, and is all of it alive? Looked up at every call in what the watches last saw.

What is kept is only what follows from objects: all of it until any of them changes, which the watches tell at once; and then
for as long as each lookup still finds these very objects, for nobody changes one: a change is another object. The key finds the AgentInstance (wire.md 1.3); the instance names agent, device and pod by UID; the agent names its issuer.
Whatever is missing, being deleted, of another UID or doubled is never replaced by a guess.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import chain
from operator import is_
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cryptography import x509

from countersign import policy
from countersign.kube import (
    AGENT_IDENTITIES,
    AGENT_INSTANCES,
    DEVICE_POOLS,
    DEVICES,
    IDENTITY_ISSUERS,
    NAMESPACES,
    PODS,
)
from countersign.kube.pods import has_ended
from countersign.wire import InstanceView
from countersign_webhook.decide.device import assurance, attestation_time, device_fault, evidence_age_limit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from countersign.kube import Resource
    from countersign_webhook.source import PolicySource

__all__ = ["Facts", "Registry"]

_BY_KEY: Final = "webhook-key"
_BY_EK: Final = "webhook-ek"
_BY_PLACE: Final = "webhook-place"
_SPIFFE: Final = re.compile(r"spiffe://[^/]+/ns/([^/]+)/sa/[^/]+")
_BY_DOMAIN: Final = "webhook-trust-domain"
_VIEWS_MOST: Final = 16384
_LOOKED_UP: Final = frozenset(
    one.plural for one in (AGENT_IDENTITIES, AGENT_INSTANCES, DEVICE_POOLS, DEVICES, IDENTITY_ISSUERS, NAMESPACES, PODS)
)


@dataclass(frozen=True)
class Facts:
    """What the cluster says of one caller: the objects, and the words that policy reads.

    ``evidence_limit`` is how old the pool lets the device's attestation become.
    """

    instance: dict[str, Any]
    agent: policy.Agent
    instance_facts: policy.Instance
    device: policy.Device
    device_uid: str
    evidence_limit: timedelta

    def evidence_expired(self, now: datetime) -> bool:
        """Tell whether the pool's ``attestation.maxAgeSeconds`` has passed: older evidence is no evidence (crds.md 3.2)."""
        time = self.device.attestation_time
        return time is None or now - time > self.evidence_limit


class _Parts(NamedTuple):
    """Every object that a view is made of, as it was looked up; None is one that is not there."""

    instance: dict[str, Any]
    identity: dict[str, Any] | None
    device: dict[str, Any] | None
    pool: dict[str, Any] | None
    pod: dict[str, Any] | None
    namespace: dict[str, Any] | None
    issuer: dict[str, Any] | None
    owner: dict[str, Any] | None
    same_ek: tuple[dict[str, Any], ...] = ()
    same_place: tuple[dict[str, Any], ...] = ()

    def are(self, others: _Parts) -> bool:
        """Tell whether these are the very same objects."""
        if len(self.same_ek) != len(others.same_ek) or len(self.same_place) != len(others.same_place):
            return False
        return all(map(is_, chain(self[:-2], *self[-2:]), chain(others[:-2], *others[-2:])))


class Registry:
    """Answers the questions of leg T about keys and trust domains from a ``PolicySource``."""

    def __init__(self, source: PolicySource, *, most: int = _VIEWS_MOST) -> None:
        """Index what is looked up by something else than its name; at most ``most`` views are kept."""
        self._source, self._most = source, most
        self._views: OrderedDict[str, tuple[_Parts, InstanceView]] = OrderedDict()
        self._unchanged: dict[str, InstanceView] = {}
        self._bundles: dict[str, Sequence[x509.Certificate]] = {}
        source.subscribe(self._changed)
        source.add_index(AGENT_INSTANCES, _BY_KEY, _key_of)
        source.add_index(DEVICES, _BY_EK, _ek_of)
        source.add_index(DEVICES, _BY_PLACE, _place_of)
        source.add_index(IDENTITY_ISSUERS, _BY_DOMAIN, _domain_of)

    def roots(self, trust_domain: str) -> Sequence[x509.Certificate]:
        """Return the trust bundle of a trust domain; nothing if no issuer has it."""
        found = self._bundles.get(trust_domain)
        if found is None:
            issuer = self._issuer_of(trust_domain)
            bundle = ((issuer or {}).get("status") or {}).get("trustBundle")
            found = _certificates(bundle) if isinstance(bundle, str) else ()
            if found:  # what strangers ask for is not kept
                self._bundles[trust_domain] = found
        return found

    def instance(self, jkt: str) -> InstanceView | None:
        """Return the record behind a key as it is now; None if there is none, or more than one.

        ``state`` is Ended without the living pod that the record names or when that has ended, Revoked without the living agent.
        """
        view = self._unchanged.get(jkt)
        if view is None:
            found = [one for one in self._source.by_index(AGENT_INSTANCES, _BY_KEY, jkt) if _alive(one)]
            view = self._view(found[0]) if len(found) == 1 else None
            if view is not None:
                self._unchanged[jkt] = view
        return view

    def named(self, namespace: str, name: str) -> InstanceView | None:
        """Return the record of that name as it is now, if it has a key that is its own."""
        found = self._source.get(AGENT_INSTANCES, name, namespace)
        view = None if found is None else [self.instance(jkt) for jkt in _key_of(found)]
        return view[0] if view and view[0] is not None and view[0].uid == (found or {})["metadata"]["uid"] else None

    def active(self, spiffe_id: str) -> list[InstanceView]:
        """Return the records of an agent's active instances."""
        match = _SPIFFE.fullmatch(spiffe_id)
        found = [] if match is None else self._source.list(AGENT_INSTANCES, match[1])
        views = [self.named(one["metadata"]["namespace"], one["metadata"]["name"]) for one in found]
        return [one for one in views if one is not None and one.spiffe_id == spiffe_id and one.state == "Active"]

    def _changed(self, resource: Resource, kind: str, obj: dict[str, Any]) -> None:
        """Look everything up anew after any change of what is looked up here; called before the next decision begins."""
        del kind, obj
        if resource.plural in _LOOKED_UP:
            self._unchanged.clear()
            self._bundles.clear()

    def _view(self, instance: dict[str, Any]) -> InstanceView | None:
        if instance["spec"].get("type") != "Pod":
            return None
        parts, uid = self._parts(instance), instance["metadata"]["uid"]
        kept = self._views.get(uid)
        if kept is not None and parts.are(kept[0]):
            return kept[1]
        view = _view_of(parts)
        self._views[uid] = (parts, view)
        self._views.move_to_end(uid)
        if len(self._views) > self._most:
            self._views.popitem(last=False)
            self._unchanged.clear()
        return view

    def _parts(self, instance: dict[str, Any]) -> _Parts:
        """Look everything up that says something about an instance."""
        spec, namespace = instance["spec"], instance["metadata"]["namespace"]
        identity = self._named(AGENT_IDENTITIES, spec["agentRef"], namespace)
        device = self._named(DEVICES, spec["deviceRef"], None)
        issuer = owner = None
        if identity is not None:
            issuer = self._source.get(
                IDENTITY_ISSUERS, (identity["spec"].get("issuerRef") or {}).get("name", "default")
            )
            owner = None if issuer is None else self._issuer_of(issuer["spec"]["trustDomain"])
        return _Parts(
            instance=instance,
            identity=identity,
            device=device,
            pool=None if device is None else self._source.get(DEVICE_POOLS, device["spec"]["poolRef"]["name"]),
            pod=self._named(PODS, spec["pod"], namespace),
            namespace=self._source.get(NAMESPACES, namespace),
            issuer=issuer,
            owner=owner,
            same_ek=() if device is None else self._living(_BY_EK, _ek_of(device)),
            same_place=() if device is None else self._living(_BY_PLACE, _place_of(device)),
        )

    def _living(self, index: str, values: Iterable[str]) -> tuple[dict[str, Any], ...]:
        return tuple([one for value in values for one in self._source.by_index(DEVICES, index, value) if _alive(one)])

    def _issuer_of(self, trust_domain: str) -> dict[str, Any] | None:
        """Return the issuer that owns a trust domain: of two, the older one."""
        found = [one for one in self._source.by_index(IDENTITY_ISSUERS, _BY_DOMAIN, trust_domain) if _alive(one)]
        return min(found, key=_age, default=None)

    def _named(self, resource: Any, ref: dict[str, Any], namespace: str | None) -> dict[str, Any] | None:
        """Return the living object that a reference by name and UID means, or None."""
        found = self._source.get(resource, ref["name"], namespace)
        return found if found is not None and _alive(found) and found["metadata"]["uid"] == ref["uid"] else None


def _view_of(parts: _Parts) -> InstanceView:
    """Return what objects together say of an instance."""
    instance, identity, device, pool = parts.instance, parts.identity, parts.device, parts.pool
    state = "Active"
    if identity is None or instance["spec"].get("state", "Active") != "Active":
        state = "Revoked"
    if parts.pod is None or has_ended(parts.pod):
        state = "Ended"
    meta = instance["metadata"]
    return InstanceView(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        spiffe_id=_spiffe_id(parts, identity) if identity is not None else _recorded_name(instance),
        state=state,
        device_approved=_device_fault(parts) is None,
        assurance=assurance(device, pool) if device is not None and pool is not None else "Software",
        record=_facts(parts),
    )


def _facts(parts: _Parts) -> Facts | None:
    """Put the words of policy together; None if a part is missing, which the proof's own checks refuse first."""
    identity, device, pool = parts.identity, parts.device, parts.pool
    if identity is None or device is None or pool is None:
        return None
    instance, spec, meta = parts.instance, identity["spec"], identity["metadata"]
    digests = (instance["spec"].get("pod") or {}).get("imageDigests")
    return Facts(
        instance=instance,
        agent=policy.Agent(
            namespace=meta["namespace"],
            name=meta["name"],
            tasks=spec.get("tasks", "Required"),
            min_assurance=spec.get("minAssurance", "Hardware"),
            min_key_tier=spec.get("minKeyTier", "TPMSession"),
            namespace_labels=_labels(parts.namespace),
        ),
        instance_facts=policy.Instance(
            name=instance["metadata"]["name"],
            uid=instance["metadata"]["uid"],
            source="OwnSigner" if (spec.get("signer") or {}).get("injection") == "None" else "Pod",
            image_digests=tuple(digests) if digests else None,
        ),
        device=policy.Device(
            name=device["metadata"]["name"],
            pool=pool["metadata"]["name"],
            assurance=assurance(device, pool),
            attestation_time=attestation_time(device),
            facts=tuple(_facts_of(device)),
        ),
        device_uid=device["metadata"]["uid"],
        evidence_limit=evidence_age_limit(pool),
    )


def _device_fault(parts: _Parts) -> str | None:
    """Return what keeps calls from the instance's Device away."""
    device = parts.device
    if device is None:
        return "the Device does not exist"
    admitted = ((parts.identity or {}).get("spec") or {}).get("devicePoolRefs")
    if admitted is not None and device["spec"]["poolRef"]["name"] not in [one["name"] for one in admitted]:
        return "the agent does not admit the Device's pool"
    return device_fault(device, parts.pool, parts.same_ek, parts.same_place)


def _spiffe_id(parts: _Parts, identity: dict[str, Any]) -> str:
    """Return the only name that this agent's certificates may bear; empty, so equal to none, without its issuer."""
    issuer, owner, namespace = parts.issuer, parts.owner, identity["metadata"]["namespace"]
    if issuer is None or owner is None or owner["metadata"]["uid"] != issuer["metadata"]["uid"]:
        return ""
    # Without exposeTo all namespaces may use it (crds.md 3.1).
    expose = issuer["spec"].get("exposeTo")
    if expose is not None and not policy.exposes(expose, own=False, labels=_labels(parts.namespace)):
        return ""
    return f"spiffe://{issuer['spec']['trustDomain']}/ns/{namespace}/sa/{identity['spec']['serviceAccountName']}"


def _labels(namespace: dict[str, Any] | None) -> dict[str, str] | None:
    """Return the labels of a Namespace; None while it is not known."""
    return None if namespace is None else dict(namespace["metadata"].get("labels") or {})


def _spec(obj: dict[str, Any]) -> dict[str, Any]:
    """Return the spec, or an empty one: an index is asked about whatever the API server once took."""
    spec = obj.get("spec")
    return spec if isinstance(spec, dict) else {}


def _alive(obj: dict[str, Any]) -> bool:
    return not obj["metadata"].get("deletionTimestamp")


def _recorded_name(instance: dict[str, Any]) -> str:
    """Return the name that the authority gave; for an instance whose agent is gone, and which is refused for that."""
    return str((instance.get("status") or {}).get("spiffeID") or "")


def _age(obj: dict[str, Any]) -> tuple[str, str]:
    return obj["metadata"].get("creationTimestamp") or "", obj["metadata"]["name"]


def _key_of(instance: dict[str, Any]) -> Iterable[str]:
    thumbprint = ((instance.get("status") or {}).get("certificate") or {}).get("keyThumbprint")
    return (thumbprint,) if thumbprint else ()


def _ek_of(device: dict[str, Any]) -> Iterable[str]:
    digest = (_spec(device).get("ek") or {}).get("publicKeySHA256")
    return (digest,) if digest else ()


def _place_of(device: dict[str, Any]) -> Iterable[str]:
    """Return pool and node of an approved Device: where only ``devicesPerNode`` may be."""
    spec = _spec(device)
    node = ((spec.get("binding") or {}).get("node") or {}).get("name")
    pool = (spec.get("poolRef") or {}).get("name")
    return (f"{pool}/{node}",) if node and pool and spec.get("state") == "Approved" else ()


def _domain_of(issuer: dict[str, Any]) -> Iterable[str]:
    domain = _spec(issuer).get("trustDomain")
    return (domain,) if domain else ()


def _facts_of(device: dict[str, Any]) -> Iterable[policy.Fact]:
    for entry in (device.get("status") or {}).get("facts") or []:
        time = entry.get("observedTime")
        try:
            observed = datetime.fromisoformat(time) if isinstance(time, str) else None
        except ValueError:
            observed = None
        yield policy.Fact(entry["name"], entry["value"], entry.get("source", ""), observed)


@lru_cache(maxsize=64)
def _certificates(bundle: str) -> tuple[x509.Certificate, ...]:
    """Parse a trust bundle once; one that cannot be read is empty."""
    try:
        return tuple(x509.load_pem_x509_certificates(bundle.encode()))
    except ValueError:
        return ()
