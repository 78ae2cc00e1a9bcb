"""Several processes on the same ports act as one: one use of a request, one health port, an end together."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support.redis import RedisServer
from support.world import FORM, details, form, settings
from typer.testing import CliRunner
from webhook.test_plane import COUNTERSIGN, HOST, Agent, Running, configure, until

from countersign.audit.main import command as audit_command
from countersign.devcluster import LocalCA, Plane, free_ports, start
from countersign.wire import Message, Nonces, chain_header, sign_request
from countersign_webhook.serving import reserve
from countersign_webhook.workers_health import merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Begin = Callable[[], Running]

COUNT = 2
KEY = secrets.token_bytes(32)


def test_several_workers_without_a_store_that_they_share_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="several workers need a replay store that they share"):
        settings(tmp_path, workers=2)

    shared = {"url": "unix:///s", "nonce_key": tmp_path / "key"}
    assert settings(tmp_path, workers=2, replay=shared).workers == 2
    assert settings(tmp_path).workers == 1


@pytest.mark.parametrize("workers", [0, 65])
def test_the_number_of_workers_is_bounded(tmp_path: Path, workers: int) -> None:
    with pytest.raises(ValueError, match="workers"):
        settings(tmp_path, workers=workers, replay={"url": "unix:///s", "nonce_key": tmp_path / "key"})


def test_a_port_that_another_process_has_is_not_shared_with_it() -> None:
    kept = reserve(HOST, 0)
    again = reserve(HOST, kept.getsockname()[1])
    kept.close()
    again.close()
    [taken] = free_ports(1)
    other = socket.create_server((HOST, taken))
    try:
        with pytest.raises(OSError, match="in use"):
            reserve(HOST, taken)
    finally:
        other.close()


TEXT = """\
# HELP x_total What is counted.
# TYPE x_total counter
x_total{code="ok"} %d
# HELP y Seconds.
# TYPE y histogram
y_bucket{le="1.0"} 1.0
y_bucket{le="+Inf"} 2.0
y_count 2.0
y_sum 3.5
"""


def test_the_metrics_of_all_workers_are_one_text() -> None:
    text = merged({"0": TEXT % 3, "1": TEXT % 4, "2": None}).decode()

    found = {
        (sample.name, sample.labels["worker"], sample.labels.get("code")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }
    assert found["x_total", "0", "ok"] == 3
    assert found["x_total", "1", "ok"] == 4
    assert found["y_sum", "1", None] == 3.5
    assert [found["countersign_webhook_worker_up", str(worker), None] for worker in range(3)] == [1, 1, 0]
    assert text.count("# TYPE x_total counter") == text.count("# TYPE y histogram") == 1


# Real processes


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def webhook(crds: Plane, tmp_path: Path, redis: RedisServer) -> Iterator[Running]:
    ca = LocalCA("serving")
    ports = dict(zip(("admission", "calls", "health"), free_ports(3), strict=True))
    config = configure(tmp_path, crds, ca, ports)
    (tmp_path / "nonce-key").write_bytes(KEY)
    read = yaml.safe_load(config.read_text())
    more = {
        "replay": {"url": redis.url, "nonce_key": str(tmp_path / "nonce-key")},
        "limits": dict.fromkeys(("instance_rate", "instance_burst", "address_rate", "address_burst"), 100_000),
    }
    config.write_text(yaml.safe_dump({**read, **more}))
    command = [str(COUNTERSIGN), "webhook", "--config", str(config), "--workers", str(COUNT)]
    child = start("webhook", command, log=tmp_path / "log")
    running = Running(crds, child, ca, tmp_path, ports)
    try:
        until(lambda: running.health("/readyz") == 200, "the workers are not ready", 60)
        yield running
    finally:
        child.stop()


def workers_of(webhook: Running) -> list[psutil.Process]:
    return psutil.Process(webhook.child.process.pid).children()


def counts(webhook: Running) -> dict[str, float]:
    """How many requests for a token each worker has answered with one."""
    with urllib.request.urlopen(f"http://{HOST}:{webhook.ports['health']}/metrics", timeout=5) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    found = (
        sample for family in families for sample in family.samples if sample.name.endswith("webhook_requests_total")
    )
    return {
        sample.labels["worker"]: sample.value
        for sample in found
        if (sample.labels["endpoint"], sample.labels["code"]) == ("/token", "ok")
    }


def missing(webhook: Running) -> str:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{webhook.ports['health']}/readyz", timeout=5):
            return ""
    except urllib.error.HTTPError as error:
        return str(json.load(error)["missing"])


class Caller(Agent):
    """An agent that takes a new connection for each request, so that it meets all workers."""

    async def request(self) -> Message:
        nonce = Nonces(KEY).make(self.key.jkt, int(time.time()))
        leaf = self.ca.leaf(self.key.public_key, f"spiffe://{self.domain}/ns/{self.namespace}/sa/agent")
        return await sign_request(
            Message.build(
                "POST",
                "/token",
                [("content-type", FORM), ("countersign-chain", chain_header([leaf]))],
                form(details(), resource=self.audience),
            ),
            self.key,
            audience=f"https://{HOST}:{self.webhook.ports['calls']}/token",
            nonce=nonce,
            created=int(time.time()),
        )

    async def present(self, message: Message) -> str:
        tls = ssl.create_default_context(cadata=self.webhook.ca.pem.decode())
        async with httpx.AsyncClient(verify=tls, timeout=10) as client:
            url = f"https://{HOST}:{self.webhook.ports['calls']}/token"
            try:
                answer = await client.post(url, content=message.body, headers=dict(message.headers))
            except httpx.TransportError:
                return "away"
        return "ok" if "access_token" in answer.text else str(answer.json()["code"])

    async def until_allowed(self) -> None:
        end = time.monotonic() + 30
        while (code := await self.present(await self.request())) != "ok":
            assert time.monotonic() < end, code


@pytest.mark.plane
async def test_workers_act_as_one_and_one_that_dies_is_begun_anew(webhook: Running, namespace: str) -> None:
    caller = Caller(webhook, namespace)
    await asyncio.to_thread(caller.make)
    await caller.until_allowed()
    for _ in range(30):
        if len(counts(webhook)) == COUNT:
            break
        await asyncio.gather(*[caller.present(await caller.request()) for _ in range(4)])
    assert set(counts(webhook)) == {"0", "1"}

    message = await caller.request()
    codes = Counter(await asyncio.gather(*(caller.present(message) for _ in range(24))))
    # A store that a busy machine lets wait is a no, too; never is there a second yes.
    assert codes["ok"] <= 1
    assert codes.keys() <= {"ok", "proof.replayed", "replay.unavailable"}
    assert await caller.present(message) == "proof.replayed"

    first, second = workers_of(webhook)
    first.kill()
    await asyncio.to_thread(until, lambda: "an answer" in missing(webhook), "nobody notices that a worker is away")
    assert webhook.health("/healthz") == 200
    await caller.until_allowed()
    await asyncio.to_thread(until, lambda: webhook.health("/readyz") == 200, "a worker is not begun anew", 60)
    assert second in workers_of(webhook)
    assert first not in workers_of(webhook)
    assert await caller.present(message) == "proof.replayed"

    workers = workers_of(webhook)
    webhook.child.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(webhook.child.process.wait, 30) == 0
    assert not any(worker.is_running() for worker in workers)
    checked = CliRunner().invoke(audit_command, ["verify", str(webhook.directory / "audit")])
    assert checked.exit_code == 0, checked.output
    assert len(list((webhook.directory / "audit").glob("*.jsonl"))) == COUNT + 1


@pytest.mark.plane
def test_workers_end_with_the_process_that_started_them(webhook: Running) -> None:
    workers = workers_of(webhook)
    assert len(workers) == COUNT

    webhook.child.process.kill()
    webhook.child.process.wait()

    until(
        lambda: not any(worker.is_running() and worker.status() != "zombie" for worker in workers), "workers stay", 30
    )
