"""The middleware: what reaches the application, and what a refused caller gets instead."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from countersign.clock import FakeClock
from countersign.errors import Unavailable
from countersign.verifier import STATE, CountersignVerifier, Refusal, VerifierSettings
from countersign.verifier.testing import BROKEN, CallMaker
from countersign.wire import Message

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class App:
    """An application that notes what it was given and answers 200."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []
        self.later: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "lifespan":
            return
        event = await receive()
        assert event["more_body"] is False
        self.bodies.append(event["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})
        self.later.append(await receive())


class Bench:
    """One maker, one application behind a verifier, one clock."""

    def __init__(self, **parts: Any) -> None:
        self.clock = FakeClock(START)
        self.maker = CallMaker(clock=self.clock)
        self.app = App()
        self.refusals: list[Refusal] = []
        self.guarded = self.maker.protect(self.app, **{"on_refusal": self.refusals.append, "replay": None, **parts})
        self.clock.advance(7)  # past what the replay store does not believe after its start

    async def send(self, message: Message) -> httpx.Response:
        transport = httpx.ASGITransport(self.guarded, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://tools") as client:
            return await client.request(message.method, message.target, headers=message.headers, content=message.body)


def assert_refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["code"], body["status"]) == (status, code, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["type"] == f"https://countersign.dev/problems/{code}"
    if status == 401:
        assert answer.headers["www-authenticate"] == f'Countersign error="invalid_token", code="{code}"'
    return body


async def test_a_good_call_reaches_the_application_with_who_calls() -> None:
    bench = Bench()
    message = await bench.maker.call("pay", {"amount": 1})

    answer = await bench.send(message)

    assert (answer.status_code, answer.content) == (200, b"done")
    caller = bench.app.scopes[0]["state"][STATE]
    assert (caller.tool, caller.key_tier, caller.assurance) == ("pay", "TPM", "Hardware")
    assert (caller.sub, caller.instance) == (caller.agent, "default/test-agent-1")
    assert bench.app.bodies == [message.body]
    assert bench.app.later == [{"type": "http.disconnect"}]
    assert bench.refusals == []


async def test_d3_only_fields_that_travel_reach_the_application() -> None:
    bench = Bench()
    message = await bench.maker.call("pay", {"amount": 1})
    more = (("x-http-method-override", "DELETE"), ("cookie", "a=b"), ("forwarded", "for=x"), ("x-user", "root"))

    await bench.send(replace(message, headers=(*message.headers, *more)))

    names = {name.decode() for name, _ in bench.app.scopes[0]["headers"]}
    assert names == {
        "host",
        "accept",
        "content-type",
        "content-length",
        "user-agent",
        "mcp-protocol-version",
        "mcp-method",
        "mcp-name",
    } - ({"user-agent"} - names)


async def test_the_token_is_nowhere_in_what_the_application_gets() -> None:
    bench = Bench()
    message = await bench.maker.call("pay", {"amount": 1})
    token = (message.get("authorization") or "").removeprefix("Countersign ")

    await bench.send(message)

    assert token not in repr(bench.app.scopes[0])
    assert token.split(".")[2] not in repr(bench.app.scopes[0])


@pytest.mark.parametrize("code", sorted(BROKEN))
async def test_a_broken_call_is_refused_and_the_application_never_sees_it(code: str) -> None:
    bench = Bench()

    answer = await bench.send(await bench.maker.broken(code, "pay", {"amount": 1}))

    assert_refused(answer, 403 if code.startswith("call.") else 401, code)
    assert bench.app.scopes == []
    [refusal] = bench.refusals
    assert refusal.code == code


async def test_a6_the_same_call_is_refused_the_second_time() -> None:
    bench = Bench()
    message = await bench.maker.call("pay", {"amount": 1})
    assert (await bench.send(message)).status_code == 200

    answer = await bench.send(message)

    body = assert_refused(answer, 401, "proof.replayed")
    [refusal] = bench.refusals
    assert body["decision"] == refusal.txn == "01998f1e-6c1a-7d43-9a55-3d5f0b8f7a10"
    assert refusal.jti is not None
    assert len(bench.app.scopes) == 1


async def test_a7_a_token_from_before_the_start_is_not_believed() -> None:
    bench = Bench()
    bench.clock.advance(-7)

    answer = await bench.send(await bench.maker.call("pay"))

    assert_refused(answer, 503, "replay.store_reset")
    assert answer.headers["retry-after"] == "6"  # the skew, and one second


async def test_a7_a_restart_revives_no_call_of_an_issuer_whose_clock_is_ahead() -> None:
    """The call is used, the server restarts at once, and the token's ``iat`` is still in the server's future."""
    bench = Bench()
    ahead = CallMaker(clock=FakeClock(bench.clock.now() + timedelta(seconds=4)))
    used = await ahead.call("pay")
    bench.guarded = ahead.protect(bench.app, clock=bench.clock)
    assert (await bench.send(used)).status_code == 200

    bench.guarded = ahead.protect(bench.app, clock=bench.clock, replay=None)
    assert_refused(await bench.send(used), 503, "replay.store_reset")


async def test_floors_refuse_with_403() -> None:
    bench = Bench()
    strict = bench.maker.protect(bench.app, replace(bench.maker.settings, min_key_tier="TPM"))
    bench.guarded = strict
    bench.clock.advance(2)

    answer = await bench.send(await bench.maker.call("pay", key_tier="TPMSession"))

    assert_refused(answer, 403, "environment.key_tier_too_low")


async def test_a_refusal_names_no_input_and_closes_the_connection() -> None:
    bench = Bench()
    message = await bench.maker.broken("call.args", "pay", {"secret": "hunter2"})

    answer = await bench.send(message)

    assert b"hunter2" not in answer.content
    assert answer.headers["connection"] == "close"
    assert answer.headers["cache-control"] == "no-store"


async def test_the_hook_logs_code_txn_and_jti_by_default(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.guarded = bench.maker.protect(bench.app)
    bench.clock.advance(2)
    message = await bench.maker.broken("call.tool", "pay")

    with caplog.at_level(logging.WARNING, "countersign.verifier"):
        await bench.send(message)

    [record] = caplog.records
    assert "code=call.tool txn=01998f1e-6c1a-7d43-9a55-3d5f0b8f7a10 jti=" in record.getMessage()
    assert (message.get("authorization") or "") not in record.getMessage()


async def test_a_hook_that_fails_changes_nothing() -> None:
    def broken(_refusal: Refusal) -> None:
        raise ZeroDivisionError

    bench = Bench(on_refusal=broken)

    assert_refused(await bench.send(await bench.maker.broken("token.missing", "pay")), 401, "token.missing")


class Bug:
    async def insert(self, _key: tuple[str, str], **_times: int) -> None:
        raise ZeroDivisionError


class Away:
    async def insert(self, _key: tuple[str, str], **_times: int) -> None:
        raise Unavailable("replay.unavailable", retry_after=1)


@pytest.mark.parametrize(("store", "code"), [(Bug(), "decide.failed"), (Away(), "replay.unavailable")])
async def test_d13_a_store_that_is_away_or_broken_refuses(store: Any, code: str) -> None:
    bench = Bench(replay=store)

    answer = await bench.send(await bench.maker.call("pay"))

    assert_refused(answer, 503, code)
    assert bench.app.scopes == []


# Raw ASGI


def scope_of(message: Message, **changes: Any) -> dict[str, Any]:
    path, _, query = message.target.partition("?")
    return {
        "type": "http",
        "method": message.method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in message.headers],
        **changes,
    }


async def serve(app: CountersignVerifier, scope: dict[str, Any], *events: dict[str, Any]) -> tuple[int, Any]:
    """Return status and body of the answer; status 0 if there is none."""
    pending, sent = list(events), []

    async def receive() -> Any:
        if pending:
            return pending.pop(0)
        return await asyncio.Event().wait()

    async def send(event: Any) -> None:
        sent.append(event)

    await app(scope, receive, send)
    if not sent:
        return 0, None
    return sent[0]["status"], sent[1]["body"]


def parts_of(body: bytes, size: int = 10) -> list[dict[str, Any]]:
    pieces = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    return [
        {"type": "http.request", "body": piece, "more_body": number + 1 < len(pieces)}
        for number, piece in enumerate(pieces)
    ]


async def test_a_body_in_pieces_is_handed_on_whole() -> None:
    bench = Bench()
    message = await bench.maker.call("pay", {"amount": 1})

    status, _ = await serve(bench.guarded, scope_of(message), *parts_of(message.body), {"type": "http.disconnect"})

    assert status == 200
    assert bench.app.bodies == [message.body]


async def test_d9_the_raw_target_is_what_was_signed() -> None:
    bench = Bench()
    message = await bench.maker.call("pay")

    status, body = await serve(bench.guarded, scope_of(message, raw_path=b"/%6dcp"), *parts_of(message.body))

    assert (status, json.loads(body)["code"]) == (401, "proof.signature")


@pytest.mark.parametrize("raw_path", [None, b""])
async def test_a_server_without_a_raw_path_serves_nobody(raw_path: bytes | None) -> None:
    bench = Bench()
    message = await bench.maker.call("pay")

    status, body = await serve(bench.guarded, scope_of(message, raw_path=raw_path), *parts_of(message.body))

    assert (status, json.loads(body)["code"]) == (503, "decide.failed")


@pytest.mark.parametrize("announced", [b"99999999", b"-1", b"1e3", b"9" * 40])
async def test_e3_a_body_that_is_announced_too_long_is_not_read(announced: bytes) -> None:
    bench = Bench()
    scope = scope_of(await bench.maker.call("pay"))
    scope["headers"] = [(name, announced if name == b"content-length" else value) for name, value in scope["headers"]]

    status, body = await serve(bench.guarded, scope)

    assert (status, json.loads(body)["code"]) == (413, "parse.size")


async def test_e3_a_body_that_grows_too_long_is_not_read_to_its_end() -> None:
    bench = Bench()
    message = await bench.maker.call("pay")
    scope = scope_of(replace(message, headers=tuple(one for one in message.headers if one[0] != "content-length")))
    piece = {"type": "http.request", "body": bytes(100_000), "more_body": True}

    status, body = await serve(bench.guarded, scope, *[piece] * 3)

    assert (status, json.loads(body)["code"]) == (413, "parse.size")


async def test_e3_a_slow_body_is_given_up() -> None:
    bench = Bench()
    bench.guarded = bench.maker.protect(bench.app, replace(bench.maker.settings, body_seconds=0.01))
    message = await bench.maker.call("pay")

    status, body = await serve(bench.guarded, scope_of(message), *parts_of(message.body)[:1])

    assert (status, json.loads(body)["code"]) == (413, "parse.size")


async def test_a_client_that_leaves_gets_nothing_and_runs_nothing() -> None:
    bench = Bench()
    message = await bench.maker.call("pay")

    status, _ = await serve(bench.guarded, scope_of(message), parts_of(message.body)[0], {"type": "http.disconnect"})

    assert status == 0
    assert bench.app.scopes == []


async def test_a_stranger_without_a_token_is_refused_before_its_body_is_read() -> None:
    bench = Bench()

    status, body = await serve(bench.guarded, scope_of(Message("POST", "/mcp", (), b"")))

    assert (status, json.loads(body)["code"]) == (401, "token.missing")


async def test_life_span_passes_and_web_sockets_do_not() -> None:
    bench = Bench()
    await bench.guarded({"type": "lifespan"}, None, None)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(event: Any) -> None:
        sent.append(event)

    await bench.guarded({"type": "websocket"}, receive, send)

    assert [scope["type"] for scope in bench.app.scopes] == ["lifespan"]
    assert sent == [{"type": "websocket.close", "code": 1008}]
    with pytest.raises(RuntimeError):
        await bench.guarded({"type": "webtransport"}, receive, send)


def test_a_server_that_is_not_configured_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COUNTERSIGN_VERIFIER_ISSUER", raising=False)

    with pytest.raises(ValueError, match="COUNTERSIGN_VERIFIER_ISSUER is not set"):
        CountersignVerifier(App())


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_VERIFIER_ISSUER", "https://countersign.example.com")
    monkeypatch.setenv("COUNTERSIGN_VERIFIER_AUDIENCE", "https://tools.example.com/x")
    monkeypatch.setenv("COUNTERSIGN_VERIFIER_JWKS_URL", "https://countersign.example.com/.well-known/jwks.json")

    assert CountersignVerifier(App())
    assert VerifierSettings.from_environment().audience == "https://tools.example.com/x"
