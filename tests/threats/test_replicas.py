"""Attacks on several front doors that act as one: real processes, one real API server, one real Redis (rows of docs/threats.md)."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import shutil
import ssl
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from support.redis import RedisServer
from support.world import FORM, SoftwareKey, details, form
from webhook.test_plane import COUNTERSIGN, HOST, Agent, Running, apply, configure, ours, until

from countersign.audit import verify_log
from countersign.devcluster import LocalCA, Plane, free_ports, start
from countersign.wire import Message, Nonces, chain_header, sign_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.plane

REPLICAS = 3
STALE_SECONDS = 16


@dataclass
class Store:
    """A store at a fixed address, behind which another server may be put."""

    directory: Path
    server: RedisServer
    standby: RedisServer
    port: str

    @property
    def url(self) -> str:
        return f"unix://{self.directory / 'address'}"

    def lead_to(self, server: RedisServer) -> None:
        fresh = self.directory / "next"
        fresh.symlink_to(server.socket)
        fresh.rename(self.directory / "address")

    def fail_over(self) -> None:
        """Kill the primary and promote its copy, as a sentinel does."""
        self.server.stop()
        self.standby.command("REPLICAOF", "NO", "ONE")
        self.lead_to(self.standby)
        self.server, self.standby = self.standby, self.server
        self.standby.start()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    directory = tmp_path_factory.mktemp("store")
    port = str(free_ports(1)[0])
    server = RedisServer(directory / "one", "--port", port, "--bind", HOST)
    server.start()
    standby = RedisServer(directory / "two", "--replicaof", HOST, port)
    standby.start()
    until(lambda: b"master_link_status:up" in standby.command("INFO", "replication"), "the copy does not follow")
    found = Store(directory, server, standby, port)
    found.lead_to(server)
    yield found
    found.server.stop()
    found.standby.stop()


@dataclass
class Fleet:
    """The replicas: one issuer, one store, one key K; a port, a directory and a log each."""

    plane: Plane
    ca: LocalCA
    key: bytes
    store: Store
    configs: list[Path]
    running: list[Running] = field(default_factory=list)

    @property
    def issuer(self) -> str:
        return f"https://{HOST}:{self.running[0].ports['calls']}"

    def begin(self, number: int) -> Running:
        config = self.configs[number]
        read = yaml.safe_load(config.read_text())
        ports = {name: read[name]["port"] for name in ("admission", "calls", "health")}
        command = [str(COUNTERSIGN), "webhook", "--config", str(config)]
        child = start(f"webhook-{number}", command, log=config.parent / f"log-{secrets.token_hex(3)}")
        return Running(self.plane, child, self.ca, config.parent, ports)

    async def restart(self, number: int) -> None:
        """End a replica as a crash does, and begin it again; what else goes on here goes on."""
        self.running[number].child.kill()
        self.running[number] = self.begin(number)
        ready = self.running[number]
        await asyncio.to_thread(until, lambda: ready.health("/readyz") == 200, "a replica is not ready")

    def logs(self) -> str:
        return "".join(path.read_text() for config in self.configs for path in config.parent.glob("log-*"))


@pytest.fixture(scope="module")
def fleet(crds: Plane, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    ca, root = LocalCA("serving"), tmp_path_factory.mktemp("fleet")
    key = secrets.token_bytes(32)
    (root / "nonce-key").write_bytes(key)
    configs, issuer = [], ""
    for number in range(REPLICAS):
        directory = root / str(number)
        directory.mkdir()
        ports = dict(zip(("admission", "calls", "health"), free_ports(3), strict=True))
        config = configure(directory, crds, ca, ports)
        if number:
            shutil.copytree(root / "0" / "keys", directory / "keys", dirs_exist_ok=True)
        settings = yaml.safe_load(config.read_text())
        issuer = issuer or settings["issuer"]
        more = {
            "issuer": issuer,
            "replay": {"url": store.url, "nonce_key": str(root / "nonce-key")},
            "decide": {"max_staleness_seconds": STALE_SECONDS},
            "limits": {"instance_rate": 100000, "instance_burst": 100000, "address_rate": 1e5, "address_burst": 100000},
        }
        config.write_text(yaml.safe_dump({**settings, **more}))
        configs.append(config)
    found = Fleet(crds, ca, key, store, configs)
    try:
        found.running = [found.begin(number) for number in range(REPLICAS)]
        for one in found.running:
            until(lambda one=one: one.health("/readyz") == 200, "a replica is not ready")  # type: ignore[misc]
        yield found
    finally:
        for one in found.running:
            one.child.stop()


class Caller(Agent):
    """An agent whose signed requests go to any replica, as often as somebody likes."""

    def __init__(self, fleet: Fleet, namespace: str) -> None:
        super().__init__(fleet.running[0], namespace)
        self.fleet = fleet
        tls = ssl.create_default_context(cadata=fleet.ca.pem.decode())
        self.client = httpx.AsyncClient(verify=tls, timeout=5)

    async def request(
        self, *, tool: str = "get_charge", nonce: str | None = None, arguments: Any = None, **more: Any
    ) -> Message:
        key = more.pop("key", self.key)
        created = int(time.time()) + more.pop("later", 0)
        fresh = Nonces(self.fleet.key).make(key.jkt, int(time.time()))
        leaf = self.ca.leaf(key.public_key, f"spiffe://{self.domain}/ns/{self.namespace}/sa/agent")
        body = form(details(tool, arguments), resource=more.pop("audience", self.audience))
        headers = [("content-type", FORM), ("countersign-chain", chain_header([leaf]))]
        return await sign_request(
            Message.build("POST", "/token", headers, body),
            key,
            audience=f"{self.fleet.issuer}/token",
            nonce=nonce or fresh,
            created=created,
        )

    async def present(self, message: Message, replica: int) -> str:
        url = f"https://{HOST}:{self.fleet.running[replica].ports['calls']}/token"
        try:
            answer = await self.client.post(url, content=message.body, headers=dict(message.headers))
        except httpx.TransportError:
            return "away"
        return "ok" if "access_token" in answer.text else str(answer.json()["code"])

    async def everywhere(self, message: Message) -> list[str]:
        return [await self.present(message, number) for number in range(REPLICAS)]

    async def again(self, messages: list[Message]) -> Counter[str]:
        """Present each at every replica; return how often which code came."""
        return Counter([code for one in messages for code in await self.everywhere(one)])

    async def until_everywhere(self, *codes: str, seconds: float, **more: Any) -> None:
        end = time.monotonic() + seconds
        for number in range(REPLICAS):
            while (code := await self.present(await self.request(**more), number)) not in codes:
                assert time.monotonic() < end, code


@pytest.fixture
async def caller(fleet: Fleet, namespace: str) -> AsyncIterator[Caller]:
    made = Caller(fleet, namespace)
    await asyncio.to_thread(made.make)
    await made.until_everywhere("ok", seconds=10)
    yield made
    await made.client.aclose()


async def test_a6_one_of_fifty_copies_at_three_replicas_gets_a_token(caller: Caller) -> None:
    message = await caller.request()
    codes = Counter(await asyncio.gather(*(caller.present(message, number % REPLICAS) for number in range(50))))
    assert codes == {"ok": 1, "proof.replayed": 49}


async def test_a7_a_restarted_replica_remembers_what_others_saw(fleet: Fleet, caller: Caller) -> None:
    message = await caller.request()
    assert await caller.present(message, 0) == "ok"
    await fleet.restart(1)
    assert await caller.everywhere(message) == ["proof.replayed"] * REPLICAS


class Load:
    """Calls without end, some of them hopeless; remembers what was accepted, by its very bytes."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.accepted: list[Message] = []
        self.codes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.twice: list[str] = []
        self._tasks = [asyncio.create_task(self._run(number)) for number in range(6)]

    async def _run(self, number: int) -> None:
        while True:
            hopeless = number == 0
            message = await self.caller.request(tool="create_refund" if hopeless else "get_charge")
            code = await self.caller.present(message, secrets.randbelow(REPLICAS))
            self.codes[code] += 1
            if code == "ok":
                if hopeless:
                    self.wrong.append(code)
                self.accepted.append(message)
                # The attacker is at once at another replica.
                again = await self.caller.present(message, secrets.randbelow(REPLICAS))
                self.twice += ["ok"] if again == "ok" else []

    async def wait(self, count: int) -> None:
        """Until ``count`` more calls were allowed: so the store is believed again."""
        goal, end = self.codes["ok"] + count, time.monotonic() + 30
        while self.codes["ok"] < goal:
            assert time.monotonic() < end, self.codes
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.mark.parametrize("event", ["flush", "restart", "failover", "roll"])
async def test_a7_no_replay_and_no_wrong_decision_while_things_break(fleet: Fleet, caller: Caller, event: str) -> None:
    load = Load(caller)
    try:
        await load.wait(20)
        before = load.accepted[-60:]
        if event == "flush":
            fleet.store.server.command("FLUSHALL")
        elif event == "restart":
            fleet.store.server.stop()
            fleet.store.server.start()
        elif event == "failover":
            await asyncio.to_thread(fleet.store.fail_over)
        else:
            for number in range(REPLICAS):
                await fleet.restart(number)
        codes = await caller.again(before)
        await load.wait(20)
        again = await caller.again(before)
    finally:
        await load.stop()
    print(event, len(before), "sent again:", dict(codes), dict(again), "load:", dict(load.codes))  # noqa: T201 - shown with -s
    assert (load.wrong, load.twice) == ([], [])
    assert "ok" not in codes | again, (codes, again)
    refused = {"proof.replayed", "replay.store_reset", "replay.unavailable", "proof.expired", "nonce.expired"}
    assert set(codes) | set(again) <= refused
    assert load.codes.keys() <= refused | {"ok", "tool.unknown", "away", "decide.unavailable"}


async def test_a8_a_proof_made_ahead_or_long_ago_is_refused_at_every_replica(fleet: Fleet, caller: Caller) -> None:
    old = Nonces(fleet.key).make(caller.key.jkt, int(time.time()) - 61)
    assert await caller.everywhere(await caller.request(nonce=old)) == ["nonce.expired"] * REPLICAS
    assert await caller.everywhere(await caller.request(later=6)) == ["proof.future"] * REPLICAS


async def test_a9_a_nonce_is_for_one_key_one_use_and_cannot_be_guessed(fleet: Fleet, caller: Caller) -> None:
    other = SoftwareKey()
    message = await caller.request(nonce=Nonces(fleet.key).make(other.jkt, int(time.time())))
    assert await caller.everywhere(message) == ["nonce.invalid"] * REPLICAS

    nonce = fleet.running[1].get(f"/nonce?jkt={caller.key.jkt}")["nonces"][0]
    assert await caller.present(await caller.request(nonce=nonce), 0) == "ok"
    second = await caller.request(nonce=nonce, arguments={"charge": "ch_2"})
    assert await caller.everywhere(second) == ["proof.replayed"] * REPLICAS

    made = [
        base64.urlsafe_b64decode(nonce + "=" * (-len(nonce) % 4))
        for one in fleet.running
        for _ in range(16)
        for nonce in one.get(f"/nonce?jkt={caller.key.jkt}&count=16")["nonces"]
    ]
    random = [one[5:17] for one in made]
    assert len(set(random)) == len(made) == 16 * 16 * REPLICAS
    ones = sum(byte.bit_count() for one in random for byte in one) / (96 * len(random))
    assert 0.48 < ones < 0.52


async def test_c11_the_same_names_in_two_namespaces_are_strangers(fleet: Fleet, caller: Caller, crds: Plane) -> None:
    name = f"test-{secrets.token_hex(6)}"
    crds.kubectl("create", "namespace", name)
    tenant = Caller(fleet, name)
    await asyncio.to_thread(tenant.make)
    await tenant.until_everywhere("ok", seconds=10)
    rule = {"name": "foreign", "effect": "Allow", "tools": [{"server": {"name": "mcp", "namespace": caller.namespace}}]}
    apply(crds, ours("ToolPolicy", "foreign", {"rules": [rule]}, name))
    with_foreign = await tenant.everywhere(await tenant.request(audience=caller.audience))
    assert set(with_foreign) <= {"tool.server_not_exposed", "proof.replayed"}
    assert with_foreign[0] == "tool.server_not_exposed"
    # The other tenant's CA vouches for nobody here, and its key is nobody's there.
    assert await caller.everywhere(await caller.request(key=tenant.key)) == [
        "instance.mismatch",
        *["proof.replayed"] * 2,
    ]
    crds.kubectl("delete", "toolpolicy", "rules", "-n", name)
    await tenant.until_everywhere("policy.default_deny", "tool.server_not_exposed", seconds=2)
    assert await caller.present(await caller.request(), 0) == "ok"
    await tenant.client.aclose()


def records(fleet: Fleet, namespace: str) -> list[dict[str, Any]]:
    found = []
    for config in fleet.configs:
        for path in (config.parent / "audit").glob("*.jsonl"):
            found += [json.loads(line) for line in path.read_bytes().splitlines() if namespace.encode() in line]
    return found


async def test_d11_an_agent_cannot_change_policy_and_each_record_names_the_rules(fleet: Fleet, caller: Caller) -> None:
    who = f"system:serviceaccount:{caller.namespace}:agent"
    for verb in ("create", "update", "patch", "delete"):
        for kind in ("toolpolicies", "clustertoolpolicies", "toolservers", "devices"):
            words = ["auth", "can-i", verb, kind, "--as", who, "-n", caller.namespace]
            assert fleet.plane.kubectl(*words, check=False).split()[-1:] == ["no"], (verb, kind)

    rule = {"name": "stop", "effect": "Deny", "tools": [{"server": {"name": "mcp"}}]}
    apply(fleet.plane, ours("ToolPolicy", "stop", {"rules": [rule]}, caller.namespace))
    await caller.until_everywhere("policy.denied", seconds=2)

    of = {"policy.allowed": set(), "policy.denied": set()}
    for record in records(fleet, caller.namespace):
        if record["status_code"] in of:
            of[record["status_code"]].add(record["unmapped"]["countersign"]["rule_set"])
    assert of["policy.allowed"]
    assert len(of["policy.denied"]) == 1  # the same rules at all three
    assert not of["policy.allowed"] & of["policy.denied"]


class Wire:
    """A connection to the API server that can be cut: a relay in front of it."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def lay(self) -> int:
        self._server = await asyncio.start_server(self._relay, HOST, 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._to)
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pipe(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        finally:
            sink.close()


async def test_d12_a_replica_that_is_cut_off_denies_and_the_others_go_on(
    fleet: Fleet, caller: Caller, tmp_path: Path
) -> None:
    read = yaml.safe_load(fleet.plane.admin_kubeconfig.read_text())
    server = httpx.URL(read["clusters"][0]["cluster"]["server"])
    wire = Wire(str(server.host), int(server.port or 443))
    read["clusters"][0]["cluster"]["server"] = f"https://{HOST}:{await wire.lay()}"
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(read))
    config, kept = fleet.configs[2], fleet.configs[2].read_text()
    config.write_text(yaml.safe_dump({**yaml.safe_load(kept), "kubeconfig": str(tmp_path / "kubeconfig")}))
    try:
        await fleet.restart(2)
        assert await caller.present(await caller.request(), 2) == "ok"
        await wire.cut()
        rule = {"name": "stop", "effect": "Deny", "tools": [{"server": {"name": "mcp"}}]}
        apply(fleet.plane, ours("ToolPolicy", "stop", {"rules": [rule]}, caller.namespace))
        end = time.monotonic() + STALE_SECONDS + 4
        while (code := await caller.present(await caller.request(), 2)) == "ok":
            assert time.monotonic() < end, "stale facts still decide"
            await asyncio.sleep(0.1)
        assert code == "decide.unavailable"
        assert [await caller.present(await caller.request(), number) for number in (0, 1)] == ["policy.denied"] * 2
    finally:
        config.write_text(kept)
        await fleet.restart(2)


async def test_d13_a_dead_replica_is_a_no_and_the_others_go_on(fleet: Fleet, caller: Caller) -> None:
    fleet.running[2].child.stop()
    try:
        codes = [await caller.present(await caller.request(), number) for number in range(REPLICAS)]
        assert codes == ["ok", "ok", "away"]
    finally:
        await fleet.restart(2)


async def test_d13_a_store_that_is_silent_is_a_no_in_bounded_time(fleet: Fleet, caller: Caller) -> None:
    fleet.store.server.freeze(seconds=2)
    began = time.monotonic()
    assert await caller.present(await caller.request(), 0) == "replay.unavailable"
    assert time.monotonic() - began < 1.5
    await caller.until_everywhere("ok", seconds=10)


async def test_d14_a_revocation_is_felt_at_every_replica_at_once(fleet: Fleet, caller: Caller) -> None:
    patch = '{"spec":{"state":"Revoked"}}'
    fleet.plane.kubectl("patch", "agentinstance", "agent-1", "-n", caller.namespace, "--type=merge", "-p", patch)
    await caller.until_everywhere("instance.revoked", seconds=2)


async def test_e1_a_replica_whose_log_is_gone_denies_and_an_edit_is_found(fleet: Fleet, caller: Caller) -> None:
    audit = fleet.configs[2].parent / "audit"
    shutil.copytree(audit, audit.with_name("copy"))
    shutil.rmtree(audit)
    try:
        assert await caller.present(await caller.request(), 2) == "audit.unavailable"
        assert await caller.present(await caller.request(), 2) == "audit.unavailable"
        assert await caller.present(await caller.request(), 0) == "ok"
    finally:
        await fleet.restart(2)
    copy = audit.with_name("copy")
    path = max(copy.glob("*.jsonl"), key=lambda one: one.stat().st_size)
    assert not [fault for fault in verify_log([path]).faults if fault.line is not None]
    path.write_bytes(path.read_bytes().replace(b"get_charge", b"get_chargf", 1))
    assert [fault for fault in verify_log([path]).faults if fault.line is not None]


async def test_e2_a_secret_in_the_arguments_is_nowhere_but_where_the_owner_lists_it(
    fleet: Fleet, caller: Caller
) -> None:
    tool = {
        "name": "get_charge",
        "access": "ReadOnly",
        "inputSchema": {"type": "object"},
        "recordArguments": ["/charge"],
    }
    spec = {"audience": caller.audience, "protocol": "MCP", "tools": [tool]}
    apply(fleet.plane, ours("ToolServer", "mcp", spec, caller.namespace))
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    found = fleet.plane.get("toolserver", "mcp", "-n", caller.namespace)
    accepted = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": now}
    accepted["observedGeneration"] = found["metadata"]["generation"]
    caller.status("toolserver", "mcp", {"conditions": [accepted]})
    await caller.until_everywhere("ok", seconds=5)
    canary, shown = f"canary-{secrets.token_hex(8)}", f"ch_{secrets.token_hex(4)}"
    arguments = {"charge": shown, "card": canary, "deep": {"charge": canary}}
    for number in range(REPLICAS):
        assert await caller.present(await caller.request(arguments=arguments), number) == "ok"
    lines = records(fleet, caller.namespace)
    assert canary not in json.dumps(lines)
    kept = [one["unmapped"]["countersign"].get("recorded_arguments") for one in lines]
    assert [one for one in kept if one == {"/charge": shown}] == [{"/charge": shown}] * REPLICAS
    assert canary not in fleet.logs()
    for one in fleet.running:
        metrics = await caller.client.get(f"http://{HOST}:{one.ports['health']}/metrics")
        assert "policy.allowed" not in metrics.text or canary not in metrics.text
        assert canary not in metrics.text


def test_a7_a_replica_with_the_shared_key_and_its_own_store_does_not_start(fleet: Fleet, tmp_path: Path) -> None:
    read = yaml.safe_load(fleet.configs[0].read_text())
    del read["replay"]["url"]
    (tmp_path / "webhook.yaml").write_text(yaml.safe_dump(read))
    command = [str(COUNTERSIGN), "webhook", "--config", str(tmp_path / "webhook.yaml")]
    child = start("webhook", command, log=tmp_path / "log")
    until(lambda: not child.alive, "it runs")
    assert "replay.url" in (tmp_path / "log").read_text()
