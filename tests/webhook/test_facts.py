"""Who holds a key: what is kept follows from the objects, and ends with any of them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from support.world import SPIFFE_ID, World, thing

from countersign import kube
from countersign_webhook.decide.facts import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from countersign.kube import Resource

WHERE = {
    "instance": (kube.AGENT_INSTANCES, "refund-agent-7f9c4", "billing"),
    "identity": (kube.AGENT_IDENTITIES, "refund-agent", "billing"),
    "device": (kube.DEVICES, "worker-1", None),
    "pool": (kube.DEVICE_POOLS, "racks", None),
    "pod": (kube.PODS, "refund-1", "billing"),
    "namespace": (kube.NAMESPACES, "billing", None),
    "issuer": (kube.IDENTITY_ISSUERS, "default", None),
}


def changed(world: World, what: str, change: Callable[[dict[str, Any]], object]) -> None:
    resource, name, namespace = WHERE[what]
    fresh = copy.deepcopy(world.source.get(resource, name, namespace))
    assert fresh is not None
    change(fresh)
    world.source.put(resource, fresh)


async def test_nothing_is_worked_out_again_while_nothing_changes(world: World) -> None:
    first, again = (world.context.registry.instance(world.key.jkt) for _ in range(2))

    assert first is again
    assert first is not None
    assert (first.spiffe_id, first.state, first.device_approved, first.assurance) == (
        SPIFFE_ID,
        "Active",
        True,
        "Hardware",
    )


@pytest.mark.parametrize(
    ("what", "change", "attribute", "seen"),
    [
        ("instance", lambda o: o["spec"].update(state="Revoked"), "state", "Revoked"),
        ("instance", lambda o: o["metadata"].update(name="other"), "state", None),
        ("identity", lambda o: o["metadata"].update(deletionTimestamp="x"), "state", "Revoked"),
        ("identity", lambda o: o["metadata"].update(uid="another"), "state", "Revoked"),
        ("identity", lambda o: o["spec"].update(serviceAccountName="x"), "spiffe_id", SPIFFE_ID[:-12] + "x"),
        ("identity", lambda o: o["spec"].update(devicePoolRefs=[{"name": "labs"}]), "device_approved", False),
        ("device", lambda o: o["spec"].update(state="Denied"), "device_approved", False),
        ("device", lambda o: o["metadata"].update(deletionTimestamp="x"), "device_approved", False),
        ("device", lambda o: o["status"].update(assurance="Virtual"), "assurance", "Virtual"),
        ("pool", lambda o: o["spec"].update(assurance="Software"), "assurance", "Software"),
        ("pool", lambda o: o["metadata"].update(deletionTimestamp="x"), "device_approved", False),
        ("pod", lambda o: o["metadata"].update(deletionTimestamp="x"), "state", "Ended"),
        ("pod", lambda o: o["metadata"].update(uid="another"), "state", "Ended"),
        ("issuer", lambda o: o["spec"].update(exposeTo={"from": "Same"}), "spiffe_id", ""),
        ("issuer", lambda o: o["metadata"].update(deletionTimestamp="x"), "spiffe_id", ""),
        ("issuer", lambda o: o["spec"].update(trustDomain="other.example.com"), "spiffe_id", "spiffe://other.example.com/ns/billing/sa/refund-agent"),
    ],
)  # fmt: skip
async def test_a_change_of_any_object_is_seen_at_once(
    world: World, what: str, change: Callable[[dict[str, Any]], object], attribute: str, seen: Any
) -> None:
    registry = world.context.registry
    assert registry.instance(world.key.jkt) is not None

    changed(world, what, change)

    assert getattr(registry.instance(world.key.jkt), attribute, None) == seen


async def test_labels_of_the_namespace_are_those_of_now(world: World) -> None:
    before = world.context.registry.instance(world.key.jkt)
    changed(world, "namespace", lambda o: o["metadata"]["labels"].update(team="b"))
    after = world.context.registry.instance(world.key.jkt)

    assert before is not None
    assert after is not None
    assert "team" not in before.record.agent.namespace_labels
    assert after.record.agent.namespace_labels["team"] == "b"


@pytest.mark.parametrize(
    "more",
    [
        {"ek": {"publicKeySHA256": f"sha256:{'3f' * 32}"}},
        {"binding": {"type": "Node", "node": {"name": "worker-1.example.com"}}},
    ],
)
async def test_a_second_device_with_its_key_or_on_its_node_is_seen_when_it_comes_and_when_it_goes(
    world: World, more: dict[str, Any]
) -> None:
    def approved() -> bool:
        view = world.context.registry.instance(world.key.jkt)
        return view is not None and view.device_approved

    spec = {"poolRef": {"name": "racks"}, "state": "Approved", **more}
    assert approved()
    world.source.put(kube.DEVICES, thing("Device", "worker-2", spec))
    assert not approved()
    world.source.drop(kube.DEVICES, "worker-2")
    assert approved()


async def test_a_first_issuer_that_comes_later_takes_the_trust_domain(world: World) -> None:
    registry = world.context.registry
    assert registry.instance(world.key.jkt) is not None
    older = thing("IdentityIssuer", "a-first", {"trustDomain": "agents.example.com", "type": "Embedded"})
    older["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    world.source.put(kube.IDENTITY_ISSUERS, older)

    view = registry.instance(world.key.jkt)

    assert view is not None
    assert view.spiffe_id == ""


@pytest.mark.parametrize("resource", [kube.PODS, kube.DEVICES, kube.AGENT_IDENTITIES, kube.DEVICE_POOLS])
async def test_what_was_deleted_is_not_remembered(world: World, resource: Resource) -> None:
    registry = world.context.registry
    assert registry.instance(world.key.jkt) is not None
    [(_, name, namespace)] = [one for one in WHERE.values() if one[0] is resource]
    world.source.drop(resource, name, namespace)

    view = registry.instance(world.key.jkt)

    assert view is not None
    assert view.state != "Active" or not view.device_approved


async def test_no_more_views_are_kept_than_there_is_place_for(world: World) -> None:
    registry = Registry(world.source, most=1)
    other = copy.deepcopy(world.source.get(*WHERE["instance"]))
    assert other is not None
    other["metadata"] |= {"name": "other", "uid": "uid-other"}
    other["status"]["certificate"]["keyThumbprint"] = "other-key"
    world.source.put(kube.AGENT_INSTANCES, other)

    for jkt in (world.key.jkt, "other-key", world.key.jkt):
        assert registry.instance(jkt) is not None

    assert len(registry._views) == 1
