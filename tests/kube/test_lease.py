"""Leadership: one at a time, given back, taken over, and never kept without the API server."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from support.eventually import eventually

from countersign.clock import FakeClock
from countersign.kube import LEASES, SERVICE_ACCOUNTS, Kube, KubeError, Leader, run_as_leader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from countersign.devcluster import Plane


class Stage:
    """Where leaders work: who is on it, and how many there ever were at once."""

    def __init__(self) -> None:
        self.on: list[str] = []
        self.ever: list[str] = []
        self.most = 0

    def work(self, name: str) -> Callable[[], Awaitable[None]]:
        async def working() -> None:
            self.on.append(name)
            self.ever.append(name)
            self.most = max(self.most, len(self.on))
            try:
                await asyncio.Event().wait()
            finally:
                self.on.remove(name)

        return working


def leader(kube: Kube, namespace: str, name: str) -> Leader:
    return Leader(kube, namespace, "operator", life=2.0, deadline=1.2, every=0.2, identity=name)


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(("life", "deadline", "every"), [(10, 10, 2), (15, 2, 2), (15, 10, 0)])
async def test_times_with_which_two_could_lead_are_refused(life: float, deadline: float, every: float) -> None:
    kube = Kube.__new__(Kube)
    with pytest.raises(ValueError, match="every < deadline < life"):
        Leader(kube, "n", "operator", life, deadline, every)


@pytest.mark.plane
async def test_one_leads_and_gives_back_and_the_next_follows_at_once(kube: Kube, namespace: str) -> None:
    stage = Stage()
    first, second = leader(kube, namespace, "first"), leader(kube, namespace, "second")
    one = asyncio.create_task(first.run(stage.work("first")))
    await eventually(lambda: stage.on == ["first"], "the first leads")
    two = asyncio.create_task(second.run(stage.work("second")))
    lease = await kube.get(LEASES, "operator", namespace)
    spec = lease["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("first", 2, 0)
    assert (first.leading, second.leading) == (True, False)

    await end(one)
    assert stage.on == []
    await eventually(lambda: stage.on == ["second"], "the second leads", 1.5)

    assert stage.most == 1
    assert (await kube.get(LEASES, "operator", namespace))["spec"]["leaseTransitions"] == 1
    await end(two)
    assert (await kube.get(LEASES, "operator", namespace))["spec"]["holderIdentity"] == ""


@pytest.mark.plane
async def test_a_lease_that_its_holder_lets_run_out_is_taken_over(kube: Kube, namespace: str) -> None:
    stage = Stage()
    spec = {"holderIdentity": "dead", "leaseDurationSeconds": 1, "renewTime": "2999-01-01T00:00:00.000000Z"}
    body = {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": {"name": "operator", "namespace": namespace}}
    await kube.create(LEASES, {**body, "spec": spec})
    began = asyncio.get_running_loop().time()

    task = asyncio.create_task(leader(kube, namespace, "heir").run(stage.work("heir")))
    await eventually(lambda: stage.on == ["heir"], "the heir leads")

    assert asyncio.get_running_loop().time() - began >= 1.0
    await end(task)


@pytest.mark.plane
@pytest.mark.parametrize("there", [False, True], ids=["made", "taken over"])
async def test_a_lease_goes_with_its_owner(kube: Kube, namespace: str, *, there: bool) -> None:
    if there:
        meta = {"name": "operator", "namespace": namespace}
        await kube.create(LEASES, {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": meta, "spec": {}})
    head = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "owner", "namespace": namespace}}
    account = await kube.create(SERVICE_ACCOUNTS, head)
    owner = {"apiVersion": "v1", "kind": "ServiceAccount", "name": "owner", "uid": account["metadata"]["uid"]}
    stage, owned = Stage(), leader(kube, namespace, "first")
    owned.owner = owner

    task = asyncio.create_task(owned.run(stage.work("first")))
    await eventually(lambda: stage.on == ["first"], "the first leads")

    assert (await kube.get(LEASES, "operator", namespace))["metadata"]["ownerReferences"] == [owner]
    await end(task)


@pytest.mark.plane
async def test_a_lease_that_another_writes_over_stops_the_work(kube: Kube, namespace: str) -> None:
    stage = Stage()
    task = asyncio.create_task(leader(kube, namespace, "first").run(stage.work("first")))
    await eventually(lambda: stage.on == ["first"], "the first leads")

    await kube.patch(LEASES, "operator", {"spec": {"holderIdentity": "usurper"}}, namespace)
    await eventually(lambda: stage.on == [], "the first has stopped")

    assert (await kube.get(LEASES, "operator", namespace))["spec"]["holderIdentity"] == "usurper"
    await end(task)


@pytest.mark.plane
async def test_a_lease_that_was_written_since_is_given_back_all_the_same(kube: Kube, namespace: str) -> None:
    """As after a renewal whose answer was cut off: the version that the leader remembers is an old one."""
    stage = Stage()
    patient = Leader(kube, namespace, "operator", life=30, deadline=20, every=10, identity="first")
    task = asyncio.create_task(patient.run(stage.work("first")))
    await eventually(lambda: stage.on == ["first"], "the first leads")

    await kube.patch(LEASES, "operator", {"metadata": {"labels": {"written": "since"}}}, namespace)
    await end(task)

    assert (await kube.get(LEASES, "operator", namespace))["spec"]["holderIdentity"] == ""


@pytest.mark.plane
async def test_work_that_ends_or_fails_ends_the_run_and_gives_the_lease_back(kube: Kube, namespace: str) -> None:
    done: list[str] = []

    async def works() -> None:
        done.append("worked")

    async def fails() -> None:
        raise LookupError("a bug")

    await run_as_leader(kube, namespace, "operator", works, life=2, deadline=1, every=0.2)
    with pytest.raises(LookupError, match="a bug"):
        await run_as_leader(kube, namespace, "operator", fails, life=2, deadline=1, every=0.2)

    assert done == ["worked"]
    assert (await kube.get(LEASES, "operator", namespace))["spec"]["holderIdentity"] == ""


@pytest.mark.plane
async def test_without_the_api_server_the_leader_stops_by_its_deadline_and_leads_again_after(mortal: Plane) -> None:
    kube, stage = await Kube.connect(mortal.admin_kubeconfig), Stage()
    tasks = [asyncio.create_task(leader(kube, "default", name).run(stage.work(name))) for name in ("first", "second")]
    try:
        await eventually(lambda: len(stage.on) == 1, "one leads")
        loop = asyncio.get_running_loop()

        mortal.kill_apiserver()
        killed = loop.time()
        await eventually(lambda: stage.on == [], "nobody leads")
        assert loop.time() - killed < 1.2 + 0.5

        mortal.start_apiserver()
        await eventually(lambda: len(stage.on) == 1, "one leads again")
        assert stage.most == 1
        assert len(stage.ever) == 2
    finally:
        for task in tasks:
            await end(task)
        await kube.aclose()


async def test_who_does_not_lead_or_was_stopped_past_its_deadline_may_not_write() -> None:
    clock = FakeClock(datetime(2026, 11, 24, 12, 0, tzinfo=UTC))
    one = Leader(Kube.__new__(Kube), "n", "operator", 10.0, 7.0, 2.0, clock=clock)
    with pytest.raises(KubeError, match="does not lead"):
        one.require()
    one.leading, one._renewed = True, clock.monotonic()
    clock.advance(6.9)
    one.require()
    clock.advance(0.1)
    with pytest.raises(KubeError, match="does not lead"):
        one.require()
