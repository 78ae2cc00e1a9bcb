"""The view: no older version wins, and a list puts right what a watch missed."""

from __future__ import annotations

from typing import Any

from support.cluster import (
    RESOURCES,
    device,
    identity,
    instance,
    issuer,
    namespace,
    pod,
    policy,
    pool,
    rule,
    server,
)

from countersign import kube
from countersign.controller.keys import Key, KeyQueue, touched
from countersign.controller.slim import slim
from countersign.controller.view import View


def at(found: dict[str, Any], version: int, **meta: Any) -> dict[str, Any]:
    return {**found, "metadata": {**found["metadata"], "resourceVersion": str(version), **meta}}


def test_what_was_put_is_found() -> None:
    view = View()

    assert view.put(kube.PODS, at(pod(), 5))
    assert view.get(kube.PODS, "refund-1", "billing") == slim(kube.PODS, at(pod(), 5))
    assert view.get(kube.PODS, "refund-1", "other") is None
    assert view.list(kube.PODS, "billing") == view.list(kube.PODS) == [slim(kube.PODS, at(pod(), 5))]


def test_an_older_version_never_wins() -> None:
    view = View()
    view.put(kube.PODS, at(pod(), 5))

    assert not view.put(kube.PODS, at(pod(), 4))
    assert not view.put(kube.PODS, at(pod(), 5))
    assert view.put(kube.PODS, at(pod(), 6))


def test_a_late_word_of_a_deleted_object_does_not_bring_it_back() -> None:
    view = View()
    view.put(kube.PODS, at(pod(), 5))

    assert view.drop(kube.PODS, at(pod(), 7))
    assert not view.put(kube.PODS, at(pod(), 6))
    assert view.put(kube.PODS, at(pod(), 8, uid="uid-of-a-later-one"))


def test_a_late_deletion_does_not_take_the_later_object_of_that_name() -> None:
    view = View()
    view.put(kube.PODS, at(pod(), 8, uid="uid-of-a-later-one"))

    assert not view.drop(kube.PODS, at(pod(), 7))
    assert view.get(kube.PODS, "refund-1", "billing") is not None


def test_a_list_finds_what_is_gone_and_what_is_new() -> None:
    view = View()
    view.put(kube.DEVICES, at(device("gone"), 3))
    view.put(kube.DEVICES, at(device("same"), 4))

    changed = view.replace(kube.DEVICES, [at(device("same"), 4), at(device("new"), 5)], "9")

    assert sorted(one["metadata"]["name"] for one in changed) == ["gone", "new"]
    assert sorted(one["metadata"]["name"] for one in view.list(kube.DEVICES)) == ["new", "same"]


def test_what_a_watch_brought_after_the_list_stays() -> None:
    view = View()
    view.put(kube.DEVICES, at(device("later"), 12))
    view.put(kube.DEVICES, at(device("over"), 5))
    view.drop(kube.DEVICES, at(device("over"), 11))

    view.replace(kube.DEVICES, [at(device("over"), 5)], "10")

    assert [one["metadata"]["name"] for one in view.list(kube.DEVICES)] == ["later"]


def test_what_is_being_deleted_is_not_listed() -> None:
    view = View()
    view.put(kube.PODS, at(pod(deletionTimestamp="2026-11-24T11:00:00Z"), 5))

    assert view.list(kube.PODS) == []
    assert view.get(kube.PODS, "refund-1", "billing") is not None


async def test_a_key_waits_once_and_the_oldest_comes_first() -> None:
    queue = KeyQueue()
    first, second = Key(kube.PODS, "a", "x"), Key(kube.PODS, "a", "y")
    for key in (first, second, first):
        queue.add(key)

    assert len(queue) == 2
    assert [await queue.take(), await queue.take()] == [first, second]


def names(resource: kube.Resource, before: dict[str, Any] | None, after: dict[str, Any], view: View) -> list[str]:
    return sorted({f"{key.resource.kind} {key.name}" for key in touched(resource, before, after, view)})


def test_a_change_is_felt_by_what_hangs_on_it() -> None:
    every = [identity(), instance(), policy(rule()), policy(rule(), where=None, name="base"), pool(), server(), pod()]
    every += [identity("far", "other"), policy(rule(), where="other", name="far"), device(), namespace(), issuer()]
    view = View()
    for one in every:
        view.put(RESOURCES[one["kind"]], one)

    agents = ["AgentIdentity refund-agent"]
    held = ["AgentInstance refund-agent-7f9c4"]
    assert names(kube.PODS, None, pod(), view) == [*agents, *held, "Pod refund-1"]
    assert names(kube.PODS, None, pod("other"), view) == [*agents, "Pod other"]
    assert names(kube.PODS, pod(), pod(), view) == ["Pod refund-1"]
    assert names(kube.IDENTITY_ISSUERS, None, issuer(), view) == ["AgentIdentity far", *agents]
    assert names(kube.DEVICES, None, device(), view) == [*held, "DevicePool racks"]
    assert names(kube.AGENT_INSTANCES, None, instance(), view) == [*agents, *held]
    assert names(kube.AGENT_IDENTITIES, None, identity(), view) == [
        *agents,
        *held,
        "ClusterToolPolicy base",
        "ToolPolicy refunds",
    ]
    assert names(kube.AGENT_IDENTITIES, identity(), {**identity(), "status": {"instances": 1}}, view) == agents
    assert names(kube.TOOL_SERVERS, None, server(), view) == ["ToolPolicy refunds", "ToolServer stripe"]
    assert names(kube.NAMESPACES, None, namespace(), view) == [
        *agents,
        "ClusterToolPolicy base",
        "Namespace billing",
        "ToolPolicy refunds",
    ]
