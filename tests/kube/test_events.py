"""Events on the real API server: one write per object, reason and minute, with a count."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from countersign.clock import FakeClock
from countersign.kube import CONFIG_MAPS, EVENTS, NAMESPACES, EventRecorder, Kube

if TYPE_CHECKING:
    from pathlib import Path

    from countersign.devcluster import Plane

pytestmark = pytest.mark.plane
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.fixture
async def thing(kube: Kube, namespace: str) -> dict[str, Any]:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "thing", "namespace": namespace}}
    return await kube.create(CONFIG_MAPS, body)


async def events(kube: Kube, namespace: str) -> list[dict[str, Any]]:
    found = await kube.list(EVENTS, namespace)
    return sorted(found, key=lambda one: one["eventTime"])


async def test_an_event_is_what_people_see(kube: Kube, plane: Plane, thing: dict[str, Any]) -> None:
    namespace = thing["metadata"]["namespace"]
    recorder = EventRecorder(kube, "countersign-authority", clock=FakeClock(NOON))

    await recorder.emit(thing, "Normal", "Attested", "device worker-1, pool racks, Hardware")

    [one] = await events(kube, namespace)
    assert (one["type"], one["reason"], one["eventTime"]) == ("Normal", "Attested", "2026-11-24T12:00:00.000000Z")
    assert one["reportingController"] == "countersign-authority"
    assert one["regarding"] == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "thing",
        "namespace": namespace,
        "uid": thing["metadata"]["uid"],
    }
    told = plane.kubectl("describe", "configmap", "thing", "-n", namespace)
    assert "countersign-authority" in told
    assert "device worker-1, pool racks, Hardware" in told


async def test_a_burst_is_one_event_and_its_count_comes_with_the_next_minute(kube: Kube, thing: dict[str, Any]) -> None:
    namespace, clock = thing["metadata"]["namespace"], FakeClock(NOON)
    recorder = EventRecorder(kube, "countersign-webhook", clock=clock)
    for _ in range(20):
        await recorder.emit(thing, "Warning", "CallsDenied", "environment.attestation_stale at stripe")
        clock.advance(2)
    assert len(await events(kube, namespace)) == 1
    assert "series" not in (await events(kube, namespace))[0]

    clock.advance(30)
    await recorder.emit(thing, "Warning", "CallsDenied", "environment.attestation_stale at stripe")
    [one] = await events(kube, namespace)
    assert one["series"] == {"count": 21, "lastObservedTime": "2026-11-24T12:01:10.000000Z"}

    await recorder.emit(thing, "Warning", "DuplicateKey", "another reason is another event")
    clock.advance(61)
    await recorder.emit(thing, "Warning", "CallsDenied", "policy.denied at stripe")
    found = await events(kube, namespace)
    assert [(one["reason"], one["note"]) for one in found[1:]] == [
        ("DuplicateKey", "another reason is another event"),
        ("CallsDenied", "policy.denied at stripe"),
    ]


async def test_what_happens_once_is_told_once_by_however_many_processes(kube: Kube, thing: dict[str, Any]) -> None:
    namespace = thing["metadata"]["namespace"]
    for _ in range(2):
        recorder = EventRecorder(kube, "countersign-operator", clock=FakeClock(NOON))
        await recorder.emit(thing, "Normal", "Injected", "signer in pod a", once="pod-1")
    assert len(await events(kube, namespace)) == 1

    await EventRecorder(kube, "countersign-operator").emit(thing, "Normal", "Injected", "signer in pod a", once="pod-2")
    assert len(await events(kube, namespace)) == 2


async def test_the_count_of_a_burst_that_is_over_is_written_a_minute_later(kube: Kube, thing: dict[str, Any]) -> None:
    namespace, clock = thing["metadata"]["namespace"], FakeClock(NOON)
    recorder = EventRecorder(kube, "countersign-webhook", clock=clock)
    for _ in range(5):
        await recorder.emit(thing, "Warning", "CallsDenied", "policy.denied at stripe")
        clock.advance(1)

    await recorder.flush()
    assert "series" not in (await events(kube, namespace))[0]
    clock.advance(60)
    await recorder.flush()

    [one] = await events(kube, namespace)
    assert one["series"] == {"count": 5, "lastObservedTime": "2026-11-24T12:00:04.000000Z"}
    version = one["metadata"]["resourceVersion"]
    clock.advance(61)
    await recorder.flush()
    assert (await events(kube, namespace))[0]["metadata"]["resourceVersion"] == version


async def test_a_count_whose_event_was_forgotten_is_forgotten_too(kube: Kube, thing: dict[str, Any]) -> None:
    namespace, clock = thing["metadata"]["namespace"], FakeClock(NOON)
    recorder = EventRecorder(kube, "countersign-webhook", clock=clock)
    for _ in range(2):
        await recorder.emit(thing, "Warning", "CallsDenied", "policy.denied at stripe")
    [one] = await events(kube, namespace)
    await kube.delete(EVENTS, one["metadata"]["name"], namespace)

    clock.advance(61)
    await recorder.flush()

    assert await events(kube, namespace) == []


async def test_an_event_that_the_api_server_forgot_is_written_anew(kube: Kube, thing: dict[str, Any]) -> None:
    namespace, clock = thing["metadata"]["namespace"], FakeClock(NOON)
    recorder = EventRecorder(kube, "countersign-authority", clock=clock)
    await recorder.emit(thing, "Normal", "Attested", "again")
    [first] = await events(kube, namespace)
    await kube.delete(EVENTS, first["metadata"]["name"], namespace)

    clock.advance(61)
    await recorder.emit(thing, "Normal", "Attested", "again")

    [second] = await events(kube, namespace)
    assert second["metadata"]["uid"] != first["metadata"]["uid"]


async def test_an_object_of_the_cluster_has_its_events_in_default(kube: Kube, namespace: str) -> None:
    regarding = await kube.get(NAMESPACES, namespace)

    await EventRecorder(kube, "countersign-authority").emit(regarding, "Normal", "Approved", "x" * 3000)

    found = [one for one in await kube.list(EVENTS, "default") if one["regarding"]["name"] == namespace]
    assert [len(one["note"]) for one in found] == [1024]


async def test_what_cannot_be_written_is_dropped(plane: Plane, thing: dict[str, Any], tmp_path: Path) -> None:
    nobody = await Kube.connect(plane.kubeconfig(tmp_path / "nobody", plane.client("nobody")))
    try:
        await EventRecorder(nobody, "countersign-authority").emit(thing, "Normal", "Attested", "not permitted")
    finally:
        await nobody.aclose()
