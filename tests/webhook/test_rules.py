"""What the rules are while policies change: a little at once, much in slices and whole, and never older than the limit."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from support.world import World, allow, policy

from countersign import kube
from countersign.policy import RuleSet

if TYPE_CHECKING:
    import httpx


MANY = 200
STOP = {"name": "stop", "effect": "Deny"}


def assert_unavailable(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (503, "decide.unavailable")


def rule_set_of(answer: httpx.Response) -> str:
    claims = answer.json()["access_token"].split(".")[1]
    found: str = json.loads(base64.urlsafe_b64decode(claims + "=="))["countersign"]["policy"]
    return found


def put_many(world: World, *rules: dict[str, Any]) -> None:
    for number in range(MANY):
        world.source.put(kube.TOOL_POLICIES, policy(*rules, name=f"many-{number}"))


def compiled(world: World) -> set[int]:
    return {id(one) for one in world.context.book.rules.policies}


@pytest.fixture
def settled(world: World) -> World:
    assert world.context.faults() == []
    return world


async def test_an_edit_bites_at_the_very_next_decision_and_compiles_one_policy(settled: World) -> None:
    put_many(settled, allow("never"))
    await settled.context.book.settle()
    before = compiled(settled)
    assert (await settled.call()).status_code == 200

    settled.source.put(kube.TOOL_POLICIES, policy(STOP, name="many-7"))

    assert (await settled.call()).json()["code"] == "policy.denied"
    assert len(compiled(settled) - before) == 1


async def test_d11_every_decision_names_the_rules_that_it_was_made_by(settled: World) -> None:
    first = rule_set_of(await settled.call())
    settled.source.put(kube.TOOL_POLICIES, policy(allow("never"), name="more"))
    second = rule_set_of(await settled.call())

    objects = settled.source.list(kube.TOOL_POLICIES)
    assert second == RuleSet.compile(objects).digest
    assert first == RuleSet.compile(objects[:1]).digest != second


async def test_a_status_that_was_written_compiles_nothing(settled: World) -> None:
    before, count = settled.context.book.rules, settled.context.metrics.compiled.labels("rules")._value.get()

    [found] = settled.source.list(kube.TOOL_POLICIES)
    settled.source.put(kube.TOOL_POLICIES, {**found, "status": {"rules": 1}})

    assert settled.context.book.rules is before
    assert settled.context.metrics.compiled.labels("rules")._value.get() == count


async def test_until_the_first_rules_are_whole_nobody_is_ready_and_calls_are_refused(world: World) -> None:
    put_many(world, allow("get_charge"))

    assert world.context.faults() == ["current view of rules that are not compiled yet"]
    assert_unavailable(await world.call())

    await world.context.book.settle()
    assert world.context.faults() == []
    assert (await world.call()).status_code == 200


async def test_a_process_that_was_asked_before_it_saw_anything_is_not_ready_when_it_has(world: World) -> None:
    world.source.synced = False
    assert world.context.faults() == ["current view of caches that are not synced yet"]
    put_many(world, allow("get_charge"))
    world.source.synced = True

    assert world.context.faults() == ["current view of rules that are not compiled yet"]


async def test_objects_are_admitted_while_rules_are_compiled(world: World) -> None:
    put_many(world, allow("get_charge"))
    assert world.context.stale() == ["rules that are not compiled yet"]
    assert world.context.unseen() == []


async def test_much_is_compiled_aside_and_the_old_rules_stay_until_the_new_are_whole(settled: World) -> None:
    book = settled.context.book
    before = book.rules
    put_many(settled, STOP)
    compiling = asyncio.create_task(book.settle())
    seen = []
    while not compiling.done():
        await asyncio.sleep(0)
        seen.append(book.rules)

    assert len(seen) > 3
    assert {id(one) for one in seen} <= {id(before), id(book.rules)}
    assert book.rules.digest == RuleSet.compile(settled.source.list(kube.TOOL_POLICIES)).digest


async def test_what_comes_meanwhile_does_not_overtake(settled: World) -> None:
    """A Deny that was moved from one policy to another stands at every moment, in whichever it was seen last."""
    settled.source.put(kube.TOOL_POLICIES, policy(STOP, name="old-stop"))
    assert (await settled.call()).json()["code"] == "policy.denied"
    book = settled.context.book
    put_many(settled, allow("never"))
    settled.source.put(kube.TOOL_POLICIES, policy(STOP, name="new-stop"))
    compiling = asyncio.create_task(book.settle())
    await asyncio.sleep(0)
    settled.source.drop(kube.TOOL_POLICIES, "old-stop", "billing")
    while not compiling.done():
        assert any(one.label.endswith("-stop") for one in book.rules.policies)
        await asyncio.sleep(0)
    assert [one.label for one in book.rules.policies if "stop" in one.label] == ["ToolPolicy billing/new-stop"]


async def test_rules_that_stay_behind_for_longer_than_the_limit_refuse(settled: World) -> None:
    put_many(settled, allow("get_charge"))
    assert (await settled.call()).status_code == 200, "the old rules stay in force"

    settled.clock.advance(settled.context.settings.decide.max_staleness_seconds + 1)

    assert_unavailable(await settled.call())


async def test_a_compilation_that_is_cut_off_is_done_later(settled: World) -> None:
    book = settled.context.book
    put_many(settled, STOP)
    compiling = asyncio.create_task(book.settle())
    await asyncio.sleep(0)
    settled.source.put(kube.TOOL_POLICIES, policy(allow("never"), name="many-7"))
    compiling.cancel()
    await asyncio.gather(compiling, return_exceptions=True)
    assert len(book.rules.policies) == 1, "no part of what is not whole is in force"

    await book.settle()
    assert book.rules.digest == RuleSet.compile(settled.source.list(kube.TOOL_POLICIES)).digest


async def test_a_running_book_settles_by_itself(settled: World) -> None:
    book = settled.context.book
    running = asyncio.create_task(book.run())
    try:
        put_many(settled, STOP)
        async with asyncio.timeout(20):
            while len(book.rules.policies) <= MANY:  # noqa: ASYNC110 - a book tells nobody
                await asyncio.sleep(0)
    finally:
        running.cancel()


async def test_what_was_there_before_the_book_is_in_it(world: World) -> None:
    put_many(world, STOP)
    again = type(world.context).of(
        world.context.settings,
        clock=world.clock,
        source=world.source,
        audit=world.context.audit,
        notices=world.context.notices,
    )
    await again.book.settle()
    assert len(again.book.rules.policies) == MANY + 1


async def test_a_cluster_policy_of_the_same_name_is_another_policy(settled: World) -> None:
    found = {"kind": "ClusterToolPolicy", "metadata": {"name": "p"}, "spec": {"rules": [STOP]}}
    settled.source.put(kube.CLUSTER_TOOL_POLICIES, found)
    settled.source.put(kube.TOOL_POLICIES, policy(allow("never"), name="p"))
    assert (await settled.call()).json()["code"] == "policy.denied"
    settled.source.drop(kube.CLUSTER_TOOL_POLICIES, "p")
    assert (await settled.call()).status_code == 200
