"""Kill -9 of the real webhook process under calls over TLS, beside a real API server, at a random moment, again and again.

After each: every token that an agent got has its record on disk, nothing that was accepted is accepted again, and the chain of
all logs is whole. The store of what was used is the process's own, or a Redis that outlives it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import httpx
import yaml
from support.redis import RedisServer
from support.soak.progress import Progress
from support.world import FORM, details, form
from webhook.test_plane import COUNTERSIGN, HOST, Agent, Running, configure

from countersign.audit import verify_log
from countersign.audit.lines import read_lines
from countersign.devcluster import LocalCA, Plane, free_ports, start
from countersign.wire import Message, chain_header, sign_request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Callers", "Door", "Kills", "kill_again_and_again", "recorded"]

CALLERS = 8
READY_SECONDS = 60.0
REFUSED = {"proof.replayed", "replay.store_reset", "nonce.invalid", "nonce.expired", "proof.expired"}
"""What a request may come to that was accepted before."""


@dataclass
class Kills:
    """What came of it. ``seen`` are the tokens that agents got, by decision; ``wrong`` is empty if all is well."""

    progress: Progress
    wrong: list[str] = field(default_factory=list)
    tokens: int = 0
    again: Counter[str] = field(default_factory=Counter)
    torn: int = 0
    unanswered: int = 0


class Door:
    """The process, ended as a crash ends it and begun again over the same log."""

    def __init__(self, plane: Plane, directory: Path, store: RedisServer | None) -> None:
        """Write its settings; nothing runs yet."""
        self.directory, self.ca, self.plane = directory, LocalCA("serving"), plane
        self.ports = dict(zip(("admission", "calls", "health"), free_ports(3), strict=True))
        self.config = configure(directory, plane, self.ca, self.ports)
        settings = yaml.safe_load(self.config.read_text())
        settings["limits"] = {
            "instance_rate": 1e6,
            "instance_burst": 10**6,
            "address_rate": 1e6,
            "address_burst": 10**6,
        }
        settings["audit"]["segment_bytes"] = 256 * 1024
        if store is not None:
            (directory / "nonce-key").write_bytes(secrets.token_bytes(32))
            settings["replay"] = {"url": store.url, "nonce_key": str(directory / "nonce-key")}
        self.config.write_text(yaml.safe_dump(settings))
        self.running: Running | None = None

    def begin(self, *before: str) -> Running:
        """Start the process and wait until it says that it is ready; ``before`` are words of a program that starts it."""
        command = [*before, str(COUNTERSIGN), "webhook", "--config", str(self.config)]
        child = start("webhook", command, log=self.directory / "webhook.log")
        self.running = Running(self.plane, child, self.ca, self.directory, self.ports)
        end = time.monotonic() + READY_SECONDS
        while self.running.health("/readyz") != 200:
            if time.monotonic() > end or not child.alive:
                raise RuntimeError(f"the webhook is not ready: {child.tail()}")
            time.sleep(0.02)
        return self.running

    def kill(self) -> None:
        """End it with SIGKILL, if it runs."""
        if self.running is not None:
            self.running.child.kill()


class Callers:
    """An agent that calls without end over its own connections, and remembers what it got for what."""

    def __init__(self, door: Door, agent: Agent) -> None:
        """Call nothing yet."""
        self.door, self.agent = door, agent
        leaf = agent.ca.leaf(agent.key.public_key, f"spiffe://{agent.domain}/ns/{agent.namespace}/sa/agent")
        self.chain = chain_header([leaf])
        self.issuer = f"https://{HOST}:{door.ports['calls']}"
        self.accepted: list[tuple[Message, str]] = []
        self.unanswered = 0
        self.wrong: list[str] = []

    async def run(self, seconds: float) -> None:
        """Call from several sides; after ``seconds`` the process is killed in the middle of it."""
        tasks = [asyncio.create_task(self._call_on()) for _ in range(CALLERS)]
        await asyncio.sleep(seconds)
        self.door.kill()
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                self.wrong.append(repr(result))

    async def _call_on(self) -> None:
        tls = ssl.create_default_context(cadata=self.door.ca.pem.decode())
        async with httpx.AsyncClient(verify=tls, timeout=10) as client:
            nonce = ""
            while True:
                try:
                    nonce = nonce or await self.nonce(client)
                    message = await self.message(nonce, hopeless=secrets.randbelow(5) == 0)
                    self.unanswered += 1
                    code, document, nonce = await self.send(client, message)
                except httpx.TransportError:
                    return
                self.unanswered -= 1
                if code == "ok":
                    self.accepted.append((message, document["decision"]))
                    if b"create_refund" in message.body:
                        self.wrong.append("a tool that no rule names was allowed")

    async def nonce(self, client: httpx.AsyncClient) -> str:
        """Ask for a nonce of the agent's key."""
        answer = await client.get(f"{self.issuer}/nonce", params={"jkt": self.agent.key.jkt})
        return str(answer.json()["nonces"][0])

    async def message(self, nonce: str, *, hopeless: bool) -> Message:
        """Return a signed request, for the tool that a rule allows or for one that none names."""
        body = form(details("create_refund" if hopeless else "get_charge"), resource=self.agent.audience)
        headers = (("content-type", FORM), ("countersign-chain", self.chain))
        return await sign_request(
            Message("POST", "/token", headers, body),
            self.agent.key,
            audience=f"{self.issuer}/token",
            nonce=nonce,
            created=int(time.time()),
        )

    async def send(self, client: httpx.AsyncClient, message: Message) -> tuple[str, dict[str, Any], str]:
        """Send a request; return the code, the document and the nonce that came with it."""
        answer = await client.post(f"{self.issuer}/token", content=message.body, headers=dict(message.headers))
        document = answer.json()
        code = "ok" if "access_token" in document else str(document["code"])
        return code, document, answer.headers.get("countersign-nonce", "")

    async def again(self, messages: list[Message]) -> Counter[str]:
        """Send what was accepted once more."""
        tls = ssl.create_default_context(cadata=self.door.ca.pem.decode())
        async with httpx.AsyncClient(verify=tls, timeout=10) as client:
            return Counter([(await self.send(client, message))[0] for message in messages])

    async def until_allowed(self) -> None:
        """Wait until calls are allowed: what a store may have forgotten is not believed for a second."""
        tls = ssl.create_default_context(cadata=self.door.ca.pem.decode())
        end = time.monotonic() + READY_SECONDS
        async with httpx.AsyncClient(verify=tls, timeout=10) as client:
            while True:
                message = await self.message(await self.nonce(client), hopeless=False)
                code, document, _ = await self.send(client, message)
                if code == "ok":
                    self.accepted.append((message, document["decision"]))
                    return
                if time.monotonic() > end:
                    raise RuntimeError(f"no call is allowed: {code}")
                await asyncio.sleep(0.05)


def recorded(directory: Path) -> set[str]:
    """Return the decisions of a yes that are on disk, in whole lines."""
    found = set()
    for path in directory.glob("*.jsonl"):
        for line in read_lines([path]):
            record = json.loads(line.data or b"{}") if not line.torn else {}
            if record.get("status_code") == "policy.allowed":
                found.add(record["metadata"]["uid"])
    return found


@contextmanager
def _store(directory: Path, *, shared: bool) -> Iterator[RedisServer | None]:
    if not shared:
        yield None
        return
    server = RedisServer(directory / "store")
    server.start()
    try:
        yield server
    finally:
        server.stop()


def kill_again_and_again(
    plane: Plane, directory: Path, namespace: str, *, count: int, seed: str, shared: bool, quiet: bool = False
) -> Kills:
    """Kill and begin again ``count`` times, with calls all the while; ``seed`` chooses the moments."""
    rng = Random(f"{seed}:{shared}")
    kills = Kills(Progress(f"kills, {'Redis' if shared else 'own store'}", count, quiet=quiet))
    with _store(directory, shared=shared) as store:
        door = Door(plane, directory, store)
        try:
            agent = Agent(door.begin(), namespace)
            agent.make()
            asyncio.run(_rounds(door, Callers(door, agent), kills, count, rng))
        finally:
            door.kill()
    return kills


async def _rounds(door: Door, callers: Callers, kills: Kills, count: int, rng: Random) -> None:
    audit = door.directory / "audit"
    for _ in range(count):
        await callers.until_allowed()
        await callers.run(rng.uniform(0.0, 1.5))
        accepted, callers.accepted = callers.accepted, []
        missing = {decision for _message, decision in accepted} - recorded(audit)
        kills.wrong += [f"a token without a record: {decision}" for decision in missing]
        last = max(audit.glob("*.jsonl"), key=lambda one: one.stat().st_mtime_ns)
        kills.torn += not last.read_bytes().endswith(b"\n")
        door.begin()
        codes = await callers.again([message for message, _decision in accepted[-200:]])
        kills.wrong += [f"what was accepted came to {code} again" for code in codes.keys() - REFUSED]
        # The new log follows the one that was cut off, also where it ends in half a line.
        kills.wrong += [str(fault) for fault in verify_log([audit]).faults]
        kills.wrong += callers.wrong
        kills.tokens += len(accepted)
        kills.again += codes
        kills.unanswered, callers.wrong = kills.unanswered + callers.unanswered, []
        callers.unanswered = 0
        kills.progress.step()
        if kills.wrong:
            return
