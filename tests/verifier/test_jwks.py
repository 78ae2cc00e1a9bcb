"""Issuer keys: when they are fetched, how long they are believed, and which are usable."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from support.loopback import answer, serving

from countersign.clock import FakeClock
from countersign.devcluster.pki import LocalCA
from countersign.errors import Unavailable
from countersign.verifier import FileJwks, HttpJwks, Jwks
from countersign.verifier.jwks import Unreachable, read_jwks
from countersign.verifier.testing import TestKey
from countersign.wire import jwk_of

if TYPE_CHECKING:
    from pathlib import Path


def entry(key: TestKey, **changes: Any) -> dict[str, Any]:
    return {**jwk_of(key.public_key), "kid": key.jkt, "alg": "ES256", "use": "sig", **changes}


class Source:
    """A document that can change, or be away."""

    def __init__(self, *keys: TestKey) -> None:
        self.keys = list(keys)
        self.away: Exception | None = None
        self.fetched = 0

    async def fetch(self) -> bytes:
        self.fetched += 1
        if self.away:
            raise self.away
        return json.dumps({"keys": [entry(key) for key in self.keys]}).encode()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2026, 11, 24, 12, 0, tzinfo=UTC))


async def test_keys_are_fetched_when_first_needed_and_kept_five_minutes(clock: FakeClock) -> None:
    key = TestKey()
    source = Source(key)
    jwks = Jwks(source, clock)

    for _ in range(3):
        found = await jwks.find(key.jkt)
        assert found == key.public_key
        clock.advance(99)
    assert source.fetched == 1
    clock.advance(10)

    await jwks.find(key.jkt)
    assert source.fetched == 2


async def test_rotation_a_key_that_is_new_is_found_by_one_more_fetch(clock: FakeClock) -> None:
    old, new = TestKey(), TestKey()
    source = Source(old)
    jwks = Jwks(source, clock)
    await jwks.find(old.jkt)
    source.keys.append(new)
    clock.advance(30)

    assert await jwks.find(new.jkt) == new.public_key
    assert source.fetched == 2


class Slow(Source):
    """Answers when it is told to."""

    def __init__(self, *keys: TestKey) -> None:
        super().__init__(*keys)
        self.go, self.asked = asyncio.Event(), asyncio.Event()

    async def fetch(self) -> bytes:
        document = await super().fetch()
        self.asked.set()
        await self.go.wait()
        return document


async def test_e4_many_first_calls_at_once_wait_for_the_one_fetch(clock: FakeClock) -> None:
    key = TestKey()
    source = Slow(key)
    jwks = Jwks(source, clock)
    calls = [asyncio.create_task(jwks.find(key.jkt)) for _ in range(50)]
    await source.asked.wait()
    source.go.set()

    assert await asyncio.gather(*calls) == [key.public_key] * 50
    assert source.fetched == 1


async def test_who_has_its_key_does_not_wait_for_a_fetch(clock: FakeClock) -> None:
    key = TestKey()
    source = Slow(key)
    source.go.set()
    jwks = Jwks(source, clock)
    await jwks.find(key.jkt)
    source.go.clear()
    source.asked.clear()
    clock.advance(300)
    late = asyncio.create_task(jwks.find(key.jkt))
    await source.asked.wait()

    assert await jwks.find(key.jkt) == key.public_key
    source.go.set()
    assert await late == key.public_key


async def test_e3_an_unknown_kid_fetches_once_in_thirty_seconds(clock: FakeClock) -> None:
    key = TestKey()
    source = Source(key)
    jwks = Jwks(source, clock)
    await jwks.find(key.jkt)
    clock.advance(30)

    for number in range(10):
        assert await jwks.find(f"unknown-{number}") is None
        clock.advance(2)
    assert source.fetched == 2
    clock.advance(10)
    await jwks.find("unknown")
    assert source.fetched == 3


async def test_a_key_that_the_issuer_withdrew_is_gone_after_five_minutes(clock: FakeClock) -> None:
    old, new = TestKey(), TestKey()
    source = Source(old, new)
    jwks = Jwks(source, clock)
    await jwks.find(old.jkt)
    source.keys = [new]
    clock.advance(300)

    assert await jwks.find(old.jkt) is None


@pytest.mark.parametrize("away", [OSError(), TimeoutError(), Unreachable()])
async def test_an_outage_is_bridged_for_a_day_and_no_longer(clock: FakeClock, away: Exception) -> None:
    key = TestKey()
    source = Source(key)
    jwks = Jwks(source, clock)
    await jwks.find(key.jkt)
    source.away = away
    clock.advance(24 * 3600 - 1)
    assert await jwks.find(key.jkt) == key.public_key
    clock.advance(1)

    with pytest.raises(Unavailable) as refusal:
        await jwks.find(key.jkt)
    assert refusal.value.code == "decide.unavailable"

    source.away = None
    clock.advance(30)
    assert await jwks.find(key.jkt) == key.public_key


async def test_without_any_contact_nothing_is_accepted(clock: FakeClock) -> None:
    source = Source(TestKey())
    source.away = OSError()
    jwks = Jwks(source, clock)

    for _ in range(2):
        with pytest.raises(Unavailable):
            await jwks.find("kid")
    assert source.fetched == 1


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":1}', b'{"keys":[],"keys":[]}', b"\xff"]
)
async def test_a_document_that_is_none_counts_as_an_outage(clock: FakeClock, tmp_path: Path, document: bytes) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(document)

    with pytest.raises(Unavailable):
        await Jwks(FileJwks(file), clock).find("kid")


async def test_a_file_is_read_again(clock: FakeClock, tmp_path: Path) -> None:
    key, file = TestKey(), tmp_path / "jwks.json"
    jwks = Jwks(FileJwks(file), clock)
    with pytest.raises(Unavailable):
        await jwks.find(key.jkt)
    file.write_text(json.dumps({"keys": [entry(key)]}))
    clock.advance(30)

    assert await jwks.find(key.jkt) == key.public_key


def test_only_usable_keys_are_used() -> None:
    good = TestKey()
    entries = [
        entry(good),
        entry(TestKey(), alg="ES384"),
        entry(TestKey(), use="enc"),
        entry(TestKey(), kid="other"),
        entry(TestKey(), kid=None),
        entry(TestKey(), crv="P-384"),
        entry(TestKey(), d="AAAA"),
        entry(TestKey(), x="AAAA"),
        entry(TestKey(), y=jwk_of(good.public_key)["y"]),
        {"kty": "oct", "k": "AAAA", "alg": "HS256", "kid": good.jkt},
        "text",
        None,
    ]

    assert list(read_jwks(json.dumps({"keys": entries}).encode())) == [good.jkt]


async def test_the_url_is_asked_as_it_is_configured(clock: FakeClock) -> None:
    key = TestKey()
    asked: list[bytes] = []

    async def serve(reader: Any, writer: Any) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        status, body = (b"200 OK", json.dumps({"keys": [entry(key)]}).encode())
        if b"GET /moved" in asked[-1]:
            status, body = (b"302 Found\r\nlocation: /jwks", b"")
        if b"GET /long" in asked[-1]:
            body = b" " * 300_000
        writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        assert await Jwks(HttpJwks(f"http://127.0.0.1:{port}/jwks"), clock).find(key.jkt) == key.public_key
        for path in ("moved", "long"):
            with pytest.raises(Unavailable):
                await Jwks(HttpJwks(f"http://127.0.0.1:{port}/{path}"), clock).find(key.jkt)
    with pytest.raises(Unavailable):
        await Jwks(HttpJwks(f"http://127.0.0.1:{port}/jwks"), clock).find(key.jkt)
    assert asked[0].startswith(b"GET /jwks HTTP/1.1\r\n")
    assert len(asked) == 3


async def test_e5_the_roots_are_read_at_each_fetch_so_that_the_issuers_ca_may_rotate(
    clock: FakeClock, tmp_path: Path
) -> None:
    old, new = LocalCA("serving CA of before"), LocalCA("serving CA of now")
    key, roots = TestKey(), tmp_path / "ca.crt"

    async def document(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        await answer(send, 200, [], json.dumps({"keys": [entry(key)]}).encode())

    roots.write_bytes(old.pem)
    async with serving(document, "localhost", ca=new) as port:
        jwks = Jwks(HttpJwks(f"https://localhost:{port}/jwks", roots), clock)
        with pytest.raises(Unavailable):
            await jwks.find(key.jkt)
        roots.write_bytes(old.pem + new.pem)
        clock.advance(30)
        assert await jwks.find(key.jkt) == key.public_key


def test_roots_that_cannot_be_read_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r".*"):
        HttpJwks("https://localhost/jwks", tmp_path / "no-such-file")


async def test_e5_a_verifier_that_is_asked_now_and_then_never_meets_a_key_that_it_does_not_find(
    clock: FakeClock,
) -> None:
    """The figures of wire.md 11: published 600 s before use, kept 300 s, looked for again after 30 s at most."""
    keys = [TestKey()]
    source = Source(*keys)
    jwks = Jwks(source, clock)
    for step in range(24 * 60):
        if step % 60 == 30:
            keys.append(TestKey())
            source.keys = keys[-2:]
        # A rotation an hour; the new key signs ten minutes after it was published. A call every minute.
        signing = keys[-1] if step % 60 < 30 or step % 60 >= 40 else keys[-2]
        assert await jwks.find(signing.jkt) == signing.public_key
        clock.advance(60)
    assert source.fetched <= 24 * 60 / 5 + 1
