"""What real MCP clients really sent, byte for byte, replayed through a served proxy (wire.md 2.3; tests/data/mcp).

The recordings were made between unmodified clients and a plain server at ``/payroll/mcp``; only path and Host change.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import h11
import pytest
from support.loopback import PORT, Rig, entry, rig_of, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DATA = Path(__file__).parents[1] / "data" / "mcp"
RECORDINGS = {path.name: json.loads(path.read_text()) for path in sorted(DATA.glob("*.json"))}
CLIENTS = {name: value["exchanges"] for name, value in RECORDINGS.items() if "exchanges" in value}
STRICTNESS = {case["case"]: case for case in RECORDINGS["server-strictness.json"]["cases"]}
TOOLS = ["echo", "fail", "slow", "nope"]
POSTS = [
    pytest.param(one, id=f"{name}-{number}")
    for name, exchanges in CLIENTS.items()
    for number, one in enumerate(exchanges)
    if one["request"]["head"].startswith("POST")
]
OTHERS = [
    pytest.param(one, id=f"{name}-{number}")
    for name, exchanges in CLIENTS.items()
    for number, one in enumerate(exchanges)
    if not one["request"]["head"].startswith("POST")
]
SESSION_OR_ACCEPT = {"accept json only", "legacy no session, 2025 header", "header 2025-11-25 + modern _meta"}
"""Refused by the server for what is its own affair: its sessions, and what it can answer in."""


@dataclass
class Served:
    """A proxy on a socket, and the two twins behind it."""

    rig: Rig
    port: int

    async def raw(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send these bytes and read one answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        ours = h11.Connection(h11.CLIENT)
        ours.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
        ours.send(h11.EndOfMessage())
        status, headers, body = 0, {}, b""
        async with asyncio.timeout(10):
            while not isinstance(event := ours.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    ours.receive_data(await reader.read(65536))
                elif isinstance(event, h11.Response):
                    status, headers = event.status_code, {n.decode(): v.decode() for n, v in event.headers}
                elif isinstance(event, h11.Data):
                    body += event.data
        writer.close()
        return status, headers, body


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with rig_of(tmp_path) as rig, serving(rig.proxy) as port:
        rig.front.servers = [entry("payroll", tools=[{"name": name} for name in TOOLS])]
        rig.front.tools = TOOLS
        yield Served(rig, port)


def moved(request: dict[str, str]) -> bytes:
    """Return the recorded request as the same client sends it to the proxy."""
    head = request["head"].replace(" /payroll/mcp ", " /payroll ", 1)
    head, count = re.subn(r"(?im)^host: [^\r]*", f"Host: 127.0.0.1:{PORT}", head)
    assert count == 1
    return head.encode("latin-1") + request["body"].encode()


def recorded(response: dict[str, str]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return status, media type and body of a recorded answer, without its chunks."""
    theirs = h11.Connection(h11.CLIENT)
    theirs.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
    theirs.send(h11.EndOfMessage())
    theirs.receive_data(response["head"].encode("latin-1") + response["body"].encode())
    first, body = theirs.next_event(), b""
    assert isinstance(first, h11.Response)
    while isinstance(event := theirs.next_event(), h11.Data):
        body += event.data
    kept = [(name, value) for name, value in first.headers if name in {b"content-type", b"mcp-session-id"}]
    return first.status_code, kept, body


def test_there_are_recordings_of_both_languages_and_revisions() -> None:
    assert len(CLIENTS) == 8
    assert len(POSTS) > 35


@pytest.mark.parametrize("exchange", POSTS)
async def test_each_recorded_post_reaches_the_tool_server_as_it_was_sent(served: Served, exchange: Any) -> None:
    status, headers, body = recorded(exchange["response"])
    served.rig.tool.says(status, headers, body)
    got_status, got_headers, got_body = await served.raw(moved(exchange["request"]))
    (seen,) = served.rig.tool.seen
    sent = json.loads(exchange["request"]["body"])
    assert seen.body == exchange["request"]["body"].encode()
    assert got_status == status
    assert got_headers.get("mcp-session-id", "") == dict(headers).get(b"mcp-session-id", b"").decode()
    if sent["method"] == "tools/list":
        assert b'"echo"' in got_body
    else:
        assert got_body == body
    for name in ("mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name"):
        line = re.search(rf"(?im)^{name}: ([^\r]*)", exchange["request"]["head"])
        assert seen.get(name) == (line[1] if line else None)


@pytest.mark.parametrize("exchange", POSTS)
async def test_each_recorded_post_is_asked_for_as_what_it_is(served: Served, exchange: Any) -> None:
    await served.raw(moved(exchange["request"]))
    sent = json.loads(exchange["request"]["body"])
    called = sent["method"] == "tools/call"
    form = served.rig.front.asked("/token")[0].body.decode()
    details = json.loads(parse_qs(form)["authorization_details"][0])
    assert details[0]["method"] == sent["method"]
    assert details[0]["tool"] == (sent["params"]["name"] if called else "")
    assert details[0]["arguments"] == (sent["params"].get("arguments", {}) if called else {})


@pytest.mark.parametrize("exchange", POSTS)
async def test_each_recorded_post_is_refused_in_the_form_that_its_client_reads(served: Served, exchange: Any) -> None:
    served.rig.front.refuse("/token", "policy.default_deny", 403)
    status, headers, body = await served.raw(moved(exchange["request"]))
    sent, said = json.loads(exchange["request"]["body"]), json.loads(body)
    if "id" in sent:
        assert (status, headers["content-type"], said["id"]) == (200, "application/json", sent["id"])
        assert said["error"]["data"] == {"code": "policy.default_deny"}
    else:
        assert (status, said["code"]) == (403, "policy.default_deny")


@pytest.mark.parametrize("exchange", OTHERS)
async def test_each_recorded_get_and_delete_is_405(served: Served, exchange: Any) -> None:
    status, headers, body = await served.raw(moved(exchange["request"]))
    assert (status, headers["allow"], json.loads(body)["code"]) == (405, "POST", "mcp.http_method")


@pytest.mark.parametrize("name", ["mcp-method", "mcp-name"])
@pytest.mark.parametrize("exchange", [one for one in POSTS if "2026-07-28" in one.id])
async def test_a_mirrored_header_that_is_changed_by_one_byte_is_refused(
    served: Served, exchange: Any, name: str
) -> None:
    head = exchange["request"]["head"]
    changed, count = re.subn(rf"(?im)^({name}: [^\r]*)[^\r]", r"\1~", head)
    if count == 0:
        changed = head.replace("\r\n\r\n", "\r\nmcp-name: other\r\n\r\n")
    status, _, body = await served.raw(moved({"head": changed, "body": exchange["request"]["body"]}))
    assert (status, json.loads(body)["error"]["code"]) == (400, -32020)
    assert served.rig.tool.seen == []


@pytest.mark.parametrize("case", STRICTNESS)
async def test_what_the_server_refuses_does_not_reach_it_and_four_more_do_not(served: Served, case: str) -> None:
    request = STRICTNESS[case]
    body = base64.b64decode(request["body_base64"]) if "body_base64" in request else request["body"].encode()
    fields = [*request["headers"], ["host", f"127.0.0.1:{PORT}"], ["content-length", str(len(body))]]
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    await served.raw(b"POST /payroll HTTP/1.1\r\n" + head.encode() + b"\r\n" + body)
    refused_by_us = {"dup key name (echo then fail)", "utf-16", "NaN arg", "no id"}
    refused = request["status"] >= 400 or case in refused_by_us
    assert len(served.rig.tool.seen) == (0 if refused and case not in SESSION_OR_ACCEPT else 1)


async def test_an_agent_that_was_answered_did_not_leave(served: Served) -> None:
    for exchange in CLIENTS["py-mcp.2026-07-28.json"]:
        await served.raw(moved(exchange["request"]))
    assert served.rig.counted("policy.allowed") >= 5  # the last one may still be counting
    assert served.rig.counted("gone") == 0


async def test_a_form_that_no_client_of_ours_shows_is_not_used(served: Served) -> None:
    """The last row of the recording: of all forms only this one shows code, message and data to every caller."""
    shown = RECORDINGS["client-refusals.json"]["forms"][-1]
    assert shown["answer"].startswith("200 application/json")
    served.rig.front.refuse("/token", "policy.denied", 403)
    status, headers, body = await served.raw(moved(CLIENTS["py-mcp.2026-07-28.json"][2]["request"]))
    assert f"{status} {headers['content-type']}" == "200 application/json"
    assert json.loads(body).keys() == {"jsonrpc", "id", "error"}
