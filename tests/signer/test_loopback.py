"""What reaches what through the proxy: who may ask, by which path, and which fields travel (wire.md 2.2, 4.1, 4.2)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest
from support.loopback import AUDIENCE, PORT, call, entry

from countersign.errors import Unavailable

if TYPE_CHECKING:
    from support.loopback import Rig


@pytest.mark.parametrize("host", [f"127.0.0.1:{PORT}", f"localhost:{PORT}", f"LOCALHOST:{PORT}"])
async def test_the_proxys_own_names_are_served(rig: Rig, host: str) -> None:
    assert (await rig.post(call(), host=host)).json()["result"] == {"ok": True}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "evil.example:7080", f"[::1]:{PORT}", "127.0.0.1:7081", ""])
async def test_any_other_host_is_refused_as_dns_rebinding(rig: Rig, host: str) -> None:
    got = await rig.post(call(), host=host)
    assert (got.status_code, got.json()["code"]) == (403, "request.origin")
    assert rig.front.seen == []


async def test_two_hosts_are_refused(rig: Rig) -> None:
    headers = [("host", f"127.0.0.1:{PORT}"), ("host", f"127.0.0.1:{PORT}"), ("content-type", "application/json")]
    got = await rig.client.post("/stripe", content=json.dumps(call()), headers=headers)
    assert (got.status_code, got.json()["code"]) == (403, "request.origin")


@pytest.mark.parametrize(("name", "value"), [("origin", "https://evil.example"), ("origin", "null"), ("origin", "")])
async def test_a_request_with_an_origin_is_refused(rig: Rig, name: str, value: str) -> None:
    got = await rig.post(call(), **{name: value})
    assert (got.status_code, got.json()["code"]) == (403, "request.origin")
    assert rig.front.seen == []


@pytest.mark.parametrize("value", ["cross-site", "same-origin", "none"])
async def test_a_request_of_any_browser_is_refused(rig: Rig, value: str) -> None:
    got = await rig.post(call(), sec_fetch_site=value)
    assert (got.status_code, got.json()["code"]) == (403, "request.origin")


@pytest.mark.parametrize("path", ["/stripe", "/billing.stripe"])
async def test_a_server_is_at_its_name_and_at_its_full_name(rig: Rig, path: str) -> None:
    assert (await rig.post(call(), path)).json()["result"] == {"ok": True}
    assert rig.tool.seen[0].target == "/stripe"


async def test_a_server_of_another_namespace_is_at_its_full_name_alone(rig: Rig) -> None:
    rig.front.servers = [entry(namespace="payroll")]
    assert (await rig.post(call(), "/stripe")).status_code == 404
    assert (await rig.post(call(), "/payroll.stripe")).json()["result"] == {"ok": True}


async def test_two_servers_of_one_name_are_not_confused(rig: Rig) -> None:
    other = entry(namespace="payroll", audience="https://tools.billing.svc/other")
    rig.front.servers = [other, entry()]
    await rig.post(call(), "/stripe")
    await rig.post(call(), "/payroll.stripe")
    assert [one.target for one in rig.tool.seen] == ["/stripe", "/other"]


NOWHERE = (
    "/ /nothing /stripe/ /stripe/x /stripe/%2e%2e/stripe /%73tripe /billing%2estripe /.stripe /stripe. /-/servers",
    "/-/token /-/nothing /other.stripe //stripe /metrics /readyz /token",
)
FORWARDED = (
    "host authorization accept user-agent traceparent content-type mcp-protocol-version mcp-session-id content-length",
    "content-digest signature-input signature",
)


@pytest.mark.parametrize("path", [path for line in NOWHERE for path in line.split()])
async def test_nothing_else_is_reachable(rig: Rig, path: str) -> None:
    got = await rig.post(call(), path)
    assert got.status_code == 404
    assert rig.tool.seen == []
    assert rig.front.tokens == []


async def test_a_query_is_refused_by_its_code(rig: Rig) -> None:
    assert (await rig.post(call(), "/stripe?x=1")).json()["error"]["data"] == {"code": "http.path"}


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH", "OPTIONS"])
async def test_any_method_but_post_is_405(rig: Rig, method: str) -> None:
    got = await rig.client.request(method, "/stripe")
    assert got.status_code == 405
    assert got.headers["allow"] == "POST"
    assert got.json()["code"] == "mcp.http_method"


async def test_another_method_at_no_server_is_404(rig: Rig) -> None:
    assert (await rig.client.get("/nothing")).status_code == 404


async def test_the_servers_are_listed(rig: Rig) -> None:
    rig.front.servers = [entry(), entry("ledger", "payroll", protocol="HTTP")]
    got = await rig.client.get("/-/servers")
    assert got.json() == {
        "servers": [
            {"name": "stripe", "namespace": "billing", "protocol": "MCP", "path": "/billing.stripe"},
            {"name": "ledger", "namespace": "payroll", "protocol": "HTTP", "path": "/payroll.ledger"},
        ]
    }


async def test_without_an_identity_the_list_says_why(rig: Rig) -> None:
    rig.keyring.missing = Unavailable("attest.device_pending", "wait")
    got = await rig.client.get("/-/servers")
    assert (got.status_code, got.json()["code"]) == (503, "attest.device_pending")


async def test_the_catalogue_is_asked_for_again_after_ten_seconds_or_for_a_path_that_is_not_there(rig: Rig) -> None:
    await rig.post(call())
    await rig.post(call())
    assert len(rig.front.asked("/catalogue")) == 1
    rig.front.servers.append(entry("ledger"))
    rig.clock.advance(0.5)
    assert (await rig.post(call(), "/ledger")).status_code == 404  # just asked
    rig.clock.advance(1)
    assert (await rig.post(call(), "/ledger")).status_code == 200
    rig.front.servers.clear()
    rig.clock.advance(9)
    assert (await rig.post(call())).status_code == 200
    rig.clock.advance(2)
    assert (await rig.post(call())).status_code == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint": "http://tools.example.com/x"},
        {"endpoint": "ftp://tools.example.com/x"},
        {"endpoint": "https://user@tools.example.com/x"},
        {"endpoint": "https://tools.example.com/x?y=1"},
        {"endpoint": "https://tools.example.com:port/x"},
        {"endpoint": "https:///x"},
        {"endpoint": 5},
        {"tools": None},
        {"tools": ["get_charge"]},
        {"name": ""},
    ],
)
async def test_an_entry_that_cannot_be_used_hides_no_other(rig: Rig, wrong: dict[str, object]) -> None:
    rig.front.servers = [{**entry("broken"), **wrong}, entry()]
    assert (await rig.post(call(), "/broken")).status_code == 404
    assert (await rig.post(call())).json()["result"] == {"ok": True}


async def test_only_the_fields_of_the_page_travel(rig: Rig) -> None:
    await rig.post(
        call(),
        authorization="Bearer secret",
        dpop="x",
        cookie="a=b",
        signature="x",
        signature_input="y",
        content_digest="z",
        proxy_authorization="Basic x",
        x_api_key="k",
        x_forwarded_for="1.2.3.4",
        x_http_method_override="DELETE",
        countersign_chain="c",
        countersign_nonce="c",
        countersign_session="c",
        countersign_pep="c",
        workload_identity_token="w",
        txn_token="t",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        mcp_session_id="s-1",
        user_agent="agent/1",
        accept="application/json, text/event-stream",
    )
    seen = rig.tool.seen[0]
    assert sorted(name for name, _ in seen.headers) == sorted(" ".join(FORWARDED).split())
    assert seen.get("authorization") == f"Countersign {rig.front.tokens[0]}"
    assert seen.get("host") == "tools.billing.svc"
    assert "secret" not in str(seen.headers)


@pytest.mark.parametrize("name", ["authorization", "mcp-protocol-version", "content-type", "countersign-x"])
async def test_a_field_that_occurs_twice_is_refused(rig: Rig, name: str) -> None:
    fields = {"content-type": "application/json", "mcp-protocol-version": "2025-11-25"}
    headers = [*fields.items(), (name, "x"), (name, "x")]
    got = await rig.client.post("/stripe", content=json.dumps(call()), headers=headers)
    assert got.json()["error"]["data"] == {"code": "parse.duplicate_header"}


async def test_the_bytes_forwarded_are_the_bytes_received(rig: Rig) -> None:
    body = '{ "id":0 ,"params":{"arguments":{"b":1.0,"a":"h\u00e9llo \\u00e9"},"name":"get_charge"},\n"method":"tools/call","jsonrpc":"2.0"}'
    await rig.post(body.encode())
    assert rig.tool.seen[0].body == body.encode()


async def test_leg_t_names_this_very_call(rig: Rig) -> None:
    arguments = {"charge": "ch_1", "amount": 1200, "note": "h\u00e9 & = +", "deep": {"x": [1, 2.5, None, True]}}
    await rig.post(call(arguments=arguments))
    asked = rig.front.asked("/token")[0]
    form = parse_qs(asked.body.decode(), strict_parsing=True)
    details = json.loads(form.pop("authorization_details")[0])
    assert details == [
        {
            "type": "countersign_call",
            "protocol": "MCP",
            "method": "tools/call",
            "tool": "get_charge",
            "arguments": arguments,
        }
    ]
    assert form == {
        "grant_type": ["urn:ietf:params:oauth:grant-type:token-exchange"],
        "subject_token_type": ["urn:countersign:token-type:task"],
        "subject_token": ["current"],
        "resource": [AUDIENCE],
    }
    assert asked.get("countersign-chain") == rig.keyring.identity.chain
    assert asked.get("authorization") is None


async def test_each_request_is_signed_for_its_own_audience_with_its_own_nonce(rig: Rig) -> None:
    await rig.post(call())
    nonces = set()
    for seen, audience in (
        (rig.front.asked("/catalogue")[0], "https://countersign.example.com/catalogue"),
        (rig.front.asked("/token")[0], "https://countersign.example.com/token"),
        (rig.tool.seen[0], AUDIENCE),
    ):
        given = seen.get("signature-input") or ""
        assert f'wimse-aud="{audience}"' in given
        nonces.add(given.partition('nonce="')[2].partition('"')[0])
    assert len(nonces) == 3
    assert "jti0000000000000000001" in nonces


async def test_an_endpoint_of_its_own_is_where_the_call_goes_and_the_audience_is_what_is_signed(rig: Rig) -> None:
    rig.front.servers = [entry(endpoint="https://tools.billing.svc/inner/mcp", audience="https://tools.example.com/s")]
    await rig.post(call())
    assert rig.tool.seen[0].target == "/inner/mcp"
    assert 'wimse-aud="https://tools.example.com/s"' in (rig.tool.seen[0].get("signature-input") or "")


async def test_mirrored_arguments_are_compared_and_forwarded(rig: Rig) -> None:
    tools = [{"name": "get_charge", "header_arguments": {"/where/region": "Region"}}]
    rig.front.servers = [entry(tools=tools)]
    message = call(arguments={"where": {"region": "eu"}})
    assert (await rig.modern(message, **{"mcp-param-region": "eu"})).json()["result"] == {"ok": True}
    assert rig.tool.seen[0].get("mcp-param-region") == "eu"
    for wrong in ("us", None):
        got = await rig.modern(message, **{"mcp-param-region": wrong})
        assert (got.status_code, got.json()["error"]["code"]) == (400, -32020)
    got = await rig.modern(message, **{"mcp-param-region": "eu", "mcp-param-other": "x"})
    assert got.json()["error"]["data"] == {"code": "mcp.header_mismatch"}


async def test_a_tool_that_is_not_in_the_catalogue_is_the_front_doors_to_refuse(rig: Rig) -> None:
    rig.front.refuse("/token", "tool.unknown", 403, decision="d-1")
    error = (await rig.post(call("drop_everything"))).json()["error"]
    assert error["data"] == {"code": "tool.unknown", "decision": "d-1"}
