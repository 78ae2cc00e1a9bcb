"""The shared replay store on a real Redis: used once among many, and no belief in what it may have forgotten (A6, A7)."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.redis import RedisServer
from support.world import settings

from countersign.clock import SystemClock
from countersign.errors import CountersignError, Unavailable
from countersign.replaystore import RedisCommands
from countersign.wire import SharedReplayCache
from countersign_webhook.replay import read_nonce_key
from countersign_webhook.settings import Replay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


class Replicas:
    """Some replicas of one store; each has its own connections."""

    def __init__(self) -> None:
        self.commands: list[RedisCommands] = []

    def join(self, url: str) -> SharedReplayCache:
        self.commands.append(RedisCommands(Replay(url=url, nonce_key="unused")))
        return SharedReplayCache(self.commands[-1], SystemClock())


@pytest.fixture
async def replicas() -> AsyncIterator[Replicas]:
    made = Replicas()
    yield made
    for commands in made.commands:
        await commands.aclose()


async def code(store: SharedReplayCache, nonce: str, *, issued: int | None = None, now: int | None = None) -> str:
    """Use a nonce; return what comes of it."""
    at = int(time.time()) if now is None else now
    made = at if issued is None else issued
    try:
        await store.insert(("jkt", nonce), issued=made, expires=made + 65, now=at)
    except CountersignError as error:
        return error.code
    return "ok"


async def believed(store: SharedReplayCache) -> int:
    """Wait until the store believes what is made now; return when that was."""
    for number in range(400):
        now = int(time.time())
        if await code(store, f"probe-{number}", now=now) == "ok":
            return now
        await asyncio.sleep(0.01)
    raise AssertionError


async def test_a6_one_use_among_fifty_at_two_replicas(redis: RedisServer, replicas: Replicas) -> None:
    two = [replicas.join(redis.url), replicas.join(redis.url)]
    await believed(two[0])
    codes = await asyncio.gather(*(code(two[number % 2], "n") for number in range(50)))
    assert sorted(codes) == ["ok", *["proof.replayed"] * 49]


async def test_the_first_second_of_a_store_is_not_believed(redis: RedisServer, replicas: Replicas) -> None:
    store = replicas.join(redis.url)
    assert await code(store, "n") == "replay.store_reset"


@pytest.mark.parametrize("how", ["flush", "restart"])
async def test_a7_a_store_that_forgot_believes_nothing_from_before(
    redis: RedisServer, replicas: Replicas, how: str
) -> None:
    store, other = replicas.join(redis.url), replicas.join(redis.url)
    now = await believed(store)
    assert await code(store, "n", issued=now) == "ok"
    if how == "flush":
        redis.command("FLUSHALL")
    else:
        redis.stop()
        assert await code(store, "n", issued=now) == "replay.unavailable"
        redis.start()
    assert await code(other, "n", issued=now) == "replay.store_reset"
    assert await code(store, "n", issued=now) == "replay.store_reset"
    await believed(other)
    assert await code(other, "n", issued=now) == "replay.store_reset"


async def test_a7_failover_to_a_copy_without_its_end_believes_nothing_from_before(
    redis: RedisServer, replicas: Replicas, tmp_path: Path
) -> None:
    """The copy has the epoch and the first use, and lacks the last one: its other run id says so."""
    copy = RedisServer(tmp_path / "copy", "--replicaof", "no", "one")
    copy.start()
    try:
        store = replicas.join(redis.url)
        now = await believed(store)
        for key in (b"run", b"epoch", b"seen"):
            value = redis.command("HGET", "countersign:{replay}:epoch", key.decode()).split(b"\r\n")[1]
            copy.command("HSET", "countersign:{replay}:epoch", key.decode(), value.decode())
        assert await code(store, "last", issued=now) == "ok"
        assert await code(replicas.join(copy.url), "last", issued=now) == "replay.store_reset"
    finally:
        copy.stop()


async def test_a7_a_replica_that_meets_another_server_believes_nothing_from_before(
    redis: RedisServer, replicas: Replicas, tmp_path: Path
) -> None:
    """Back at the first server, whose epoch is old and right for it: what was used at the second one is not known there."""
    second = RedisServer(tmp_path / "second")
    second.start()
    try:
        first_commands, second_commands = RedisCommands(_of(redis)), RedisCommands(_of(second))
        switch = _Switch(first_commands)
        replicas.commands += [first_commands, second_commands]
        store = SharedReplayCache(switch, SystemClock())
        await believed(store)
        switch.to = second_commands
        now = await believed(store)
        assert await code(store, "n", issued=now) == "ok"
        switch.to = first_commands
        assert await code(store, "n", issued=now) == "replay.store_reset"
    finally:
        second.stop()


def _of(server: RedisServer) -> Replay:
    return Replay(url=server.url, nonce_key="unused")


class _Switch:
    """An address behind which another server may stand."""

    def __init__(self, to: RedisCommands) -> None:
        self.to = to

    async def run(self, keys: Any, arguments: Any) -> tuple[str, str, int]:
        return await self.to.run(keys, arguments)

    async def memory(self) -> Any:
        return await self.to.memory()


async def test_a_store_whose_clock_went_back_begins_anew(redis: RedisServer, replicas: Replicas) -> None:
    store = replicas.join(redis.url)
    now = await believed(store)
    assert await code(store, "n", issued=now) == "ok"
    redis.command("HSET", "countersign:{replay}:epoch", "seen", str(now + 100))
    assert await code(store, "m", issued=now) == "replay.store_reset"


async def test_a_nonce_that_is_early_by_little_waits_and_by_much_is_refused(
    redis: RedisServer, replicas: Replicas
) -> None:
    store = replicas.join(redis.url)
    await believed(store)
    assert await code(store, "far", issued=int(time.time()) + 3) == "replay.unavailable"
    await asyncio.sleep(max(0.0, 0.85 - time.time() % 1))
    assert await code(store, "near", issued=int(time.time()) + 1) == "ok"


@pytest.mark.parametrize("seconds", [-6, 6])
async def test_a10_a_replica_whose_clock_is_wrong_refuses(redis: RedisServer, replicas: Replicas, seconds: int) -> None:
    store = replicas.join(redis.url)
    now = await believed(store)
    assert await code(store, "n", issued=now, now=int(time.time()) + seconds) == "replay.unavailable"


async def test_a_use_is_kept_as_long_as_any_replica_may_believe_the_nonce(
    redis: RedisServer, replicas: Replicas
) -> None:
    store = replicas.join(redis.url)
    now = await believed(store)
    assert await code(store, "n", issued=now) == "ok"
    life = redis.command("TTL", "countersign:{replay}:jkt:n")
    assert 64 <= int(life[1:]) <= 66


async def test_a_store_that_is_silent_is_not_waited_for(redis: RedisServer, replicas: Replicas) -> None:
    store = replicas.join(redis.url)
    now = await believed(store)
    redis.freeze(seconds=3)
    began = time.monotonic()
    assert await code(store, "n", issued=now) == "replay.unavailable"
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--maxmemory-policy", "allkeys-lru"), "evicts"),
        (("--requirepass", "secret"), "does not answer"),
        (("--rename-command", "INFO", ""), "does not answer"),
    ],
)
async def test_a_store_that_would_forget_or_does_not_let_us_in_refuses(
    tmp_path: Path, replicas: Replicas, options: tuple[str, ...], words: str
) -> None:
    server = RedisServer(tmp_path / "other", *options)
    server._answers = server.socket.exists  # type: ignore[method-assign] # one without a password says no to PING
    server.start()
    try:
        store = replicas.join(server.url)
        with pytest.raises(Unavailable, match=words):
            await store.insert(("jkt", "n"), issued=1, expires=66, now=1)
    finally:
        server.stop()


async def test_a_full_store_refuses_and_forgets_nothing(redis: RedisServer, replicas: Replicas) -> None:
    store = replicas.join(redis.url)
    now = await believed(store)
    assert await code(store, "n", issued=now) == "ok"
    redis.command("CONFIG", "SET", "maxmemory", "1")
    assert await code(store, "m", issued=now) == "replay.unavailable"
    redis.command("CONFIG", "SET", "maxmemory", "64mb")
    assert await code(store, "n", issued=now) == "proof.replayed"


async def test_a_password_is_read_from_a_file(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "locked", "--requirepass", "s3cret")
    server._answers = server.socket.exists  # type: ignore[method-assign] # one without a password says no to PING
    server.start()
    (tmp_path / "password").write_text("s3cret\n")
    commands = RedisCommands(Replay(url=server.url, nonce_key="unused", password=tmp_path / "password"))
    try:
        assert await believed(SharedReplayCache(commands, SystemClock()))
    finally:
        await commands.aclose()
        server.stop()


@pytest.mark.parametrize(
    "replay",
    [
        {"url": "unix:///s"},
        {"nonce_key": "/k"},
        {"url": "", "nonce_key": "/k"},
        {"url": "redis://user:secret@host:1", "nonce_key": "/k"},
        {"url": "redis://host:1?db=1", "nonce_key": "/k"},
        {"url": "http://host", "nonce_key": "/k"},
        {"url": "redis://host", "nonce_key": "/k", "ca": "/ca"},
        {"url": "redis://host", "nonce_key": "/k", "more": 1},
    ],
    ids=str,
)
def test_a7_a_shared_key_and_a_shared_store_go_together(tmp_path: Path, replay: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="replay"):
        settings(tmp_path, replay=replay)


def test_the_key_is_a_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(bytes(31))
    with pytest.raises(Unavailable):
        read_nonce_key(tmp_path / "key")
    (tmp_path / "key").write_bytes(bytes(32))
    assert len(read_nonce_key(tmp_path / "key")) == 32
