"""Used once: the store in memory."""

from __future__ import annotations

import pytest

from countersign.errors import CountersignError, Unavailable
from countersign.wire import MemoryReplayCache, ReplayCache

NOW = 1_000_000
KEY = ("jkt", "nonce")


async def refused(store: ReplayCache, key: tuple[str, str] = KEY, *, issued: int = NOW, now: int = NOW) -> str:
    with pytest.raises(CountersignError) as refusal:
        await store.insert(key, issued=issued, expires=issued + 65, now=now)
    if isinstance(refusal.value, Unavailable):
        assert refusal.value.retry_after == 1
    return refusal.value.code


async def test_each_key_once() -> None:
    store = MemoryReplayCache(epoch=NOW - 2)
    for key in (KEY, ("jkt", "other"), ("other", "nonce")):
        await store.insert(key, issued=NOW, expires=NOW + 65, now=NOW)

    assert await refused(store) == "proof.replayed"
    assert await refused(store, now=NOW + 65) == "proof.replayed"


@pytest.mark.parametrize("issued", [NOW - 100, NOW - 1, NOW])
async def test_a7_what_was_made_before_the_store_is_not_believed(issued: int) -> None:
    assert await refused(MemoryReplayCache(epoch=NOW), issued=issued) == "replay.store_reset"


async def test_what_was_made_a_second_after_its_epoch_is() -> None:
    await MemoryReplayCache(epoch=NOW).insert(KEY, issued=NOW + 1, expires=NOW + 66, now=NOW + 1)


async def test_what_has_ended_is_forgotten_and_nothing_else() -> None:
    store = MemoryReplayCache(epoch=NOW - 2)
    for number in range(10):
        await store.insert(("jkt", str(number)), issued=NOW, expires=NOW + number, now=NOW)

    await store.insert(KEY, issued=NOW, expires=NOW + 65, now=NOW + 5)

    assert len(store) == 6
    assert await refused(store, ("jkt", "5"), now=NOW + 5) == "proof.replayed"


async def test_a10_a_clock_that_was_ahead_and_is_set_back_brings_nothing_to_life_again() -> None:
    store = MemoryReplayCache(epoch=NOW - 2)
    await store.insert(KEY, issued=NOW, expires=NOW + 65, now=NOW)
    await store.insert(("jkt", "ahead"), issued=NOW + 600, expires=NOW + 665, now=NOW + 600)

    assert await refused(store, now=NOW + 1) == "replay.store_reset"
    await store.insert(("jkt", "later"), issued=NOW + 1, expires=NOW + 66, now=NOW + 1)


async def test_e3_a_full_store_accepts_nothing_and_forgets_nothing() -> None:
    store = MemoryReplayCache(epoch=NOW - 2, most=1)
    await store.insert(KEY, issued=NOW, expires=NOW + 65, now=NOW)

    assert await refused(store, ("jkt", "other")) == "replay.unavailable"
    assert await refused(store) == "proof.replayed"
