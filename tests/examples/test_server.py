"""The quickstart's tool server: it has the tools that are registered, and runs none without a call token."""

from __future__ import annotations

import json
import sys
from contextlib import asynccontextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from countersign.verifier.testing import CallMaker
from countersign.wire import MemoryReplayCache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import ModuleType

    from countersign.wire import Message

FOLDER = Path(__file__).parents[2] / "examples" / "quickstart"
SPEC = yaml.safe_load((FOLDER / "40-tools.yaml").read_text())["spec"]


def load() -> ModuleType:
    """Load server.py as ``countersign demo`` does."""
    spec = spec_from_file_location("quickstart_server", FOLDER / "server.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_it_has_exactly_the_registered_tools_with_their_arguments() -> None:
    found = {tool.name: tool.parameters for tool in await load().tools.list_tools()}
    registered = {tool["name"]: tool["inputSchema"] for tool in SPEC["tools"]}
    assert set(found) == set(registered)
    for name, schema in registered.items():
        assert set(found[name]["required"]) == set(schema["required"])
        assert {key: value["type"] for key, value in found[name]["properties"].items()} == {
            key: value["type"] for key, value in schema["properties"].items()
        }


def test_it_does_not_start_without_being_told_whom_to_believe() -> None:
    with pytest.raises(ValueError, match="COUNTERSIGN_VERIFIER_ISSUER is not set"):
        load().app.build_middleware_stack()


@pytest.fixture
async def maker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CallMaker:
    made = CallMaker(audience=SPEC["audience"], path="/mcp")
    keys = tmp_path / "jwks.json"
    keys.write_bytes(await made.fetch())
    monkeypatch.setenv("COUNTERSIGN_VERIFIER_ISSUER", made.issuer)
    monkeypatch.setenv("COUNTERSIGN_VERIFIER_AUDIENCE", SPEC["audience"])
    monkeypatch.setenv("COUNTERSIGN_VERIFIER_JWKS_FILE", str(keys))
    return made


@asynccontextmanager
async def running() -> AsyncIterator[httpx.AsyncClient]:
    """The server; no fixture, because FastMCP wants to end in the task in which it began."""
    app = load().app
    # A verifier takes no token from before its start and the skew; no test waits for that.
    ours = next(one for one in app.user_middleware if one.cls.__name__ == "CountersignVerifier")
    ours.kwargs["replay"] = MemoryReplayCache(epoch=0)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://payments.billing.svc:8000") as client,
    ):
        yield client


async def send(client: httpx.AsyncClient, message: Message) -> tuple[int, Any]:
    headers = [(name, value) for name, value in message.headers if name != "host"]
    answer = await client.request(message.method, message.target, headers=headers, content=message.body)
    return answer.status_code, answer.json()


async def test_a_call_with_its_token_runs_the_tool(maker: CallMaker) -> None:
    async with running() as client:
        status, answer = await send(client, await maker.call("get_charge", {"charge": "ch_1"}))
    assert status == 200
    assert answer["result"]["structuredContent"]["charge"] == "ch_1"


async def test_without_a_token_nothing_runs(maker: CallMaker) -> None:
    async with running() as client:
        answers = [
            await send(client, maker.message("tools/call", tool, {})) for tool in ("get_charge", "delete_customer")
        ]
    assert [(status, problem["code"]) for status, problem in answers] == [(401, "token.missing")] * 2


async def test_a_token_for_one_refund_is_none_for_another(maker: CallMaker) -> None:
    claims = maker.claims("tools/call", "create_refund", {"charge": "ch_1", "amount": 100})
    more = maker.message("tools/call", "create_refund", {"charge": "ch_1", "amount": 100_000})
    async with running() as client:
        status, problem = await send(client, await maker.signed(more, claims))
    assert status in (401, 403)
    assert problem["code"] == "call.args"


def test_the_docstring_names_every_variable_that_the_demo_sets() -> None:
    text = (FOLDER / "server.py").read_text()
    machine = (FOLDER.parents[1] / "operator" / "countersign" / "demo" / "machine.py").read_text()
    names = {f"COUNTERSIGN_VERIFIER_{each}" for each in ("ISSUER", "AUDIENCE", "JWKS_URL", "CA_FILE")}
    assert all(name in text and json.dumps(name) in machine for name in names)
