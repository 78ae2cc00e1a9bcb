"""``/validate``: what the CRDs cannot say of one object, because it needs the others or a parser (crds.md 4, rows W).

One function a kind. Each looks at the watch cache as it is; two objects made in the same instant are the controller's
to find, and the decision point believes neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from countersign.kube import DEVICE_POOLS, DEVICES, IDENTITY_ISSUERS, TOOL_SERVERS
from countersign.policy import audience_owned, schema_fault, when_fault
from countersign_webhook.admission.pem import bundle_fault
from countersign_webhook.admission.review import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from countersign.kube import Resource
    from countersign_webhook.admission.review import Review
    from countersign_webhook.source import PolicySource

__all__ = ["GROUP", "KINDS", "Judge", "validate_kind"]

GROUP: Final = "countersign.dev"
_MAKER: Final = "countersign-authority"
_STATES: Final = ("state", "stateReason")


class Judge:
    """What the checks look at beside the review."""

    def __init__(
        self, source: PolicySource, *, issuer: str, namespace: str, grants: tuple[tuple[str, tuple[str, ...]], ...]
    ) -> None:
        """Keep the cluster, the issuer's URL, Countersign's own namespace, and who may claim which audience."""
        self.source, self.issuer, self.namespace, self.grants = source, issuer, namespace, grants
        for resource, value_of in _RIVALS.items():
            source.add_index(resource, _INDEX, value_of)

    def others(self, resource: Resource, review: Review, value: str) -> Iterator[dict[str, Any]]:
        """Yield the living objects of a kind that claim ``value`` too (``_RIVALS``), but not the one under review."""
        own = (review.namespace or None, review.name)
        for one in self.source.by_index(resource, _INDEX, value):
            meta = one["metadata"]
            if (meta.get("namespace"), meta["name"]) != own and not meta.get("deletionTimestamp"):
                yield one


def validate_kind(review: Review, judge: Judge, now: datetime) -> None:
    """Judge one object of ours.

    Raises
    ------
    Refused
        With a message for the person who wrote it.

    """
    check = KINDS.get(review.kind) if review.group == GROUP else None
    if check is None or review.operation not in ("CREATE", "UPDATE") or review.spec_unchanged:
        return
    check(review, judge, now)


def _issuer(review: Review, judge: Judge, now: datetime) -> None:
    domain = review.spec.get("trustDomain")
    for other in judge.others(IDENTITY_ISSUERS, review, str(domain)):
        raise Refused(f"trust domain already belongs to {other['metadata']['name']}")
    acme = review.spec.get("acme") or {}
    _bundles({"spec.acme.caBundle": acme.get("caBundle"), "spec.acme.trustBundle": acme.get("trustBundle")}, now)


def _pool(review: Review, judge: Judge, now: datetime) -> None:
    del judge
    _bundles({"spec.ekRoots": review.spec.get("ekRoots")}, now)


def _device(review: Review, judge: Judge, now: datetime) -> None:
    del now
    spec = review.spec
    pool = judge.source.get(DEVICE_POOLS, (spec.get("poolRef") or {}).get("name", ""))
    digest = (spec.get("ek") or {}).get("publicKeySHA256")
    if not digest and (pool is None or pool["spec"].get("assurance") != "Software"):
        raise Refused("spec.ek is required: only a Device of an existing Software pool has no endorsement key")
    if digest:
        for other in judge.others(DEVICES, review, str(digest)):
            raise Refused(f"EK already belongs to Device {other['metadata']['name']}")
    if spec.get("state") == "Approved":
        _room_on_node(review, judge, pool)


def _room_on_node(review: Review, judge: Judge, pool: dict[str, Any] | None) -> None:
    place = _place(review.spec)
    if place is None:
        return
    room = ((pool or {}).get("spec") or {}).get("devicesPerNode", 1)
    there = [one["metadata"]["name"] for one in judge.others(DEVICES, review, "/".join(place))]
    if len(there) >= room:
        raise Refused(
            f"node {place[1]} already has {len(there)} approved of {room} devices of pool {place[0]}: "
            f"{', '.join(sorted(there)[:4])}"
        )


def _place(spec: dict[str, Any]) -> tuple[str, str] | None:
    """Return pool and node of an approved Device that is bound to a node."""
    node = ((spec.get("binding") or {}).get("node") or {}).get("name")
    pool = (spec.get("poolRef") or {}).get("name")
    return (pool, node) if node and pool and spec.get("state") == "Approved" else None


def _claims(device: dict[str, Any]) -> Iterator[str]:
    """Yield the endorsement key of a Device, and the place that it takes on a node."""
    if digest := (device["spec"].get("ek") or {}).get("publicKeySHA256"):
        yield digest
    if place := _place(device["spec"]):
        yield "/".join(place)


_INDEX: Final = "webhook-claims"
_RIVALS: Final[dict[Resource, Callable[[dict[str, Any]], Iterable[str]]]] = {
    IDENTITY_ISSUERS: lambda one: (str(one["spec"].get("trustDomain")),),
    DEVICES: _claims,
    TOOL_SERVERS: lambda one: (str(one["spec"].get("audience")),),
}
"""What only one object of a kind may have, or so many."""


def _tool_server(review: Review, judge: Judge, now: datetime) -> None:
    spec = review.spec
    audience = str(spec.get("audience") or "")
    for other in judge.others(TOOL_SERVERS, review, audience):
        raise Refused(f"audience already belongs to {other['metadata']['namespace']}/{other['metadata']['name']}")
    if not audience_owned(audience, review.namespace, judge.grants, judge.issuer):
        raise Refused(
            f"namespace {review.namespace} may not claim audience {audience}: it is neither under "
            f"*.{review.namespace}.svc nor given to it by the platform's setting audiences"
        )
    _bundles({"spec.caBundle": spec.get("caBundle")}, now)
    for tool in spec.get("tools") or []:
        fault = schema_fault(tool["inputSchema"]) if "inputSchema" in tool else None
        if fault is not None:
            raise Refused(f"spec.tools[{tool.get('name')}].inputSchema{fault}")


def _policy(review: Review, judge: Judge, now: datetime) -> None:
    """Judge every ``when``: a condition that does not compile would leave its rule undecided, for ever and in silence."""
    del judge, now
    rules = review.spec.get("rules")
    for rule in rules if isinstance(rules, list) else ():
        if isinstance(rule, dict) and "when" in rule and (fault := when_fault(rule["when"])) is not None:
            raise Refused(f"spec.rules[{rule.get('name')}].when: {fault}")


def _instance(review: Review, judge: Judge, now: datetime) -> None:
    del now
    if review.operation == "CREATE":
        if review.username != f"system:serviceaccount:{judge.namespace}:{_MAKER}":
            raise Refused("AgentInstance objects are made by Countersign")
        return
    before = review.old_object.get("spec") or {}
    changed = {name for name in {*before, *review.spec} if before.get(name) != review.spec.get(name)}
    if not changed.issubset(_STATES):
        raise Refused(f"of an AgentInstance only {' and '.join(_STATES)} may change, not {', '.join(sorted(changed))}")
    if before.get("state") == "Revoked" and review.spec.get("state") != "Revoked":
        raise Refused("Revoked is final")


def _bundles(bundles: dict[str, str | None], now: datetime) -> None:
    for field, pem in bundles.items():
        fault = bundle_fault(pem, now) if pem is not None else None
        if fault is not None:
            raise Refused(f"{field}: {fault}")


KINDS: Final[dict[str, Callable[[Review, Judge, datetime], None]]] = {
    "IdentityIssuer": _issuer,
    "DevicePool": _pool,
    "Device": _device,
    "ToolServer": _tool_server,
    "ToolPolicy": _policy,
    "ClusterToolPolicy": _policy,
    "AgentInstance": _instance,
}
