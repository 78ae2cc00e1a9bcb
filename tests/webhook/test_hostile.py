"""Every endpoint of the three ports, asked badly: a typed answer or a closed connection, nothing on the log, and life goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
from support.front_door import (
    SERVING,
    assert_healthy,
    client_tls,
    code_of,
    document_of,
    request,
    status_of,
    talk,
)
from support.world import form

if TYPE_CHECKING:
    from support.world import World

    from countersign.devcluster.pki import LocalCA
    from countersign_webhook.main import Ports
    from countersign_webhook.serving import Port

TAKE_BODIES = [("calls", "POST", "/token"), ("admission", "POST", "/mutate-pods"), ("admission", "POST", "/validate")]
ENDPOINTS = [
    *TAKE_BODIES,
    ("calls", "GET", "/catalogue"),
    ("calls", "GET", "/nonce"),
    ("calls", "GET", "/.well-known/jwks.json"),
    ("calls", "GET", "/.well-known/oauth-authorization-server"),
    ("health", "GET", "/healthz"),
    ("health", "GET", "/readyz"),
    ("health", "GET", "/metrics"),
]
TYPES = ("application/json", "application/problem+json", "text/plain; version=0.0.4; charset=utf-8")


class Door:
    """One endpoint with who may talk to it."""

    def __init__(self, parts: tuple[World, Ports], ca: LocalCA, where: str, method: str, target: str) -> None:
        self.world, self.ports = parts
        self.port: Port = getattr(self.ports, where)
        self.tls = None if where == "health" else client_tls(ca)
        self.method, self.target = method, target

    async def ask(
        self, *headers: str, body: bytes = b"", version: str = "1.1", method: str = "", after: bytes = b""
    ) -> bytes:
        data = request(method or self.method, self.target, *headers, body=body, version=version)
        return await talk(self.port, data + after, self.tls)

    async def say(self, data: bytes) -> bytes:
        return await talk(self.port, data, self.tls)


Check = Callable[[Door], Awaitable[None]]


def at(endpoints: list[tuple[str, str, str]]) -> Callable[[Check], Callable[..., Awaitable[None]]]:
    """Make a test of a check: it holds at each of the endpoints of one running front door."""

    def decorate(check: Check) -> Callable[..., Awaitable[None]]:
        async def test(served: tuple[World, Ports], ca: LocalCA) -> None:
            for where, method, target in endpoints:
                try:
                    await check(Door(served, ca, where, method, target))
                except Exception as error:
                    error.add_note(f"at {method} {target}")
                    raise
            await assert_healthy(*served)

        test.__name__ = check.__name__
        return test

    return decorate


every, with_body = at(ENDPOINTS), at(TAKE_BODIES)


@pytest.fixture(autouse=True)
async def quiet(capfd: pytest.CaptureFixture[str]) -> Any:
    """Nobody can fill the log with tracebacks."""
    yield
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err


def assert_typed(answer: bytes) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    kind = next(line for line in head.decode("latin-1").split("\r\n") if line.startswith("content-type: "))
    assert kind.removeprefix("content-type: ") in TYPES, answer
    assert b"Traceback" not in body
    if "json" in kind:
        json.loads(body)


# What may come to any endpoint


@every
async def test_http_1_0_is_answered_and_closed(door: Door) -> None:
    answer = await door.say(f"{door.method} {door.target} HTTP/1.0\r\n\r\n".encode())

    assert_typed(answer)
    assert status_of(answer) in (200, 400, 415)


@every
async def test_a_method_that_is_not_its_own(door: Door) -> None:
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
        answer = await door.ask(method=method)

        assert_typed(answer)
        assert status_of(answer) == 405
        assert f"allow: {door.method}\r\n".encode() in answer


@every
async def test_another_version_of_http(door: Door) -> None:
    for version in ("0.9", "1.2", "2.0", "3.0"):
        answer = await door.ask(version=version)

        assert (version, status_of(answer), code_of(answer)) == (version, 400, "parse.syntax")


BAD_FIELDS = {
    "obs-fold": "x: a\r\n b",
    "a space before the colon": "content-type : application/json",
    "a space in a name": "x y: 1",
    "no colon": "x",
    "a NUL": "x: a\0b",
    "a negative length": "content-length: -1",
    "a length that is no number": "content-length: 1a",
    "a length beyond 64 bits": f"content-length: {'9' * 30}",
    "an encoding behind chunked": "transfer-encoding: chunked, gzip",
}


@every
async def test_a_field_that_two_readers_read_differently(door: Door) -> None:
    for name, field in BAD_FIELDS.items():
        answer = await door.ask(field)

        assert_typed(answer)
        assert (name, status_of(answer)) == (name, 400)


@every
async def test_an_upgrade_is_not_taken(door: Door) -> None:
    for upgrade in ("websocket", "h2c", "TLS/1.3"):
        fields = f"host: x\r\nconnection: upgrade, close\r\nupgrade: {upgrade}\r\n\r\n"
        answer = await door.say(f"{door.method} {door.target} HTTP/1.1\r\n{fields}PRI * HTTP/2.0\r\n\r\n".encode())

        assert_typed(answer)
        assert status_of(answer) in (200, 400, 415)


@every
async def test_a_body_that_is_announced_and_never_comes_does_not_hold_the_connection(door: Door) -> None:
    head = f"{door.method} {door.target} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"

    answer = await door.say(head.encode())  # returns when the other side closes

    assert_typed(answer)
    assert status_of(answer) in (200, 400, 408)


@every
async def test_a_chunk_without_a_size(door: Door) -> None:
    answer = await door.ask("transfer-encoding: chunked", after=b"zz\r\n\r\n")

    assert_typed(answer)
    assert (status_of(answer), code_of(answer)) == (400, "parse.syntax")


@every
async def test_a_pipeline_is_answered_in_order(door: Door) -> None:
    one = f"{door.method} {door.target} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".encode()

    answers = (await door.say(one + request("GET", "/no-such-path"))).split(b"HTTP/1.1 ")[1:]
    first, *more = [b"HTTP/1.1 " + answer for answer in answers]

    assert_typed(first)
    assert status_of(first) in (200, 400, 415)
    assert [status_of(answer) for answer in more] in ([404], [])  # none where the first refusal ended the connection


@every
async def test_garbage_behind_a_good_request(door: Door) -> None:
    first = f"{door.method} {door.target} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".encode()

    answer = await door.say(first + b"\x16\x03\x01 garbage\r\n\r\n")

    assert b"Traceback" not in answer


NO_PATHS = ("/", "/../token", "/token/..", "/%2e%2e/token", "//token", "/%74oken", "/TOKEN", "/x%00", "/a" * 900)


@pytest.mark.parametrize("where", ["calls", "admission", "health"])
async def test_no_such_path(served: tuple[World, Ports], ca: LocalCA, where: str) -> None:
    for target in NO_PATHS:
        answer = await Door(served, ca, where, "POST", target).ask(body=b"{}")

        assert_typed(answer)
        assert (target, status_of(answer)) == (target, 404)


async def test_a_target_in_other_than_ascii(served: tuple[World, Ports], ca: LocalCA) -> None:
    answer = await talk(served[1].calls, b"GET /nonce?jkt=\xc3\xa9 HTTP/1.1\r\nhost: x\r\n\r\n", client_tls(ca))

    assert_typed(answer)
    assert status_of(answer) == 400


# Bodies


@with_body
async def test_another_media_type(door: Door) -> None:
    for kind in ([], ["content-type:"], ["content-type: text/plain"], ["content-type: application/json, text/plain"]):
        answer = await door.ask(*kind, body=b"{}")

        assert_typed(answer)
        assert status_of(answer) in (400, 415)


MALFORMED = (
    b"{",
    b"\xff\xfe",
    b"[" * 50_000,
    b'{"a":' * 5_000,
    b"9" * 100_000,
    b'"\\ud800"',
    b"\0" * 100,
    b"NaN",
)


@with_body
async def test_malformed_json(door: Door) -> None:
    for body in MALFORMED:
        answer = await door.ask("content-type: application/json", body=body)

        assert_typed(answer)
        assert (body[:8], status_of(answer)) == (body[:8], 400)


@with_body
async def test_a_chunked_body_above_the_limit(door: Door) -> None:
    chunk = b"100000\r\n" + b"a" * 0x100000 + b"\r\n"

    # The refusal may be lost with the connection: what was sent behind it is not read any more.
    with contextlib.suppress(ConnectionError):
        answer = await door.ask("content-type: application/json", "transfer-encoding: chunked", after=chunk * 10)
        assert status_of(answer) in (408, 413)
        assert_typed(answer)


@with_body
async def test_a_body_that_trickles_has_its_time_as_a_whole(door: Door) -> None:
    reader, writer = await asyncio.open_connection(SERVING, door.port.number, ssl=door.tls)
    writer.write(request("POST", door.target, "content-type: application/json", "content-length: 1000"))
    answering = asyncio.create_task(reader.read())

    while not answering.done():
        writer.write(b" ")
        await asyncio.wait({answering}, timeout=0.02)
    writer.close()

    assert status_of(answering.result()) == 408
    assert_typed(answering.result())


async def test_many_who_never_finish_do_not_keep_others_out(served: tuple[World, Ports], ca: LocalCA) -> None:
    world, ports = served
    tls = client_tls(ca)
    idle = [await asyncio.open_connection(SERVING, ports.calls.number, ssl=tls) for _ in range(20)]
    for _, writer in idle:
        writer.write(b"POST /token HTTP/1.1\r\nhost:")

    message = await world.signed(body=form())
    fields = [f"{name}: {value}" for name, value in message.headers if name not in ("host", "content-length")]
    answer = await talk(ports.calls, request("POST", "/token", *fields, body=message.body), tls)

    assert status_of(answer) == 200
    for _, writer in idle:
        writer.transport.abort()


# Reviews that spell what UTF-8 cannot


UIDS = ('"\\ud800"', '""', "7", '"a b"', f'"{"a" * 200}"', '"\\u0000"')


@pytest.mark.parametrize("target", ["/mutate-pods", "/validate"])
async def test_a_uid_that_cannot_be_answered(served: tuple[World, Ports], ca: LocalCA, target: str) -> None:
    door = Door(served, ca, "admission", "POST", target)
    for uid in UIDS:
        question = f'{{"uid":{uid},"kind":{{"kind":"Pod"}},"operation":"CREATE"}}'
        review = f'{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{question}}}'

        answer = await door.ask("content-type: application/json", body=review.encode())

        assert (uid, status_of(answer), document_of(answer)["kind"]) == (uid, 400, "Status")


async def test_half_a_character_in_an_object_is_refused_in_whole_ones(served: tuple[World, Ports], ca: LocalCA) -> None:
    half = "\ud800"
    server = served[0].server("second", audience="https://second.billing.svc/mcp")
    server["spec"]["tools"] = [{"name": half, "access": "ReadOnly", "inputSchema": {"type": half}}]
    review = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u",
            "kind": {"group": "countersign.dev", "version": "v1alpha1", "kind": "ToolServer"},
            "operation": "CREATE",
            "namespace": "billing",
            "object": server,
        },
    }

    answer = await Door(served, ca, "admission", "POST", "/validate").ask(
        "content-type: application/json", body=json.dumps(review).encode()
    )

    assert status_of(answer) == 200
    assert document_of(answer)["response"]["allowed"] is False
