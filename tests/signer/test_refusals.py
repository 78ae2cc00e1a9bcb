"""What an agent sees when the answer is no (wire.md 4.1): the one form for each kind of request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from support.loopback import PORT, call, entry, rig_of

from countersign.errors import Unavailable, title
from countersign.signer.exchange import BodyLimits

if TYPE_CHECKING:
    from pathlib import Path

    from support.loopback import Rig


def error_of(got: httpx.Response, *, status: int = 200) -> dict[str, Any]:
    assert got.status_code == status, got.text
    assert got.headers["content-type"] == "application/json"
    body = got.json()
    assert body["jsonrpc"] == "2.0"
    return body["error"]


def problem_of(got: httpx.Response, *, status: int) -> dict[str, Any]:
    assert got.status_code == status, got.text
    assert got.headers["content-type"] == "application/problem+json"
    body = got.json()
    assert body["status"] == status
    return body


@pytest.mark.parametrize(
    ("code", "status", "more"),
    [
        ("policy.default_deny", 403, {"decision": "01998f1e-6c1a-7d43-9a55-3d5f0b8f7a10"}),
        ("policy.denied", 403, {"decision": "d"}),
        ("policy.undecided", 403, {}),
        ("tool.server_not_exposed", 403, {}),
        ("tool.arguments_invalid", 403, {}),
        ("instance.ended", 403, {}),
        ("device.not_approved", 403, {}),
        ("environment.key_tier_too_low", 403, {}),
        ("audit.unavailable", 503, {}),
        ("decide.failed", 503, {}),
        ("proof.replayed", 400, {}),
        ("cert.expired", 400, {}),
    ],
)
async def test_a_refusal_of_the_front_door_is_a_json_rpc_error_at_200(
    rig: Rig, code: str, status: int, more: dict[str, str]
) -> None:
    rig.front.refuse("/token", code, status, **more)
    error = error_of(await rig.post(call()))
    assert error == {"code": status, "message": title(code), "data": {"code": code, **more}}
    assert rig.tool.seen == []
    assert rig.counted(code) == 1


async def test_the_reason_of_the_rule_that_denied_is_shown(rig: Rig) -> None:
    rig.front.refuse("/token", "policy.denied", 403, error_description="Refunds are made in office hours.")
    assert error_of(await rig.post(call()))["message"] == "Policy: denied: Refunds are made in office hours."


async def test_an_approval_that_is_waited_for_is_named(rig: Rig) -> None:
    rig.front.refuse("/token", "approval.pending", 400, approval="billing/refund-1")
    assert error_of(await rig.post(call()))["data"] == {"code": "approval.pending", "approval": "billing/refund-1"}


async def test_when_to_come_back_is_passed_on(rig: Rig) -> None:
    rig.front.refuse("/token", "rate.limited", 429, headers={"retry-after": "3"})
    error = error_of(await rig.post(call()))
    assert (error["code"], error["data"]) == (429, {"code": "rate.limited", "retry_after": 3})


@pytest.mark.parametrize("id_", [0, 7, "server-discover-probe-1", "", -1])
async def test_the_id_of_the_request_comes_back_as_it_was(rig: Rig, id_: Any) -> None:
    rig.front.refuse("/token", "policy.denied", 403)
    got = (await rig.post(call(id_=id_))).json()
    assert got["id"] == id_
    assert type(got["id"]) is type(id_)


async def test_a_refusal_of_the_verifier_has_the_same_form(rig: Rig) -> None:
    rig.tool.refuses("environment.attestation_stale", 403, decision="d-9", detail="too old")
    error = error_of(await rig.post(call()))
    assert error == {
        "code": 403,
        "message": title("environment.attestation_stale"),
        "data": {"code": "environment.attestation_stale", "decision": "d-9"},
    }


async def test_a_code_that_nobody_registered_is_not_passed_on(rig: Rig) -> None:
    rig.front.refuse("/token", "policy.surprise", 403)
    assert error_of(await rig.post(call()))["data"] == {"code": "decide.failed"}


@pytest.mark.parametrize("answer", [(200, b"nonsense"), (200, b"[]"), (200, b"{}"), (302, b"{}"), (500, b"oops")])
async def test_a_front_door_that_makes_no_sense_is_a_refusal(tmp_path: Path, answer: tuple[int, bytes]) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": answer[0], "headers": [(b"location", b"/token")]})
        await send({"type": "http.response.body", "body": answer[1]})

    async with rig_of(tmp_path, tool=broken) as rig:
        rig.net.hosts["countersign.example.com"] = rig.net.hosts["tools.billing.svc"]
        rig.check_no_token = lambda _got: None  # type: ignore[method-assign] - this front door made none
        error = error_of(await rig.post(call()))
        assert (error["code"], error["data"]["code"].partition(".")[0]) == (503, "decide")


@pytest.mark.parametrize(
    "answer",
    [
        {"token_type": "Bearer"},
        {"access_token": "no.jws"},
        {"access_token": "a.b.c\r\nx: y"},
        {"access_token": "e30.e30.AA"},
        {"access_token": "e30." + "A" * 9000 + ".AA"},
        {"access_token": 5},
        {"tools": "all"},
    ],
)
async def test_a_token_that_is_none_is_a_refusal(rig: Rig, answer: dict[str, Any]) -> None:
    good = rig.front._good
    rig.front._good = lambda path: {**good(path), **(answer if path == "/token" else {})}
    error = error_of(await rig.post(call()))
    assert (error["code"], error["data"]["code"]) == (503, "decide.unavailable")
    assert rig.tool.seen == []


async def test_without_an_identity_the_reason_for_that_is_the_refusal(rig: Rig) -> None:
    rig.keyring.missing = Unavailable("attest.device_unknown", "no such device", retry_after=5)
    error = error_of(await rig.post(call()))
    assert error["data"] == {"code": "attest.device_unknown", "retry_after": 5}


async def test_a_body_outside_the_grammar_is_refused_by_its_code_and_nobody_is_asked(rig: Rig) -> None:
    body = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a","name":"b","arguments":{}}}'
    error = error_of(await rig.post(body))
    assert (error["code"], error["data"]) == (400, {"code": "parse.duplicate"})
    assert rig.front.tokens == []


@pytest.mark.parametrize(
    ("headers", "code"), [({"mcp_method": "tools/list"}, "mismatch"), ({"mcp_name": "create_refund"}, "mismatch")]
)
async def test_a_header_that_disagrees_has_its_own_form_in_2026(rig: Rig, headers: dict[str, str], code: str) -> None:
    error = error_of(await rig.modern(call(), **headers), status=400)
    assert (error["code"], error["data"]) == (-32020, {"code": f"mcp.header_{code}"})
    assert rig.front.tokens == []
    assert rig.tool.seen == []


@pytest.mark.parametrize("name", ["mcp_method", "mcp_name"])
async def test_a_header_that_is_missing_has_its_own_form_in_2026(rig: Rig, name: str) -> None:
    error = error_of(await rig.modern(call(), **{name: None}), status=400)
    assert (error["code"], error["data"]) == (-32020, {"code": "mcp.header_missing"})


async def test_the_same_header_has_the_common_form_before_2026(rig: Rig) -> None:
    error = error_of(await rig.post(call(), mcp_name="create_refund"))
    assert (error["code"], error["data"]) == (400, {"code": "mcp.header_mismatch"})


@pytest.mark.parametrize("method", ["resources/read", "tasks/update", "prompts/get", "completion/complete", "ping"])
async def test_an_unknown_method_has_its_own_form_in_2026(rig: Rig, method: str) -> None:
    error = error_of(await rig.modern({"jsonrpc": "2.0", "id": 1, "method": method}), status=404)
    assert (error["code"], error["data"]) == (-32601, {"code": "mcp.method_unknown"})


async def test_the_same_method_has_the_common_form_before_2026(rig: Rig) -> None:
    error = error_of(await rig.post({"jsonrpc": "2.0", "id": 1, "method": "resources/read"}))
    assert (error["code"], error["data"]) == (400, {"code": "mcp.method_unknown"})


async def test_a_notification_that_is_refused_gets_a_problem_document(rig: Rig) -> None:
    rig.front.refuse("/token", "policy.denied", 403, decision="d-3", error_description="by rule x")
    problem = problem_of(await rig.post({"jsonrpc": "2.0", "method": "notifications/initialized"}), status=403)
    assert problem == {
        "type": "https://countersign.dev/problems/policy.denied",
        "title": title("policy.denied"),
        "status": 403,
        "code": "policy.denied",
        "detail": "by rule x",
        "decision": "d-3",
    }


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"[]", 400, "mcp.batch"),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', 400, "mcp.batch"),
        (b"{", 400, "parse.syntax"),
        (b"", 400, "parse.syntax"),
        (b'{"jsonrpc":"2.0","id":1,"result":{}}', 400, "mcp.envelope"),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', 400, "mcp.envelope"),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', 400, "mcp.envelope"),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', 400, "mcp.envelope"),
        (b'{"jsonrpc":"2.0","method":"tools/call"}', 400, "mcp.envelope"),
        (b"[" * 100_000, 400, "parse.depth"),
    ],
)
async def test_what_is_no_request_with_an_id_gets_a_problem_document(
    rig: Rig, body: bytes, status: int, code: str
) -> None:
    assert problem_of(await rig.post(body), status=status)["code"] == code


@pytest.mark.parametrize("kind", ["text/plain", "application/json; charset=utf-7", "application/json; charset=utf-16"])
async def test_another_content_type_is_415(rig: Rig, kind: str) -> None:
    error = error_of(await rig.post(call(), content_type=kind))
    assert (error["code"], error["data"]["code"]) == (415, "parse.encoding")


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2027-01-01", None])
async def test_another_protocol_version_is_refused(rig: Rig, version: str | None) -> None:
    assert error_of(await rig.post(call(), mcp_protocol_version=version))["data"]["code"] == "mcp.version"


@pytest.mark.parametrize("extra", ["task", "inputResponses", "requestState"])
async def test_input_that_no_policy_saw_is_refused(rig: Rig, extra: str) -> None:
    message = call()
    message["params"][extra] = {}
    assert error_of(await rig.post(message))["data"]["code"] == "mcp.params"


async def test_a_server_that_is_not_mcp_behind_a_verifier_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    async with rig_of(tmp_path) as rig:
        rig.front.servers = [entry(protocol="HTTP"), entry("gate", enforcement="Gateway")]
        assert error_of(await rig.post(call()))["data"]["code"] == "call.protocol"
        assert error_of(await rig.post(call(), "/gate"))["data"]["code"] == "call.protocol"
        assert rig.front.tokens == []


async def test_a_body_over_the_limit_is_413_and_the_connection_ends(tmp_path: Path) -> None:
    async with rig_of(tmp_path, limits=BodyLimits(1000)) as rig:
        got = await rig.post(call(arguments={"x": "y" * 1000}))
        assert problem_of(got, status=413)["code"] == "parse.size"
        assert got.headers["connection"] == "close"


async def test_a_body_over_the_limit_that_announced_nothing_is_413(tmp_path: Path) -> None:
    async def pieces() -> Any:
        for _ in range(3):
            yield b"x" * 400

    async with rig_of(tmp_path, limits=BodyLimits(1000)) as rig:
        got = await rig.client.post("/stripe", content=pieces(), headers={"content-type": "application/json"})
        assert problem_of(got, status=413)["code"] == "parse.size"


async def test_a_body_of_exactly_the_limit_passes(tmp_path: Path) -> None:
    async with rig_of(tmp_path, limits=BodyLimits(1000)) as rig:
        blank = len(httpx.Request("POST", "http://x", json=call(arguments={"x": ""})).content)
        message = httpx.Request("POST", "http://x", json=call(arguments={"x": "y" * (1000 - blank)})).content
        assert len(message) == 1000
        assert (await rig.post(message)).json()["result"] == {"ok": True}


async def test_a_body_that_does_not_arrive_in_time_is_408(tmp_path: Path) -> None:
    never, said = asyncio.Event(), []

    async def receive() -> dict[str, Any]:
        await never.wait()
        return {"type": "http.disconnect"}

    async def send(event: Any) -> None:
        said.append(event)

    headers = [(b"host", f"127.0.0.1:{PORT}".encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "raw_path": b"/stripe", "query_string": b"", "headers": headers}
    async with rig_of(tmp_path, limits=BodyLimits(1000, seconds=0.02)) as rig:
        await rig.proxy(scope, receive, send)
    assert said[0]["status"] == 408
    assert b'"parse.size"' in said[1]["body"]
