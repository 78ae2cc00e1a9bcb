"""The authority on a real port: the signer's own code against it, and whatever else strangers send to it."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx
import pytest
import structlog
from cryptography.hazmat.primitives import serialization
from support.enrolment import AGENT, DOMAIN, NAMESPACE, TOKEN, UNLIMITED, Account, Caller, Office
from support.eventually import eventually

from countersign import kube
from countersign.acme import AcmeClient, AcmeProblem
from countersign.attest import SoftwareDevice
from countersign.attest.tpm import TpmDevice
from countersign.authority.serve import _Server, health_app, tls_config
from countersign.errors import Denied
from countersign.signer.enrol import Enroller
from countersign.signer.trust import Trust, client_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.swtpm import Simulator

    from countersign.attest import AttestationDevice

POSTS = ["/attest", "/secret"] + [
    f"/acme/default/{path}"
    for path in (
        "new-account",
        "account/x",
        "new-order",
        "order/x",
        "order/x/finalize",
        "authz/x",
        "challenge/x",
        "certificate/x",
        "revoke-cert",
    )
]
GETS = ["/acme/default/directory", "/acme/default/new-nonce"]
JOSE = "application/jose+json"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return int(one.getsockname()[1])


@asynccontextmanager
async def served(office: Office) -> AsyncIterator[None]:
    """Serve the office's application as the process does, until the test is done."""
    server = _Server(tls_config(office.app, office.context.settings))
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done(), task
        await asyncio.sleep(0)
    try:
        yield
    finally:
        server.should_exit = True
        await task


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Office]:
    """An authority on a real port, at today's date, that has little patience."""
    number = free_port()
    listen = {
        "host": "localhost",
        "port": number,
        "tls_cert": tmp_path / "tls" / "tls.crt",
        "tls_key": tmp_path / "tls" / "tls.key",
    }
    limits = {"head_seconds": 0.5, "body_seconds": 0.5, **UNLIMITED}
    url = f"https://localhost:{number}"
    opened = Office.open(tmp_path, now=datetime.now(UTC), url=url, listen=listen, limits=limits)
    async with opened as office, served(office):
        yield office


def trust(office: Office) -> Trust:
    ca = (office.directory / "tls" / "ca.crt").read_text()
    return Trust(office.context.settings.url, "https://unused.example", ca)


def http(office: Office) -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=client_context(trust(office).ca), base_url=office.context.settings.url)


async def enrol(office: Office, device: AttestationDevice, token: str = TOKEN) -> tuple[str, str]:
    """Run the signer's own enrolment; return the instance and the thumbprint of its key."""
    (office.directory / "token").write_text(token)
    enroller = Enroller(device, token_file=office.directory / "token")
    key = await device.create_key()
    admission = await enroller.admit(trust(office), key)
    chain = await enroller.certify(trust(office), key, admission)
    assert chain[0].public_key() == key.public_key
    return admission.instance, key.jkt


# the whole exchange, by the signer's own code


async def test_the_signers_own_code_enrols_a_software_twin(port: Office) -> None:
    one = await port.signer()
    instance, jkt = await enrol(port, one.device)
    found = port.instance()
    assert instance == f"{NAMESPACE}/{found['metadata']['name']}"
    assert found["status"]["certificate"]["keyThumbprint"] == jkt
    assert found["status"]["spiffeID"] == f"spiffe://{DOMAIN}/ns/{NAMESPACE}/sa/{AGENT}"


async def test_the_signers_own_code_is_told_the_code_of_a_refusal(port: Office) -> None:
    one = await port.signer(registered=False)
    with pytest.raises(Denied, match=r"attest\.device_unknown"):
        await enrol(port, one.device)
    with pytest.raises(Denied, match=r"attest\.token_invalid"):
        await enrol(port, one.device, "another")


@pytest.mark.tpm
async def test_a_tpm_enrols_twice_and_the_second_key_takes_the_firsts_place(port: Office, simulator: Simulator) -> None:
    roots = "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in simulator.roots)
    port.cluster.edit(kube.DEVICE_POOLS, "racks", ekRoots=roots)
    device = await TpmDevice.open(simulator.tcti)
    try:
        await port.register(device)
        first, second = await enrol(port, device), await enrol(port, device)
    finally:
        await device.aclose()
    assert first[0] == second[0]
    assert first[1] != second[1]
    assert port.instance()["status"]["certificate"]["keyThumbprint"] == second[1]
    assert port.cluster.find(kube.DEVICES, "worker-1")["status"]["model"] == "swtpm"


@pytest.mark.tpm
async def test_b2_a_tpm_that_is_not_in_the_inventory(port: Office, simulator: Simulator) -> None:
    roots = "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in simulator.roots)
    port.cluster.edit(kube.DEVICE_POOLS, "racks", ekRoots=roots)
    device = await TpmDevice.open(simulator.tcti)
    try:
        with pytest.raises(Denied, match=r"attest\.device_unknown"):
            await enrol(port, device)
    finally:
        await device.aclose()


async def test_an_rsa_attestation_key_is_told_to_come_again_as_p_256(port: Office) -> None:
    one = await port.signer()
    (port.directory / "token").write_text(TOKEN)
    enroller = Enroller(one.device, token_file=port.directory / "token")
    key = await one.device.create_key()
    admission = await enroller.admit(trust(port), key, "RSA2048")
    assert admission.ak_type == "P256"
    assert (await enroller.certify(trust(port), key, admission))[0].public_key() == key.public_key


async def test_our_client_reads_what_our_server_refuses(port: Office) -> None:
    async def nothing(_authorization: str = "") -> bytes:
        return b""

    url = f"{port.context.settings.url}/acme/default/directory"
    async with AcmeClient(url, ssl_context=client_context(trust(port).ca)) as client:
        with pytest.raises(AcmeProblem) as caught:
            await client.obtain("prod-eu.billing.nobody-bcdfg", attest=nothing, csr=nothing)
    assert (caught.value.name, caught.value.code) == ("rejectedIdentifier", "attest.instance_unknown")


# the port


async def test_tls_1_2_is_refused(port: Office) -> None:
    context = client_context(trust(port).ca, minimum=ssl.TLSVersion.TLSv1_2)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError):  # noqa: PT011 - an alert or a closed connection, as the two stacks come to meet
        await asyncio.open_connection("localhost", port.context.settings.listen.port, ssl=context)


async def said(office: Office, *parts: bytes) -> tuple[int, bytes]:
    """Send raw bytes over TLS, then stay silent; return the status and the body of the answer."""
    number = office.context.settings.listen.port
    reader, writer = await asyncio.open_connection("localhost", number, ssl=client_context(trust(office).ca))
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        answer = await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


async def is_healthy(office: Office) -> None:
    async with http(office) as client:
        assert (await client.get("/acme/default/directory")).status_code == 200
    assert office.context.faults() == []


def head(path: str, length: int | None, content_type: str = JOSE, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", f"content-type: {content_type}", "connection: close"]
    lines.append("transfer-encoding: chunked" if length is None else f"content-length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


def typed(status: int, body: bytes, statuses: set[int]) -> None:
    document = httpx.Response(200, content=body).json()
    assert status in statuses, body
    assert document["status"] == status
    assert "code" in document or document["type"].startswith("urn:ietf:params:acme:error:")
    assert b"Traceback" not in body


@pytest.mark.parametrize("path", POSTS)
async def test_b11_hostile_bodies(port: Office, path: str) -> None:
    with structlog.testing.capture_logs() as logs:
        for body in (
            b"",
            b"{",
            b"\xff\xfe\x00",
            b"[" * 5000,
            b"\xd9\xd9\xf7",
            b"0\x82\xff\xff",
            b'{"a":1,"a":2}',
            b"null",
        ):
            typed(*await said(port, head(path, len(body)), body), {400, 401})
        typed(*await said(port, head(path, 3, "text/html"), b"{}}"), {400, 415})
        typed(*await said(port, head(path, 70_000), b" " * 70_000), {413})
        typed(*await said(port, head(path, None), b"11170\r\n" + b" " * 70_000 + b"\r\n0\r\n\r\n"), {413})
        typed(*await said(port, head(path, 10_000_000), b" " * 70_000), {413})
        typed(*await said(port, head(path, 100), b"{"), {408})
        typed(*await said(port, head(path, None), b"zz\r\n"), {400})
        await is_healthy(port)
    assert not [entry for entry in logs if entry["log_level"] in {"error", "critical"}]


@pytest.mark.parametrize("path", POSTS + GETS)
async def test_methods_and_paths_that_are_not_there(port: Office, path: str) -> None:
    typed(*await said(port, head(path, 0, method="DELETE")), {405})
    typed(*await said(port, head(path + "/more", 0, method="PUT")), {404, 405})
    typed(*await said(port, head(path + "%00", 0)), {404, 400, 405, 415})


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00", 400),
        (b"POST /attest HTTP/9.9\r\n\r\n", 400),
        (b"POST /attest HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        (b"POST /attest HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST /attest HTTP/1.1\r\nx: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"POST /attest HTTP/1.1\r\n" + b"x: a\r\n" * 100 + b"\r\n", 431),
        (b"POST /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"POST /attest HTTP/1.1\r\nhost: local", 408),
        (b"", 408),
    ],
    ids=range(10),
)
async def test_what_is_no_request_or_too_much_of_one_or_too_slow(port: Office, sent: bytes, status: int) -> None:
    typed(*await said(port, sent), {status})
    await is_healthy(port)


async def test_a_client_that_goes_away_in_the_middle(port: Office) -> None:
    number = port.context.settings.listen.port
    for path in POSTS:
        _, writer = await asyncio.open_connection("localhost", number, ssl=client_context(trust(port).ca))
        writer.write(head(path, 100) + b"{")
        await writer.drain()
        writer.transport.abort()
    await is_healthy(port)


@pytest.mark.parametrize(
    "authorization",
    [[], [""], ["Bearer"], ["Basic abc"], [f"Bearer {TOKEN}"] * 2, ["Bearer " + "a" * 20_000]],
    ids=range(6),
)
async def test_a_bearer_is_one_header_with_one_token(port: Office, authorization: list[str]) -> None:
    one = await port.signer()
    body = await one.attest_body()
    async with http(port) as client:
        answer = await client.post("/attest", json=body, headers=[("authorization", value) for value in authorization])
    assert (answer.status_code, answer.json()["code"]) == (401, "attest.token_missing")


async def test_many_silent_connections_do_not_keep_a_signer_out(port: Office) -> None:
    number = port.context.settings.listen.port
    context = client_context(trust(port).ca)
    silent = [await asyncio.open_connection("localhost", number, ssl=context) for _ in range(40)]
    one = await port.signer()
    assert (await enrol(port, one.device))[0].startswith(NAMESPACE)
    ended = await asyncio.wait_for(asyncio.gather(*(reader.read() for reader, _ in silent)), 20)
    assert {answer[:12] for answer in ended} == {b"HTTP/1.1 408"}
    for _, writer in silent:
        writer.close()


# health


async def test_readiness_says_what_is_wrong(office: Office) -> None:
    app = health_app(office.context.faults, office.context.metrics.registry)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://health") as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        assert (await client.get("/readyz")).json() == {"status": "ok", "faults": []}
        office.cluster.cache.synced = False
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["faults"]) == (503, ["the watch cache is behind: not synced"])
        one = await office.signer()
        assert (await one.attest()).json()["code"] == "attest.unavailable"
        text = (await client.get("/metrics")).text
    assert "countersign_authority_answers_total" in text


async def test_a_signer_whose_account_key_is_stolen_is_still_needed(office: Office) -> None:
    """A12: who holds the account alone, and even the AK certificate, orders but proves nothing."""
    one = await office.signer()
    admitted = await one.admitted()
    account = await Account.make(one)
    thief = await Caller.make(office, SoftwareDevice.make(), None)
    order = await dataclasses.replace(account, caller=thief).order(admitted["identifier"])
    verdict = await order.answer(admitted)
    assert verdict.json()["error"]["code"] == "attest.signature"


async def test_idle_clients_that_do_not_say_goodbye_keep_nobody_from_stopping(
    port: Office, caplog: pytest.LogCaptureFixture
) -> None:
    server, number = _Server(tls_config(port.app, port.context.settings)), free_port()
    server.config.port = number
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started, "the server listens")
    tls = ssl.create_default_context(cafile=str(port.directory / "tls" / "ca.crt"))
    writers = []
    for _ in range(3):
        reader, writer = await asyncio.open_connection("localhost", number, ssl=tls)
        writer.write(b"GET /acme/default/directory HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # so it does not answer TLS's goodbye
        writers.append(writer)
    server.should_exit = True
    await task
    # What uvicorn says when it gives up waiting, after ten seconds.
    assert "timeout graceful shutdown exceeded" not in caplog.text
    for writer in writers:
        writer.transport.abort()


async def test_readiness_says_that_the_process_stops(office: Office) -> None:
    assert office.context.faults() == []
    office.context.stopping.set()
    assert office.context.faults() == ["this process stops"]
