"""The three ports as a stranger meets them: TLS, rotation, and everything that is too large, too slow or no HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from support.front_door import (
    SERVING,
    assert_healthy,
    client_tls,
    code_of,
    document_of,
    listening,
    request,
    status_of,
    talk,
    write_pair,
)
from support.world import World, form, write_keys

from countersign.devcluster import free_ports
from countersign.devcluster.pki import LocalCA
from countersign_webhook import protocol
from countersign_webhook.main import serve

if TYPE_CHECKING:
    from pathlib import Path

    from countersign_webhook.main import Ports
    from countersign_webhook.serving import Port

# Health


async def test_ready_says_what_is_missing(served: tuple[World, Ports]) -> None:
    world, ports = served
    assert status_of(await talk(ports.health, request("GET", "/readyz"), None)) == 200
    world.source.stale_kinds = ["devices"]

    answer = await talk(ports.health, request("GET", "/readyz"), None)

    assert status_of(answer) == 503
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"ready": False, "missing": ["current view of devices"]}
    assert status_of(await talk(ports.health, request("GET", "/healthz"), None)) == 200


async def test_e7_metrics_count_codes_and_never_names(served: tuple[World, Ports]) -> None:
    world, ports = served
    await world.call("get_charge", {"charge": "ch_secret"})
    await world.call('evil"} 1\n')

    text = (await talk(ports.health, request("GET", "/metrics"), None)).decode()

    assert 'countersign_webhook_requests_total{code="ok",endpoint="/token"} 1.0' in text
    assert "countersign_webhook_ready 1.0" in text
    assert 'countersign_webhook_watch_age_seconds{kind="devices"} 0.0' in text
    assert "countersign_webhook_audit_backlog_records 0.0" in text
    assert "countersign_webhook_audit_write_seconds_count" in text
    assert "evil" not in text
    assert "ch_secret" not in text


# A whole call over TLS


async def test_a_call_over_tls_is_answered(served: tuple[World, Ports], ca: LocalCA) -> None:
    world, ports = served
    message = await world.signed(body=form())
    fields = [f"{name}: {value}" for name, value in message.headers if name not in ("host", "content-length")]

    answer = await talk(ports.calls, request("POST", "/token", *fields, body=message.body), client_tls(ca))

    assert status_of(answer) == 200
    assert b"access_token" in answer
    assert b"server: uvicorn" not in answer.lower()


async def test_tls_below_1_3_is_refused(served: tuple[World, Ports], ca: LocalCA) -> None:
    _, ports = served
    old = client_tls(ca)
    old.maximum_version = ssl.TLSVersion.TLSv1_2

    with pytest.raises((ssl.SSLError, ConnectionError)):
        await talk(ports.calls, request("GET", "/.well-known/jwks.json"), old)


# What is no request


HEADS = {
    "no http": (b"\x16\x03\x01\x02 hello\r\n\r\n", 400, "parse.syntax"),
    "no version": (b"GET /token\r\n\r\n", 400, "parse.syntax"),
    "absolute target": (request("GET", "http://x/token"), 400, "http.path"),
    "asterisk": (request("OPTIONS", "*"), 400, "http.path"),
    "fragment": (request("GET", "/token#x"), 400, "http.path"),
    "two lengths": (request("POST", "/token", "content-length: 5", "content-length: 6"), 400, "parse.syntax"),
    "length and chunks": (
        request("POST", "/token", "content-length: 5", "transfer-encoding: chunked"),
        400,
        "parse.syntax",
    ),
    "long field": (request("GET", "/nonce", f"x: {'a' * 20_000}"), 431, "parse.size"),
    "many fields": (request("GET", "/nonce", *(f"x{n}: 1" for n in range(200))), 431, "parse.size"),
    "long target": (request("GET", "/" + "a" * 40_000), 431, "parse.size"),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("where", ["calls", "admission", "health"])
async def test_a_head_that_is_wrong(served: tuple[World, Ports], ca: LocalCA, where: str, name: str) -> None:
    world, ports = served
    data, status, code = HEADS[name]

    answer = await talk(getattr(ports, where), data, None if where == "health" else client_tls(ca))

    assert (status_of(answer), code_of(answer)) == (status, code)
    await assert_healthy(world, ports)


@pytest.mark.parametrize("where", ["calls", "admission", "health"])
async def test_a_head_without_end_is_cut_off(served: tuple[World, Ports], ca: LocalCA, where: str) -> None:
    world, ports = served
    endless = b"GET / HTTP/1.1\r\nx: " + b"a" * 400_000

    # The refusal may be lost with the connection: what was sent behind it is not read any more.
    with contextlib.suppress(ConnectionError):
        answer = await talk(getattr(ports, where), endless, None if where == "health" else client_tls(ca))
        assert (status_of(answer), code_of(answer)) == (431, "parse.size")

    await assert_healthy(world, ports)


@pytest.mark.parametrize("where", ["calls", "admission", "health"])
async def test_a_head_that_does_not_come_is_not_waited_for(
    served: tuple[World, Ports], ca: LocalCA, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, ports = served
    monkeypatch.setattr(protocol, "_HEAD_SECONDS", 0.05)

    answer = await talk(
        getattr(ports, where), b"GET /healthz HTTP/1.1\r\nx:", None if where == "health" else client_tls(ca)
    )

    assert (status_of(answer), code_of(answer)) == (408, "parse.size")
    await assert_healthy(world, ports)


@pytest.mark.parametrize(("where", "target"), [("calls", "/token"), ("admission", "/validate")])
async def test_a_body_that_does_not_come_is_not_waited_for(
    served: tuple[World, Ports], ca: LocalCA, where: str, target: str
) -> None:
    world, ports = served
    head = request("POST", target, "content-type: application/json", "content-length: 100")

    answer = await talk(getattr(ports, where), head + b"{", client_tls(ca))

    assert status_of(answer) == 408
    await assert_healthy(world, ports)


@pytest.mark.parametrize(
    ("where", "target", "size"), [("calls", "/token", 2 << 20), ("admission", "/mutate-pods", 9 << 20)]
)
async def test_a_body_that_is_announced_too_large_is_not_read(
    served: tuple[World, Ports], ca: LocalCA, where: str, target: str, size: int
) -> None:
    world, ports = served

    answer = await talk(getattr(ports, where), request("POST", target, f"content-length: {size}"), client_tls(ca))

    assert status_of(answer) == 413
    await assert_healthy(world, ports)


async def test_a_chunked_body_without_end_is_cut_off(served: tuple[World, Ports], ca: LocalCA) -> None:
    world, ports = served
    chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"

    answer = await talk(
        ports.calls, request("POST", "/token", "transfer-encoding: chunked") + chunk * 20, client_tls(ca)
    )

    assert (status_of(answer), code_of(answer)) == (413, "parse.size")
    await assert_healthy(world, ports)


async def test_trailers_mean_nothing(served: tuple[World, Ports], ca: LocalCA) -> None:
    world, ports = served
    message = await world.signed(body=form())
    fields = [f"{name}: {value}" for name, value in message.headers if name not in ("host", "content-length")]
    fields = [field for field in fields if not field.startswith("signature:")]
    body = f"{len(message.body):x}\r\n".encode() + message.body + b"\r\n0\r\n"
    trailer = f"signature: {message.get('signature')}\r\n\r\n".encode()

    head = request("POST", "/token", "transfer-encoding: chunked", *fields)
    answer = await talk(ports.calls, head + body + trailer, client_tls(ca))

    assert (status_of(answer), code_of(answer)) == (400, "proof.missing")


@pytest.mark.parametrize(("where", "target"), [("calls", "/token"), ("admission", "/validate")])
async def test_a_client_that_leaves_is_not_answered(
    served: tuple[World, Ports], ca: LocalCA, where: str, target: str
) -> None:
    world, ports = served
    _reader, writer = await asyncio.open_connection(SERVING, getattr(ports, where).number, ssl=client_tls(ca))
    writer.write(request("POST", target, "content-length: 100") + b"x")
    await writer.drain()
    writer.transport.abort()

    await assert_healthy(world, ports)


# Client certificates


async def test_c4_admission_shuts_out_who_is_not_the_api_server(tmp_path: Path, ca: LocalCA) -> None:
    apiserver = LocalCA("front-proxy")
    (tmp_path / "client-ca.crt").write_bytes(apiserver.pem)
    admission = {
        "host": SERVING,
        "port": 0,
        "tls_cert": tmp_path / "tls.crt",
        "tls_key": tmp_path / "tls.key",
        "client_ca": tmp_path / "client-ca.crt",
    }
    pair = apiserver.issue("kube-apiserver")
    pair.write(tmp_path, "client")
    stranger = LocalCA("stranger").issue("kube-apiserver")
    stranger.write(tmp_path, "stranger")
    question = request("POST", "/validate", "content-type: application/json", body=b"{}")
    async with listening(tmp_path, admission=admission) as (_, ports):
        for name in (None, "stranger"):
            tls = client_tls(ca)
            if name is not None:
                tls.load_cert_chain(tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
            # In TLS 1.3 a client hears of the refusal when it reads: as an error, or as an end without an answer.
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                assert await talk(ports.admission, question, tls) == b""
        tls = client_tls(ca)
        tls.load_cert_chain(tmp_path / "client.crt", tmp_path / "client.key")

        assert status_of(await talk(ports.admission, question, tls)) == 400


# Rotation


def presented(serial: bytes | None) -> int:
    assert serial is not None
    return x509.load_der_x509_certificate(serial).serial_number


async def serial_of(port: Port, ca: LocalCA) -> int:
    _reader, writer = await asyncio.open_connection(SERVING, port.number, ssl=client_tls(ca))
    serial = presented(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
    writer.close()
    await writer.wait_closed()
    return serial


async def test_a_new_certificate_is_served_without_a_restart(
    served: tuple[World, Ports], ca: LocalCA, tmp_path: Path
) -> None:
    _, ports = served
    before = await serial_of(ports.calls, ca)
    write_pair(tmp_path, ca)

    assert [file.refresh() for file in ports.files] == [True, True]

    assert await serial_of(ports.calls, ca) != before
    assert await serial_of(ports.admission, ca) != before
    assert [file.refresh() for file in ports.files] == [False, False]


async def test_half_a_rotation_keeps_the_old_certificate(
    served: tuple[World, Ports], ca: LocalCA, tmp_path: Path
) -> None:
    _, ports = served
    before = await serial_of(ports.calls, ca)
    (tmp_path / "tls.crt").write_bytes(ca.issue("countersign-webhook", names=[SERVING]).certificate)

    with pytest.raises(ssl.SSLError):
        ports.files[1].refresh()

    assert await serial_of(ports.calls, ca) == before
    write_pair(tmp_path, ca)
    assert ports.files[1].refresh()


async def test_a_new_token_key_signs_without_a_restart(served: tuple[World, Ports]) -> None:
    world, _ = served
    now = world.clock.now()
    write_keys(world.directory / "keys", (world.ca.key, now, now + timedelta(days=1)))

    assert world.context.keys.refresh()

    assert (await world.call()).status_code == 200


async def test_a_port_that_is_taken_is_an_error_and_not_an_exit(served: tuple[World, Ports], tmp_path: Path) -> None:
    _, ports = served
    taken = {"host": SERVING, "port": ports.health.number}

    with pytest.raises(OSError, match="in use"):
        async with listening(tmp_path, health=taken):
            pass


# Stopping


async def test_idle_clients_that_do_not_say_goodbye_keep_nobody_from_stopping(
    tmp_path: Path, ca: LocalCA, caplog: pytest.LogCaptureFixture
) -> None:
    writers = []
    async with listening(tmp_path) as (_, ports):
        for _ in range(5):
            reader, writer = await asyncio.open_connection(SERVING, ports.calls.number, ssl=client_tls(ca))
            writer.write(request("GET", "/.well-known/jwks.json").replace(b"connection: close\r\n", b""))
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            # A client that never reads again does not answer TLS's goodbye.
            writer.transport.pause_reading()
            writers.append(writer)
    # What uvicorn says when it gives up waiting, after five seconds.
    assert "timeout graceful shutdown exceeded" not in caplog.text
    for writer in writers:
        writer.transport.abort()


async def test_a_request_under_way_is_answered_by_a_process_that_stops(tmp_path: Path, ca: LocalCA) -> None:
    body = form()
    async with listening(tmp_path, limits={"body_seconds": 10}) as (_, ports):
        reader, writer = await asyncio.open_connection(SERVING, ports.calls.number, ssl=client_tls(ca))
        head = request("POST", "/token", "expect: 100-continue", body=body).removesuffix(body)
        writer.write(head.replace(b"connection: close\r\n", b""))
        async with asyncio.timeout(10):
            assert b" 100 " in await reader.readuntil(b"\r\n\r\n")  # the endpoint waits for the body
        stopping = asyncio.create_task(ports.calls.aclose())
        async with asyncio.timeout(10):
            while True:  # no new client is taken
                try:
                    _, other = await asyncio.open_connection(SERVING, ports.calls.number)
                except ConnectionError:
                    break
                other.transport.abort()
        writer.write(body)
        async with asyncio.timeout(10):
            answer = await reader.read()
        await stopping
        writer.transport.abort()
    assert status_of(answer) == 400
    assert code_of(answer).startswith("proof.")
    assert b"connection: close" in answer.lower()


async def test_readiness_goes_first_and_health_last(tmp_path: Path, ca: LocalCA) -> None:
    del ca
    world = await World.make(tmp_path, health={"host": SERVING, "port": free_ports(1)[0]}, drain_seconds=0.5)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(world.context, stop))
    number = world.context.settings.health.port

    async def ready() -> dict[str, object]:
        reader, writer = await asyncio.open_connection(SERVING, number)
        writer.write(request("GET", "/readyz"))
        answer = await reader.read()
        writer.close()
        return document_of(answer)

    async with asyncio.timeout(20):
        while not serving.done():
            with contextlib.suppress(ConnectionRefusedError):
                if (await ready())["ready"]:
                    break
            await asyncio.sleep(0.01)
        stop.set()
        seen = []
        with contextlib.suppress(ConnectionError):
            while True:
                seen.append(await ready())
        await serving
    await world.context.aclose()
    missing = ["a process that goes on: this one stops"]
    assert seen[-1] == {"ready": False, "missing": missing}
    assert world.context.stopping.is_set()


# An answer that is written in whole


@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS"])
async def test_an_answer_says_once_that_the_connection_ends(
    served: tuple[World, Ports], ca: LocalCA, method: str
) -> None:
    _, ports = served
    for more in ("", "connection: keep-alive\r\n"):
        head = f"{method} /token HTTP/1.1\r\nhost: x\r\n{more}\r\n".encode()
        answer = (await talk(ports.calls, head, client_tls(ca))).lower()

        assert status_of(answer) == 405
        assert answer.count(b"\r\nconnection: close\r\n") == 1
        assert (
            answer.count(b"\r\nconnection:") == answer.count(b"\r\ndate:") == answer.count(b"\r\ncontent-length:") == 1
        )
        length = int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        assert len(answer.partition(b"\r\n\r\n")[2]) == length


async def test_an_answer_to_head_has_no_body(served: tuple[World, Ports], ca: LocalCA) -> None:
    _, ports = served

    answer = await talk(ports.calls, request("HEAD", "/token"), client_tls(ca))

    assert status_of(answer) == 405
    assert answer.endswith(b"\r\n\r\n")


async def test_requests_that_come_together_are_answered_in_their_order(
    served: tuple[World, Ports], ca: LocalCA
) -> None:
    world, ports = served
    messages = [await world.signed(body=form()) for _ in range(3)]
    sent = b""
    for message in messages:
        fields = [f"{name}: {value}" for name, value in message.headers if name not in ("host", "content-length")]
        lines = ["POST /token HTTP/1.1", "host: x", *fields, f"content-length: {len(message.body)}", "", ""]
        sent += "\r\n".join(lines).encode() + message.body
    sent += request("GET", "/.well-known/jwks.json")

    answer = await talk(ports.calls, sent, client_tls(ca))

    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 4
    assert answer.count(b'"access_token":') == 3
    assert b'"keys"' in answer.rpartition(b"\r\n\r\n")[2]
