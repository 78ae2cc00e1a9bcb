"""What comes back through the proxy: as it came, unbuffered, less the tools and the token that are not the agent's."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
import rfc8785
from support.loopback import EVENTS, JSON, PORT, PROBLEM, answer, call, entry, serving
from support.loopback import WEB as TRUSTED

from countersign.devcluster.pki import LocalCA
from countersign.signer.answers import REMOVED, TokenFilter
from countersign.signer.exchange import Exchange
from countersign.signer.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from support.loopback import Rig, Seen

LISTING = {"jsonrpc": "2.0", "id": 3, "method": "tools/list"}
TOOLS = [{"name": "get_charge", "description": "d"}, {"name": "create_refund"}, {"name": "hidden"}]
LIST_ANSWER = json.dumps({"jsonrpc": "2.0", "id": 3, "result": {"tools": TOOLS, "nextCursor": "c"}}).encode()
SECONDS = 10


class Agent:
    """An agent's connection to the proxy, event by event: httpx's transport would wait for the end of an answer."""

    def __init__(self, rig: Rig, message: Any = None) -> None:
        body = json.dumps(message or call()).encode()
        headers = [
            (b"host", f"127.0.0.1:{PORT}".encode()),
            (b"content-type", b"application/json"),
            (b"mcp-protocol-version", b"2025-11-25"),
        ]
        scope = {"type": "http", "method": "POST", "raw_path": b"/stripe", "query_string": b"", "headers": headers}
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.left = asyncio.Event()
        self._body = [body]
        self.task = asyncio.create_task(rig.proxy(scope, self._receive, self.events.put))

    async def _receive(self) -> dict[str, Any]:
        if self._body:
            return {"type": "http.request", "body": self._body.pop()}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(SECONDS):
            return await self.events.get()

    async def leave(self) -> None:
        self.left.set()
        async with asyncio.timeout(SECONDS):
            await self.task


async def test_an_answer_comes_as_it_came(rig: Rig) -> None:
    body = '{"id":7,  "jsonrpc":"2.0","result":{"content":[{"type":"text","text":"h\u00e9 \\u00e9"}]}}'.encode()
    rig.tool.says(200, [*JSON, (b"mcp-session-id", b"s1"), (b"cache-control", b"no-store")], body)
    got = await rig.post(call())
    assert got.content == body
    assert (got.headers["mcp-session-id"], got.headers["cache-control"]) == ("s1", "no-store")


async def test_fields_that_an_agent_has_no_use_for_stay_behind(rig: Rig) -> None:
    more = [
        (b"set-cookie", b"a=b"),
        (b"www-authenticate", b"Bearer"),
        (b"location", b"/x"),
        (b"countersign-nonce", b"n"),
    ]
    rig.tool.says(200, [*JSON, *more, (b"x-debug", b"1")], b"{}")
    assert set((await rig.post(call())).headers) == {"content-type"}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 406, 500, 503])
async def test_a_tool_servers_own_errors_are_its_own(rig: Rig, status: int) -> None:
    rig.tool.says(status, JSON, b'{"jsonrpc":"2.0","id":7,"error":{"code":-32022,"message":"no"}}')
    got = await rig.post(call())
    assert got.status_code == status
    assert got.json()["error"]["code"] == -32022


async def test_a_problem_document_that_is_not_ours_is_passed_on(rig: Rig) -> None:
    rig.tool.says(422, PROBLEM, b'{"type":"about:blank","title":"Unprocessable"}')
    got = await rig.post(call())
    assert (got.status_code, got.json()["title"]) == (422, "Unprocessable")


async def test_an_accepted_notification_has_an_empty_answer(rig: Rig) -> None:
    rig.tool.says(202, [], b"")
    got = await rig.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert (got.status_code, got.content) == (202, b"")


async def test_a_stream_arrives_event_by_event(rig: Rig) -> None:
    second = asyncio.Event()

    async def stream(_request: Seen, send: Callable[[Any], Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await second.wait()
        await send({"type": "http.response.body", "body": b"data: 2\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    rig.tool.script.append(stream)
    agent = Agent(rig)
    assert (await agent.next())["headers"] == EVENTS
    assert (await agent.next())["body"] == b"data: 1\n\n"  # and the second was not made yet
    second.set()
    assert (await agent.next())["body"] == b"data: 2\n\n"
    assert (await agent.next()) == {"type": "http.response.body", "body": b""}
    await agent.task


async def test_an_agent_that_leaves_a_stream_ends_it_at_the_tool_server(rig: Rig) -> None:
    ended = asyncio.Event()

    class Streaming:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            del scope
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
            ended.set()

    async with serving(Streaming(), "tools.billing.svc") as port:
        rig.net.hosts["tools.billing.svc"] = port
        agent = Agent(rig)
        await agent.next()
        await agent.next()
        await agent.leave()
        async with asyncio.timeout(SECONDS):
            await ended.wait()
    assert rig.counted("gone") == 1


async def test_an_agent_that_leaves_before_the_answer_ends_the_call_at_the_tool_server(rig: Rig) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        del scope, send
        await receive()
        began.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        ended.set()

    async with serving(slow, "tools.billing.svc") as port:
        rig.net.hosts["tools.billing.svc"] = port
        agent = Agent(rig)
        async with asyncio.timeout(SECONDS):
            await began.wait()
        await agent.leave()
        async with asyncio.timeout(SECONDS):
            await ended.wait()
    assert agent.events.empty()
    assert rig.counted("gone") == 1


async def test_an_agent_that_leaves_before_the_decision_gets_no_call_made(rig: Rig) -> None:
    await rig.post(call())
    rig.front.hold, rig.front.held = asyncio.Event(), asyncio.Event()
    agent = Agent(rig)
    async with asyncio.timeout(SECONDS):
        await rig.front.held.wait()
    await agent.leave()
    rig.front.hold.set()
    assert len(rig.tool.seen) == 1
    assert agent.events.empty()


async def test_an_agent_that_leaves_after_the_answer_did_not_leave_too_early() -> None:
    over = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(event: dict[str, Any]) -> None:
        if event["type"] == "http.response.body":
            over.set()

    async def work() -> str:
        await exchange.reply(Reply(200, (), b""))
        for _ in range(5):
            await asyncio.sleep(0)  # a connection that takes its time to close
        return "done"

    exchange = Exchange({"method": "POST", "raw_path": b"/stripe", "headers": []}, receive, send)
    assert await exchange.while_here(work()) == "done"


async def test_an_answer_that_breaks_off_breaks_off(rig: Rig) -> None:
    async def broken(_request: Seen, send: Callable[[Any], Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [*JSON, (b"content-length", b"100")]})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        raise ConnectionResetError

    rig.tool.script.append(broken)
    agent = Agent(rig)
    await agent.task
    events = [agent.events.get_nowait() for _ in range(agent.events.qsize())]
    assert [event.get("more_body") for event in events] == [None, True]  # begun, and never ended


@pytest.mark.parametrize("tools", [["get_charge", "create_refund"], ["create_refund"], [], None])
async def test_a_list_shows_what_the_front_door_named(rig: Rig, tools: list[str] | None) -> None:
    rig.front.tools = tools
    rig.tool.says(200, JSON, LIST_ANSWER)
    result = (await rig.post(LISTING)).json()["result"]
    assert [one["name"] for one in result["tools"]] == [one["name"] for one in TOOLS if one["name"] in (tools or [])]
    assert result["nextCursor"] == "c"


async def test_a_list_in_a_stream_is_filtered_too(rig: Rig) -> None:
    rig.front.tools = ["get_charge"]
    stream = (
        b'id: 0\ndata: \n\n: ping\n\nevent: message\r\ndata: {"jsonrpc":"2.0","method":"notifications/message"}\r\n\r\n'
    )
    rig.tool.says(200, EVENTS, stream + b"event: message\ndata: " + LIST_ANSWER + b"\n\n")
    got = await rig.post(LISTING)
    assert got.headers["content-type"] == "text/event-stream"
    data = [line[6:] for line in got.text.split("\n") if line.startswith("data: {")]
    assert json.loads(data[0])["method"] == "notifications/message"
    assert [one["name"] for one in json.loads(data[1])["result"]["tools"]] == ["get_charge"]
    assert "hidden" not in got.text


@pytest.mark.parametrize(
    ("status", "kind", "before", "after"),
    [(201, JSON, b"", b""), (203, EVENTS, b"data: ", b"\n\n"), (200, EVENTS, b"\xef\xbb\xbfdata: ", b"\n\n")],
)
async def test_d6_no_other_form_of_a_good_answer_gets_a_list_past_the_filter(
    rig: Rig, status: int, kind: Any, before: bytes, after: bytes
) -> None:
    rig.front.tools = ["get_charge"]
    rig.tool.says(status, kind, before + LIST_ANSWER + after)
    got = await rig.post(LISTING)
    assert got.status_code == status
    assert "get_charge" in got.text
    assert "hidden" not in got.text


async def test_an_entry_with_another_definition_than_the_pinned_one_is_dropped(rig: Rig) -> None:
    pinned = "sha256:" + hashlib.sha256(rfc8785.dumps(TOOLS[0])).hexdigest()
    rig.front.tools = ["get_charge", "create_refund"]
    tools = [{"name": "get_charge", "definition": pinned}, {"name": "create_refund", "definition": pinned}]
    rig.front.servers = [entry(tools=tools)]
    rig.tool.says(200, JSON, LIST_ANSWER)
    assert (await rig.post(LISTING)).json()["result"]["tools"] == [TOOLS[0]]


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b"[]",
        b'{"result":{}}',
        b'{"result":[]}',
        b'{"result":{"tools":{}}}',
        b'{"result":{"tools":[],"x":NaN}}',
        b"\xff",
        b"[" * 9000,
    ],
)
async def test_a_list_that_cannot_be_read_is_not_passed_on(rig: Rig, body: bytes) -> None:
    rig.tool.says(200, JSON, body)
    error = (await rig.post(LISTING)).json()["error"]
    assert (error["code"], error["data"]) == (502, {})


@pytest.mark.parametrize("name", [["get_charge"], None, 5, {"a": 1}])
async def test_an_entry_whose_name_is_no_name_is_dropped(rig: Rig, name: Any) -> None:
    rig.front.tools = ["get_charge"]
    rig.tool.says(200, JSON, json.dumps({"id": 3, "result": {"tools": [{"name": name}]}}).encode())
    assert (await rig.post(LISTING)).json()["result"]["tools"] == []


async def test_an_error_instead_of_a_list_is_passed_on(rig: Rig) -> None:
    rig.tool.says(200, JSON, b'{"jsonrpc":"2.0","id":3,"error":{"code":-32603,"message":"x"}}')
    assert (await rig.post(LISTING)).json()["error"]["code"] == -32603


async def echo(request: Seen, send: Any) -> None:
    """A tool server that puts every field it got into its answer."""
    text = json.dumps({"jsonrpc": "2.0", "id": 7, "result": dict(request.headers)})
    await answer(send, 200, [*JSON, (b"mcp-echo", (request.get("authorization") or "").encode())], text.encode())


async def test_a_tool_server_that_echoes_its_request_does_not_give_the_agent_the_token(rig: Rig) -> None:
    rig.tool.script.append(echo)
    got = await rig.post(call())  # checks that no token is in it
    assert got.json()["result"]["authorization"] == f"Countersign {REMOVED.decode()}"
    assert "mcp-echo" not in got.headers


async def test_a_list_that_repeats_the_token_does_not_bring_it_back(rig: Rig) -> None:
    async def listing(request: Seen, send: Any) -> None:
        tools = [{"name": "get_charge", "description": request.get("authorization")}]
        await answer(send, 200, JSON, json.dumps({"jsonrpc": "2.0", "id": 3, "result": {"tools": tools}}).encode())

    rig.front.tools = ["get_charge"]
    rig.tool.script.append(listing)
    (shown,) = (await rig.post(LISTING)).json()["result"]["tools"]
    assert shown["description"] == f"Countersign {REMOVED.decode()}"


async def test_a_token_in_two_pieces_of_a_stream_is_removed_as_well(rig: Rig) -> None:
    async def split(request: Seen, send: Callable[[Any], Awaitable[None]]) -> None:
        token = (request.get("authorization") or "").partition(" ")[2].encode()
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        for part in (b"data: " + token[:9], token[9:30], token[30:] + b" " + token + b"\n\n"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    rig.tool.script.append(split)
    assert (await rig.post(call())).content == b"data: " + REMOVED + b" " + REMOVED + b"\n\n"


async def test_a_refusal_that_repeats_the_token_does_not_bring_it_back(rig: Rig) -> None:
    async def refuse(request: Seen, send: Any) -> None:
        document = {"code": "token.signature", "decision": request.get("authorization")}
        await answer(send, 401, PROBLEM, json.dumps(document).encode())

    rig.tool.script.append(refuse)
    assert (await rig.post(call())).json()["error"]["data"]["code"] == "token.signature"


@pytest.mark.parametrize("cut", range(1, 12))
def test_what_only_looks_like_the_token_goes_on_unchanged(cut: int) -> None:
    text = b"eyJhbGciOiJub25lIn0 eyJhbGci eyJhbGciOiJFUzI1NiJ9.x.y!" * 3
    found = TokenFilter("eyJhbGciOiJFUzI1NiJ9.x.yz")
    parts = [found.feed(text[at : at + cut]) for at in range(0, len(text), cut)]
    assert b"".join([*parts, found.end()]) == text
    assert not found.found


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_and_not_passed_on(rig: Rig, status: int) -> None:
    rig.tool.says(status, [(b"location", b"https://tools.billing.svc/other")], b"")
    error = (await rig.post(call())).json()["error"]
    assert error == {"code": 502, "message": "The tool server answered with a redirect", "data": {}}
    assert len(rig.tool.seen) == 1


async def test_a_coded_answer_is_not_passed_on(rig: Rig) -> None:
    rig.tool.says(200, [*JSON, (b"content-encoding", b"gzip")], b"\x1f\x8b")
    assert (await rig.post(call())).json()["error"]["code"] == 502
    assert rig.tool.seen[0].get("accept-encoding") is None


async def test_a_tool_server_that_is_not_there_is_said_to_be_so(rig: Rig) -> None:
    del rig.net.hosts["tools.billing.svc"]
    error = (await rig.post(call())).json()["error"]
    assert error == {"code": 502, "message": "The tool server did not answer", "data": {}}
    assert rig.counted("unreachable") == 1


async def test_a_notification_to_a_tool_server_that_is_not_there_gets_a_problem_document(rig: Rig) -> None:
    del rig.net.hosts["tools.billing.svc"]
    got = await rig.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert (got.status_code, got.headers["content-type"]) == (502, "application/problem+json")


@pytest.mark.parametrize(
    ("ca", "name"), [(LocalCA("another CA"), "tools.billing.svc"), (TRUSTED, "other.billing.svc")], ids=["ca", "name"]
)
async def test_a_tool_server_that_tls_does_not_prove_gets_nothing(rig: Rig, ca: LocalCA, name: str) -> None:
    async with serving(rig.tool, name, ca=ca) as port:
        rig.net.hosts["tools.billing.svc"] = port
        assert (await rig.post(call())).json()["error"]["code"] == 502
    assert rig.tool.seen == []


async def test_a_tool_server_without_tls_behind_an_https_endpoint_gets_nothing(rig: Rig) -> None:
    async with serving(rig.tool) as port:
        rig.net.hosts["tools.billing.svc"] = port
        assert (await rig.post(call())).json()["error"]["code"] == 502
    assert rig.tool.seen == []


async def test_a_service_of_the_cluster_may_be_reached_without_tls(rig: Rig) -> None:
    rig.front.servers = [entry(endpoint="http://plain.billing.svc:8080/mcp")]
    async with serving(rig.tool) as port:
        rig.net.hosts["plain.billing.svc"] = port
        assert (await rig.post(call())).json()["result"] == {"ok": True}
    assert rig.tool.seen[0].get("host") == "plain.billing.svc:8080"


async def test_a_ca_bundle_that_cannot_be_read_is_no_reason_to_trust_another(rig: Rig) -> None:
    rig.front.servers = [entry(ca_bundle="nonsense")]
    assert (await rig.post(call())).json()["error"]["code"] == 502
    assert rig.tool.seen == []


async def test_a_front_door_that_tls_does_not_prove_gets_nothing(rig: Rig) -> None:
    async with serving(rig.front, "countersign.example.com", ca=LocalCA("another CA")) as port:
        rig.net.hosts["countersign.example.com"] = port
        assert (await rig.post(call())).json()["error"]["data"]["code"] == "decide.unavailable"
    assert rig.front.seen == []
