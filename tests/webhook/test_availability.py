"""When the front door does not know, or cannot write it down, the answer is no (D13, E1, E3)."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs
from support.world import World, form, settings, write_keys

from countersign import kube
from countersign.errors import Unavailable
from countersign.wire.limit import RateLimit
from countersign_webhook.decide.notices import Notices
from countersign_webhook.decide.recorder import Recorder
from countersign_webhook.skew import SkewAlarm

if TYPE_CHECKING:
    from pathlib import Path

    import httpx


def assert_unavailable(answer: httpx.Response, code: str) -> None:
    body = answer.json()
    assert (answer.status_code, body["code"], body["error"]) == (503, code, "temporarily_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert "access_token" not in body


async def test_d12_stale_watches_refuse(world: World) -> None:
    world.source.stale_kinds = ["toolpolicies"]

    assert_unavailable(await world.call(), "decide.unavailable")
    assert world.context.faults() == ["current view of toolpolicies"]


async def test_caches_that_are_not_synced_refuse(world: World) -> None:
    world.source.synced = False

    assert_unavailable(await world.call(), "decide.unavailable")
    assert world.context.faults() == ["current view of caches that are not synced yet"]


async def test_who_says_ready_has_compiled_the_rules(world: World) -> None:
    compiled = world.context.metrics.compiled
    before = [compiled.labels(what)._value.get() for what in ("rules", "servers")]

    assert world.context.faults() == []

    assert (before, [compiled.labels(what)._value.get() for what in ("rules", "servers")]) == ([0, 0], [1, 1])


async def test_e1_without_a_log_no_call_is_allowed(world: World) -> None:
    await world.context.audit.aclose()

    assert_unavailable(await world.call(), "audit.unavailable")
    assert "audit log" in world.context.faults()


async def test_e1_without_a_log_not_even_a_no_is_explained(world: World) -> None:
    await world.context.audit.aclose()

    assert_unavailable(await world.call("create_refund"), "audit.unavailable")


async def test_e1_a_disk_that_fails_under_the_log_denies(world: World) -> None:
    descriptor = world.context.audit._descriptor
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, descriptor)
    os.close(full)

    assert_unavailable(await world.call(), "audit.unavailable")
    assert_unavailable(await world.call(), "audit.unavailable")


class Stuck:
    """A log on a disk that never says that it is done."""

    async def append(self, _record: dict[str, Any]) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize(("tool", "code"), [("get_charge", "decide.failed"), ("create_refund", "audit.unavailable")])
async def test_e1_a_log_that_hangs_is_not_waited_for(world: World, tool: str, code: str, tmp_path: Path) -> None:
    impatient = settings(tmp_path, decide={"timeout_seconds": 0.05})
    world.use(settings=impatient, recorder=Recorder(Stuck(), seconds=0.05))  # type: ignore[arg-type]

    assert_unavailable(await world.call(tool), code)


async def test_without_a_token_key_no_call_is_allowed(world: World, tmp_path: Path) -> None:
    write_keys(tmp_path / "keys", (world.token_key, world.clock.now(), world.clock.now()))
    world.context.keys.refresh()

    assert_unavailable(await world.call(), "decide.unavailable")
    [fault] = world.context.faults()
    assert fault.startswith("token key: no token key is usable now, by this clock; clock skew?")
    [record] = await world.records()
    assert record["status_id"] == 2


class Silent:
    """A replay store that never answers."""

    async def insert(self, _key: tuple[str, str], **_times: int) -> None:
        await asyncio.Event().wait()


class Broken:
    """A replay store with a bug."""

    async def insert(self, _key: tuple[str, str], **_times: int) -> None:
        raise ZeroDivisionError


class Away:
    """A replay store that says that it cannot answer."""

    async def insert(self, _key: tuple[str, str], **_times: int) -> None:
        raise Unavailable("replay.unavailable")


@pytest.mark.parametrize(
    ("store", "code"), [(Silent(), "decide.failed"), (Broken(), "decide.failed"), (Away(), "replay.unavailable")]
)
async def test_d13_a_store_that_is_silent_or_broken_denies(tmp_path: Path, store: Any, code: str) -> None:
    # The record has this long too, and a busy disk is not what is tried here.
    world = await World.make(tmp_path, decide={"timeout_seconds": 0.5})
    world.use(replay=store)

    answer = await world.call()

    assert_unavailable(answer, code)
    assert "countersign-nonce" in answer.headers
    [record] = await world.records()
    assert (record["status_code"], record["unmapped"]["countersign"]["jkt"]) == (code, world.key.jkt)
    await world.context.aclose()


async def test_the_first_second_of_a_replay_store_is_not_believed(tmp_path: Path) -> None:
    world = await World.make(tmp_path)
    world.clock.advance(-2)

    answer = await world.call()

    assert answer.json()["code"] == "replay.store_reset"
    assert answer.headers["retry-after"] == "1"
    await world.context.aclose()


async def test_e3_one_instance_cannot_ask_without_end(tmp_path: Path) -> None:
    world = await World.make(tmp_path, limits={"instance_rate": 1, "instance_burst": 2})
    assert [(await world.call()).status_code for _ in range(2)] == [200, 200]

    answer = await world.call()

    assert (answer.status_code, answer.json()["code"], answer.json()["error"]) == (429, "rate.limited", "slow_down")
    assert answer.headers["retry-after"] == "1"
    world.clock.advance(1)
    assert (await world.call()).status_code == 200
    await world.context.aclose()


def test_a_bucket_fills_again_up_to_its_burst_only(world_clock: Any) -> None:
    limit = RateLimit(world_clock, rate=10, burst=2)
    limit.take("a")
    limit.take("a")
    limit.take("b")
    with pytest.raises(Unavailable, match=r"rate\.limited"):
        limit.take("a")
    world_clock.advance(3600)
    limit.take("a")
    limit.take("a")
    with pytest.raises(Unavailable):
        limit.take("a")


class Recorded:
    """An event recorder that keeps what it gets."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str, str]] = []

    async def emit(self, regarding: dict[str, Any], type: str, reason: str, note: str) -> None:  # noqa: A002
        self.events.append((regarding["metadata"]["name"], type, reason, note))

    async def flush(self) -> None:
        self.events.append(("", "", "flush", ""))


async def test_the_owner_of_an_instance_sees_that_calls_are_denied(world: World) -> None:
    recorded = Recorded()
    world.use(notices=Notices(recorded))

    await world.call("create_refund", {"charge": "ch_secret"})

    await world.context.notices.drain()
    assert recorded.events == [
        (
            "refund-agent-7f9c4",
            "Warning",
            "CallsDenied",
            "policy.default_deny at https://tools.billing.svc/stripe",
        )
    ]


async def test_e2_an_event_says_nothing_in_the_callers_own_words(world: World) -> None:
    recorded = Recorded()
    world.use(notices=Notices(recorded))

    await world.send(await world.signed(body=form(resource="https://secret.example.com/")))

    await world.context.notices.drain()
    assert [event[3] for event in recorded.events] == ["tool.server_unknown"]


async def test_c12_the_owner_sees_why_an_instance_may_not_call(world: World) -> None:
    recorded = Recorded()
    world.use(notices=Notices(recorded))
    world.source.drop(kube.PODS, "refund-1", "billing")

    await world.call()

    await world.context.notices.drain()
    assert [event[3] for event in recorded.events] == ["instance.ended"]


async def test_a_bug_in_the_decision_is_a_no_without_a_traceback(world: World) -> None:
    world.source.put(kube.AGENT_INSTANCES, {**world.instance(), "spec": {"type": "Pod"}})

    answer = await world.send(await world.signed(body=form()))

    assert_unavailable(answer, "decide.failed")
    assert "Traceback" not in answer.text
    assert (await world.call()).status_code == 503


async def test_a10_untimely_proofs_set_an_alarm_at_most_once_a_minute(world: World) -> None:
    late = [await world.signed(body=form()) for _ in range(3)]
    world.clock.advance(600)
    with capture_logs() as logs:
        for message in late:
            assert (await world.send(message)).json()["code"] == "proof.expired"
    value = world.context.metrics.registry.get_sample_value
    assert value("countersign_clock_skew_seconds", {"against": "signer"}) == 600
    assert [one["against"] for one in logs if one["event"] == "clock.skew"] == ["signer"]
    world.clock.advance(60)
    with capture_logs() as logs:
        await world.send(late[0])
    assert [one["against"] for one in logs if one["event"] == "clock.skew"] == ["signer"]


async def test_a10_a_clock_that_is_not_the_api_servers_is_told_and_decides_nothing(world: World) -> None:
    world.use(skew=SkewAlarm(world.clock, world.context.metrics, lambda: 600.0))
    assert world.context.skew.look() == (
        "clock skew: this machine is 600 s ahead of the API server; set both clocks by NTP"
    )
    value = world.context.metrics.registry.get_sample_value
    assert value("countersign_clock_skew_seconds", {"against": "api_server"}) == 600
    assert (await world.call()).status_code == 200
