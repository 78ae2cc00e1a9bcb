"""Before a real FastMCP server: the middleware sees the bytes first, and only checked calls run a tool."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastmcp import FastMCP
from fastmcp.server.dependencies import get_http_request
from starlette.middleware import Middleware

from countersign.verifier import STATE, CountersignVerifier
from countersign.verifier.testing import CallMaker
from countersign.wire import MemoryReplayCache

if TYPE_CHECKING:
    from countersign.wire import Message

RAN: list[Any] = []


def server() -> FastMCP:
    mcp = FastMCP("payroll")

    @mcp.tool
    def pay(amount: int) -> str:
        RAN.append(amount)
        caller = getattr(get_http_request().state, STATE)
        return f"{amount} for {caller.agent}"

    return mcp


async def sent(maker: CallMaker, *messages: Message) -> list[httpx.Response]:
    RAN.clear()
    guard = Middleware(
        CountersignVerifier,
        maker.settings,
        jwks=maker.jwks,
        replay=MemoryReplayCache(epoch=0),
        on_refusal=lambda _refusal: None,
    )
    app = server().http_app(path="/mcp", middleware=[guard], json_response=True, stateless_http=True)
    async with (
        app.lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client,
    ):
        return [await client.request(one.method, one.target, headers=one.headers, content=one.body) for one in messages]


async def test_a_checked_call_runs_and_the_tool_knows_who_calls() -> None:
    maker = CallMaker()

    [answer] = await sent(maker, await maker.call("pay", {"amount": 7}))

    assert answer.status_code == 200, answer.text
    [content] = answer.json()["result"]["content"]
    assert content["text"] == "7 for spiffe://agents.example.com/ns/default/sa/test-agent"
    assert RAN == [7]


async def test_the_list_of_tools_needs_a_token_for_it() -> None:
    maker = CallMaker()

    [listed] = await sent(maker, await maker.call("", method="tools/list"))

    assert [tool["name"] for tool in listed.json()["result"]["tools"]] == ["pay"]


@pytest.mark.parametrize("code", ["token.missing", "proof.signature", "digest.mismatch", "call.args"])
async def test_a_broken_call_runs_nothing(code: str) -> None:
    maker = CallMaker()

    [answer] = await sent(maker, await maker.broken(code, "pay", {"amount": 7}))

    assert answer.json()["code"] == code
    assert RAN == []


async def test_a6_the_same_call_runs_once() -> None:
    maker = CallMaker()
    message = await maker.call("pay", {"amount": 7})

    first, second = await sent(maker, message, message)

    assert (first.status_code, second.status_code) == (200, 401)
    assert json.loads(second.content)["code"] == "proof.replayed"
    assert RAN == [7]
