"""The signer between the real front door and the real verifier: what each of them signs and checks is what the other means."""

from __future__ import annotations

import json
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from support.loopback import JSON, WEB, Rig, ToolTwin, call, rig_of, serving
from support.world import AUDIENCE, ISSUER, SPIFFE_ID, World, allow, policy

from countersign import kube
from countersign.verifier import STATE, CountersignVerifier, VerifierSettings
from countersign.wire import MemoryReplayCache, Nonces, chain_header

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@dataclass
class Whole:
    """The three parties."""

    world: World
    rig: Rig
    tool: ToolTwin
    verified: list[Any]
    requests: list[Any]
    app: Any


@asynccontextmanager
async def whole_of(directory: Path) -> AsyncIterator[Whole]:
    world = await World.make(directory)
    world.source.put(kube.TOOL_SERVERS, world.server(caBundle=WEB.pem.decode()))
    jwks = directory / "jwks.json"
    jwks.write_text(json.dumps(world.context.keys.jwks(int(world.clock.now().timestamp()))))
    tool, verified, requests = ToolTwin(), [], []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        verified.append(scope["state"][STATE])
        await tool(scope, receive, send)

    settings = VerifierSettings(issuer=ISSUER, audience=AUDIENCE, jwks_file=jwks)
    verifier = CountersignVerifier(inner, settings, clock=world.clock)
    world.clock.advance(7)  # past what a replay store does not believe after its start

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        requests.append(scope)
        await verifier(scope, receive, send)

    async def front(scope: Any, receive: Any, send: Any) -> None:
        await world.app(scope, receive, send)

    chain = chain_header([world.ca.leaf(world.key.public_key)])
    async with rig_of(directory, front=front, tool=outer, key=world.key, chain=chain, clock=world.clock) as rig:
        yield Whole(world, rig, tool, verified, requests, verifier)
    await world.context.aclose()


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Whole]:
    async with whole_of(tmp_path) as made:
        yield made


async def test_an_allowed_call_reaches_the_tool_as_the_agent_that_made_it(whole: Whole) -> None:
    got = await whole.rig.post(call("get_charge", {"charge": "ch_\u00e9"}))
    assert got.json()["result"] == {"ok": True}
    (caller,) = whole.verified
    assert (caller.agent, caller.tool, caller.key_tier) == (SPIFFE_ID, "get_charge", "TPM")
    seen = whole.tool.seen[0]
    assert not {name for name, _ in seen.headers} & {"authorization", "signature", "signature-input", "content-digest"}
    (record,) = await whole.world.records()
    assert record["metadata"]["uid"] == caller.txn


async def test_a_modern_call_reaches_it_too(whole: Whole) -> None:
    assert (await whole.rig.modern(call("get_charge"))).json()["result"] == {"ok": True}


@pytest.mark.parametrize(
    ("tool", "arguments", "code"),
    [
        ("create_refund", {}, "policy.default_deny"),
        ("get_charge", {"other": 1}, "tool.arguments_invalid"),
        ("nothing", {}, "tool.unknown"),
    ],
)
async def test_a_denied_call_says_why_and_has_a_record(
    whole: Whole, tool: str, arguments: dict[str, Any], code: str
) -> None:
    error = (await whole.rig.post(call(tool, arguments))).json()["error"]
    (record,) = await whole.world.records()
    assert error["data"] == {"code": code, "decision": record["metadata"]["uid"]}
    assert whole.requests == []


async def test_a_list_shows_what_policy_could_allow(whole: Whole) -> None:
    tools = [{"name": name} for name in ("get_charge", "create_refund", "list_charges")]
    whole.tool.says(200, JSON, json.dumps({"jsonrpc": "2.0", "id": 3, "result": {"tools": tools}}).encode())
    got = await whole.rig.post({"jsonrpc": "2.0", "id": 3, "method": "tools/list"})
    assert [one["name"] for one in got.json()["result"]["tools"]] == ["get_charge", "list_charges"]


async def test_a_whole_session_of_an_older_client_passes(whole: Whole) -> None:
    initialize = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}}
    assert (await whole.rig.post(initialize, mcp_protocol_version=None)).json()["id"] == 0
    whole.tool.says(202, [], b"")
    assert (await whole.rig.post({"jsonrpc": "2.0", "method": "notifications/initialized"})).status_code == 202
    assert (await whole.rig.post({"jsonrpc": "2.0", "id": 1, "method": "ping"})).json()["result"] == {"ok": True}


async def test_a_device_that_is_denied_is_refused_at_the_next_call(whole: Whole) -> None:
    await whole.rig.post(call())
    whole.world.source.put(kube.DEVICES, whole.world.device(state="Denied"))
    error = (await whole.rig.post(call())).json()["error"]
    assert error["data"]["code"] == "device.not_approved"


async def test_a_policy_that_changes_bites_at_the_next_call(whole: Whole) -> None:
    await whole.rig.post(call())
    whole.world.source.put(kube.TOOL_POLICIES, policy(allow("list_charges")))
    assert (await whole.rig.post(call())).json()["error"]["data"]["code"] == "policy.default_deny"


async def test_nonces_of_before_a_restart_of_the_front_door_cost_one_retry(whole: Whole) -> None:
    await whole.rig.post(call())
    whole.world.use(nonces=Nonces(os.urandom(32)))  # made at each start
    assert (await whole.rig.post(call())).json()["result"] == {"ok": True}
    assert len(whole.verified) == 2


async def test_a_replay_store_of_after_a_restart_costs_a_second(whole: Whole) -> None:
    await whole.rig.post(call())
    whole.world.use(replay=MemoryReplayCache(epoch=int(whole.world.clock.now().timestamp())))
    assert (await whole.rig.post(call())).json()["result"] == {"ok": True}
    assert whole.rig.naps == [1.0]


async def test_an_attestation_that_policy_finds_too_old_is_made_anew_once(whole: Whole) -> None:
    requires = {"minAssurance": "Virtual", "minKeyTier": "TPMSession", "maxAttestationAgeSeconds": 60}
    whole.world.source.put(kube.TOOL_SERVERS, whole.world.server(caBundle=WEB.pem.decode(), requires=requires))
    error = (await whole.rig.post(call())).json()["error"]
    assert error["data"]["code"] == "environment.attestation_stale"
    assert whole.rig.keyring.reattested == 1


async def test_the_very_request_sent_again_is_refused(whole: Whole) -> None:
    captured: list[tuple[Any, bytes]] = []

    async def keep(scope: Any, receive: Any, send: Any) -> None:
        event = await receive()
        captured.append((scope, event["body"]))
        events = [event]

        async def again() -> Any:
            return events.pop() if events else await receive()

        await whole.app(scope, again, send)

    async with serving(keep, "tools.billing.svc") as port:
        whole.rig.net.hosts["tools.billing.svc"] = port
        assert (await whole.rig.post(call())).json()["result"] == {"ok": True}
    scope, body = captured[0]
    transport = httpx.ASGITransport(whole.app)
    async with httpx.AsyncClient(transport=transport, base_url="https://tools.billing.svc") as thief:
        got = await thief.post("/stripe", content=body, headers=scope["headers"])
    assert (got.status_code, got.json()["code"]) == (401, "proof.replayed")
    assert len(whole.tool.seen) == 1
