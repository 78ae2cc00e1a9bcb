"""Attacks on a tool server of several processes that share a replay store: real processes, a real Redis (rows of docs/threats.md)."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from support.redis import RedisServer

from countersign.devcluster import free_ports, start
from countersign.verifier.testing import CallMaker
from countersign.wire import CALL_TOKEN_AHEAD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from countersign.devcluster import Child
    from countersign.wire import Message

TESTS = Path(__file__).parents[1]
PROCESSES = 2
SECONDS = 60


@dataclass
class Servers:
    """Processes of one audience, and calls that any of them would run once."""

    maker: CallMaker
    store: RedisServer
    directory: Path
    environment: dict[str, str]
    ports: list[int]
    children: list[Child] = field(default_factory=list)
    client: httpx.AsyncClient = field(init=False)

    def begin(self, number: int) -> Child:
        command = [sys.executable, "-m", "support.tool_server", str(self.ports[number])]
        environment = {**self.environment, "PYTHONPATH": str(TESTS)}
        return start(f"tools-{number}", command, log=self.directory / f"log-{number}", env=environment)

    async def present(self, message: Message, number: int) -> str:
        url = f"http://127.0.0.1:{self.ports[number]}{message.target}"
        try:
            answer = await self.client.post(url, content=message.body, headers=dict(message.headers))
        except httpx.TransportError:
            return "away"
        return "ok" if answer.status_code == 200 else str(answer.json()["code"])

    async def call(self, **claims: int) -> Message:
        return await self.maker.call("pay", {"amount": 1}, **claims)

    async def ran(self, number: int, **claims: int) -> Message:
        """Return a call that ran at a process; on a busy machine the store may be too late for one, which is then refused."""
        end = time.monotonic() + SECONDS
        while (code := await self.present(message := await self.call(**claims), number)) != "ok":
            assert code == "replay.unavailable"
            assert time.monotonic() < end
        return message

    async def settled(self, message: Message, number: int) -> str:
        """Present a call until the store has an answer; return the code."""
        end = time.monotonic() + SECONDS
        while (code := await self.present(message, number)) == "replay.unavailable":
            assert time.monotonic() < end
        return code

    async def until_ok(self) -> None:
        """Until every process runs calls: what a store may have forgotten is not believed for a few seconds."""
        end = time.monotonic() + SECONDS
        for number in range(PROCESSES):
            while (code := await self.present(await self.call(), number)) != "ok":
                assert time.monotonic() < end, code
                await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    directory = tmp_path_factory.mktemp("tools")
    store, maker = RedisServer(directory / "store"), CallMaker()
    (directory / "jwks.json").write_bytes(asyncio.run(maker.fetch()))
    settings = {"ISSUER": maker.issuer, "AUDIENCE": maker.audience, "JWKS_FILE": str(directory / "jwks.json")}
    settings["REPLAY_URL"] = store.url
    environment = {f"COUNTERSIGN_VERIFIER_{name}": value for name, value in settings.items()}
    found = Servers(maker, store, directory, environment, free_ports(PROCESSES))
    store.start()
    try:
        found.children = [found.begin(number) for number in range(PROCESSES)]
        yield found
    finally:
        for child in found.children:
            child.stop()
        store.stop()


@pytest.fixture
async def servers(running: Servers) -> AsyncIterator[Servers]:
    async with httpx.AsyncClient(timeout=10) as client:
        running.client = client
        await running.until_ok()
        yield running


async def test_a6_a_call_that_ran_at_one_process_is_refused_at_the_other(servers: Servers) -> None:
    message = await servers.ran(0)
    assert [await servers.settled(message, number) for number in (1, 0)] == ["proof.replayed"] * 2

    end = time.monotonic() + SECONDS
    codes: Counter[str] = Counter()
    while codes["ok"] != 1:
        assert time.monotonic() < end
        message = await servers.call()
        codes = Counter(await asyncio.gather(*(servers.present(message, number % PROCESSES) for number in range(50))))
        assert codes["ok"] <= 1
        assert set(codes) <= {"ok", "proof.replayed", "replay.unavailable"}
    assert codes["proof.replayed"] > 0


async def test_a7_a_process_that_was_restarted_knows_what_ran_at_the_others(servers: Servers) -> None:
    message, fresh = await servers.ran(0), await servers.call()
    servers.children[1].kill()
    servers.children[1] = servers.begin(1)
    end = time.monotonic() + SECONDS
    while (code := await servers.settled(message, 1)) == "away":
        assert time.monotonic() < end
        await asyncio.sleep(0.05)
    assert code in {"proof.replayed", "proof.expired"}
    # And it need not wait out its own start: the store remembers.
    assert await servers.settled(fresh, 1) in {"ok", "proof.replayed", "proof.expired"}


async def test_d13_a_store_that_may_drop_what_it_was_told_runs_no_call(servers: Servers) -> None:
    servers.store.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    servers.children[0].kill()
    servers.children[0] = servers.begin(0)
    end = time.monotonic() + SECONDS
    while (code := await servers.present(await servers.call(), 0)) == "away":
        assert time.monotonic() < end
        await asyncio.sleep(0.05)
    servers.store.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert code == "replay.unavailable"


async def test_d13_a_store_that_is_silent_or_gone_runs_no_call(servers: Servers) -> None:
    servers.store.freeze(seconds=2)
    try:
        assert await servers.present(await servers.call(), 0) == "replay.unavailable"
    finally:
        servers.store.stop()
    codes = [await servers.present(await servers.call(), number) for number in range(PROCESSES)]
    servers.store.start()
    assert codes == ["replay.unavailable"] * PROCESSES


@pytest.mark.parametrize("how", ["flush", "restart"])
async def test_a7_a_store_that_forgot_brings_no_call_to_life_again(servers: Servers, how: str) -> None:
    # As far ahead as an issuer's clock may be: believed for as much longer after the store forgot.
    now = int(servers.maker.clock.now().timestamp())
    ahead = {"iat": now + CALL_TOKEN_AHEAD, "exp": now + CALL_TOKEN_AHEAD + 30}
    used = [await servers.ran(0), await servers.ran(0, **ahead)]
    if how == "flush":
        servers.store.command("FLUSHALL")
    else:
        servers.store.stop()
        servers.store.start()
    end = time.monotonic() + SECONDS
    while await servers.present(await servers.call(), 1) != "ok":
        assert time.monotonic() < end
        codes = {await servers.present(message, number) for message in used for number in range(PROCESSES)}
        assert codes <= {"replay.store_reset", "replay.unavailable", "proof.expired"}
    codes = {await servers.present(message, number) for message in used for number in range(PROCESSES)}
    assert codes <= {"replay.store_reset", "proof.expired"}
