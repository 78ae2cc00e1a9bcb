"""The watch cache: against a script that misbehaves on purpose, and against a real API server that dies."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import pytest
from support.eventually import eventually

from countersign.clock import FakeClock, SystemClock
from countersign.kube import CONFIG_MAPS, NAMESPACES, Gone, Kube, KubeError, WatchCache

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from countersign.devcluster import Plane
    from countersign.kube import Resource


def config_map(name: str, version: int, namespace: str = "n", **labels: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace, "uid": name, "resourceVersion": str(version), "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}


def team(obj: dict[str, Any]) -> list[str]:
    return [obj["metadata"]["labels"]["team"]]


class Script:
    """An API server that says line after line: a list of objects, an event, an error, or the end of a watch."""

    def __init__(self, *lines: Any) -> None:
        self.lines = list(lines)
        self.asked: list[str] = []

    async def list_version(
        self, resource: Resource, *, keep: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], str]:
        del resource
        self.asked.append("list")
        items, version = self._next()
        return [keep(one) for one in items], version

    async def watch(self, resource: Resource, version: str, seconds: int) -> AsyncGenerator[dict[str, Any]]:
        del resource
        assert 10 <= seconds <= 15
        self.asked.append(version)
        while (line := self._next()) != "end":
            if line == "hang":
                await asyncio.Event().wait()
            yield line

    def _next(self) -> Any:
        line = self.lines.pop(0) if self.lines else KubeError("away")
        if isinstance(line, Exception):
            raise line
        return line


@asynccontextmanager
async def following(script: Script, clock: FakeClock | None = None) -> AsyncIterator[WatchCache]:
    cache = WatchCache(cast("Kube", script), [CONFIG_MAPS], clock=clock or FakeClock(datetime.now(UTC)))
    await cache.start()
    try:
        yield cache
    finally:
        await cache.aclose()


def event(kind: str, obj: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "object": obj}


def bookmark(version: int) -> dict[str, Any]:
    return event("BOOKMARK", {"kind": "ConfigMap", "metadata": {"resourceVersion": str(version)}})


async def test_a_list_and_events_become_objects_indexes_and_calls() -> None:
    script = Script(
        ([config_map("a", 1, team="x"), config_map("b", 1)], "1"),
        event("ADDED", config_map("c", 2, "m", team="x")),
        event("MODIFIED", config_map("a", 3, team="y")),
        event("DELETED", config_map("b", 4)),
        "hang",
    )
    told: list[tuple[str, str]] = []
    cache = WatchCache(cast("Kube", script), [CONFIG_MAPS], clock=SystemClock())
    cache.add_index(CONFIG_MAPS, "team", team)
    cache.subscribe(lambda _resource, _kind, _obj: 1 / 0)
    cache.subscribe(lambda _resource, kind, obj: told.append((kind, obj["metadata"]["name"])))
    assert (cache.synced, cache.stale(60), cache.age(CONFIG_MAPS)) == (False, ["configmaps"], float("inf"))

    await cache.start()
    await eventually(lambda: len(told) == 5, "every change is told, whatever the other listener does")
    await cache.wait_synced()

    assert told == [("ADDED", "a"), ("ADDED", "b"), ("ADDED", "c"), ("MODIFIED", "a"), ("DELETED", "b")]
    assert [one["metadata"]["name"] for one in cache.list(CONFIG_MAPS)] == ["a", "c"]
    assert [one["metadata"]["name"] for one in cache.list(CONFIG_MAPS, "m")] == ["c"]
    assert [one["metadata"]["name"] for one in cache.by_index(CONFIG_MAPS, "team", "x")] == ["c"]
    assert [one["metadata"]["name"] for one in cache.by_index(CONFIG_MAPS, "team", "y")] == ["a"]
    assert cache.get(CONFIG_MAPS, "b", "n") is None
    assert (cache.synced, cache.stale(60)) == (True, [])
    with pytest.raises(KeyError):
        cache.list(NAMESPACES)
    with pytest.raises(RuntimeError, match="started before"):
        await cache.start()
    await cache.aclose()


async def test_a_watch_goes_on_from_where_it_was_also_by_a_bookmark() -> None:
    script = Script(([], "1"), bookmark(7), "end", event("ADDED", config_map("a", 9)), KubeError("broken"), "hang")
    async with following(script):
        await eventually(lambda: len(script.asked) == 4, "three watches")
    assert script.asked == ["list", "1", "7", "9"]


async def test_a_version_that_is_gone_is_listed_again_and_only_differences_are_told() -> None:
    script = Script(
        ([config_map("a", 1), config_map("b", 1)], "1"), Gone("too old"), ([config_map("b", 1)], "8"), "hang"
    )
    told: list[tuple[str, str]] = []
    cache = WatchCache(cast("Kube", script), [CONFIG_MAPS], clock=SystemClock())
    cache.subscribe(lambda _resource, kind, obj: told.append((kind, obj["metadata"]["name"])))
    await cache.start()
    await eventually(lambda: script.asked == ["list", "1", "list", "8"], "a second list and watch")
    await cache.aclose()
    assert told == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]


async def test_whatever_breaks_the_watch_goes_on_from_a_fresh_list() -> None:
    script = Script(([], "1"), event("ADDED", {"metadata": {}}), ([config_map("a", 2)], "2"), "hang")
    async with following(script) as cache:
        await eventually(lambda: cache.get(CONFIG_MAPS, "a", "n") is not None, "a second list")
    assert script.asked == ["list", "1", "list", "2"]


@pytest.mark.parametrize("lines", [[], [([], "1"), *["end"] * 10_000]], ids=["away", "ended at once"])
async def test_there_is_no_spin(lines: list[Any]) -> None:
    script, loop = Script(*lines), asyncio.get_running_loop()
    until = loop.time() + 1
    async with following(script):
        await eventually(lambda: loop.time() > until, "a second has passed")
    assert 2 <= len(script.asked) <= 14


async def test_a_kind_without_contact_grows_stale_and_recovers() -> None:
    clock = FakeClock(datetime.now(UTC))
    script = Script(([], "1"), KubeError("broken"), "end", "hang")
    async with following(script, clock) as cache:
        await cache.wait_synced()
        clock.advance(31)
        assert (cache.stale(30), cache.age(CONFIG_MAPS)) == (["configmaps"], 31)
        await eventually(lambda: cache.stale(30) == [], "contact again")
        assert cache.age(CONFIG_MAPS) == 0
        clock.advance(31)
        assert cache.stale(30) == ["configmaps"]


@pytest.mark.plane
async def test_on_a_real_api_server_changes_arrive(kube: Kube, namespace: str) -> None:
    cache = WatchCache(kube, [CONFIG_MAPS, NAMESPACES], clock=SystemClock())
    await cache.start()
    try:
        async with asyncio.timeout(10):
            await cache.wait_synced()
        assert cache.get(NAMESPACES, namespace) is not None
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": namespace}}
        await kube.create(CONFIG_MAPS, body)
        await eventually(lambda: cache.get(CONFIG_MAPS, "c", namespace) is not None, "the new object is seen")
        await kube.delete(CONFIG_MAPS, "c", namespace)
        await eventually(lambda: cache.get(CONFIG_MAPS, "c", namespace) is None, "it is seen to be gone")
        assert cache.stale(30) == []
        found = cache.get(NAMESPACES, namespace)
        assert found is not None
        assert (found["apiVersion"], found["kind"]) == ("v1", "Namespace")
    finally:
        await cache.aclose()


@pytest.mark.plane
async def test_a_killed_api_server_makes_stale_and_a_restarted_one_is_followed_again(mortal: Plane) -> None:
    kube = await Kube.connect(mortal.admin_kubeconfig)
    cache = WatchCache(kube, [CONFIG_MAPS, NAMESPACES], clock=SystemClock())
    await cache.start()
    try:
        async with asyncio.timeout(10):
            await cache.wait_synced()
        _, old = await kube.list_version(CONFIG_MAPS)
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept", "namespace": "default"}}
        await kube.create(CONFIG_MAPS, body)
        await eventually(lambda: cache.get(CONFIG_MAPS, "kept", "default") is not None, "the object is seen")

        mortal.kill_apiserver()
        await eventually(lambda: sorted(cache.stale(1.0)) == ["configmaps", "namespaces"], "both kinds are stale")
        assert cache.get(CONFIG_MAPS, "kept", "default") is not None
        assert cache.synced

        mortal.start_apiserver()
        await kube.delete(CONFIG_MAPS, "kept", "default")
        await eventually(lambda: cache.get(CONFIG_MAPS, "kept", "default") is None, "the deletion is seen")
        await eventually(lambda: cache.stale(15.0) == [], "nothing is stale")
        with pytest.raises(Gone, match="list again"):
            _ = [one async for one in kube.watch(CONFIG_MAPS, old, 1)]
    finally:
        await cache.aclose()
        await kube.aclose()


async def test_what_nobody_reads_is_not_kept() -> None:
    def only_name(found: dict[str, Any]) -> dict[str, Any]:
        return {"metadata": {"name": found["metadata"]["name"], "namespace": found["metadata"]["namespace"]}}

    script = Script(([config_map("a", 1, team="x")], "1"), event("ADDED", config_map("b", 2, team="x")), "hang")
    cache = WatchCache(cast("Kube", script), [CONFIG_MAPS], clock=SystemClock(), keep={CONFIG_MAPS: only_name})
    told: list[dict[str, Any]] = []
    cache.subscribe(lambda _resource, _kind, obj: told.append(obj))
    await cache.start()
    await eventually(lambda: len(told) == 2, "both are told")
    await cache.aclose()
    assert cache.list(CONFIG_MAPS) == told == [only_name(config_map("a", 1)), only_name(config_map("b", 2))]


async def test_the_api_servers_bookkeeping_is_not_kept() -> None:
    found = config_map("a", 1)
    found["metadata"] |= {"managedFields": [{"manager": "x"}], "annotations": {"kept": "1"}}
    found["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = "{}"
    async with following(Script(([found], "1"), "hang")) as cache:
        await eventually(lambda: cache.synced, "the list is there")
        [kept] = cache.list(CONFIG_MAPS)
    assert kept["metadata"] == {**config_map("a", 1)["metadata"], "annotations": {"kept": "1"}}
