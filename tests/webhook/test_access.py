"""AuthZEN: listed PEPs ask, nobody's word is taken for what can be looked up, and only a recorded yes is one (wire.md 8)."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from support.front_door import SERVING, client_tls, listening
from support.world import AUDIENCE, ISSUER, SPIFFE_ID, World, allow, policy, settings, thing

from countersign import kube
from countersign.devcluster.pki import LocalCA
from countersign.errors import Unavailable
from countersign.kube import KubeError, TokenReview
from countersign_webhook.app import CallsApp
from countersign_webhook.decide.peps import Peps

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

ONE, MANY = "/access/v1/evaluation", "/access/v1/evaluations"
TOKEN = "pep.token.good"
INSTANCE = "billing/refund-agent-7f9c4"


class Reviewer:
    """The API server's word on tokens: one is good, for our issuer."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.away = False
        self.account = "gateway"

    async def review_token(self, token: str, audiences: Sequence[str]) -> TokenReview:
        self.asked.append((token, *audiences))
        if self.away:
            raise KubeError("away")
        good = token == TOKEN
        return TokenReview(good, "system:serviceaccount:edge:gateway", *(("edge", self.account) if good else ()))


PEPS = [{"name": "edge", "servers": ["billing/stripe"], "service_account": "edge/gateway"}]


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[World]:
    world = await World.make(tmp_path, peps=PEPS)
    world.reviewer = Reviewer()  # type: ignore[attr-defined]
    believe(world, world.reviewer)  # type: ignore[attr-defined]
    yield world
    await world.context.aclose()


def believe(world: World, reviewer: Reviewer) -> None:
    peps = world.context.settings.peps
    world.use(peps=Peps(peps, reviewer, issuer=ISSUER, clock=world.clock))


def question(**more: Any) -> dict[str, Any]:
    return {
        "subject": {"type": "identity", "id": SPIFFE_ID},
        "action": {"name": "tools/call"},
        "resource": {
            "type": "tool",
            "id": "get_charge",
            "properties": {"server": AUDIENCE, "arguments": {"charge": "ch_1"}},
        },
        "context": {"agent": SPIFFE_ID, "instance": INSTANCE, "key_tier": "TPM"},
        **more,
    }


def tool(name: str) -> dict[str, Any]:
    return {"resource": {**question()["resource"], "id": name}}


async def post(
    world: World, body: Any, path: str = ONE, *, token: str | None = TOKEN, **headers: str
) -> httpx.Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    every = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if token is not None:
        every["authorization"] = f"Bearer {token}"
    transport = httpx.ASGITransport(CallsApp(world.context), client=("192.0.2.9", 1))
    async with httpx.AsyncClient(transport=transport, base_url=ISSUER) as client:
        return await client.post(path, content=data, headers=every)


async def code(world: World, body: Any, **more: Any) -> str:
    answer = await post(world, body, **more)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["decision"] is (document["context"]["code"] == "policy.allowed")
    return str(document["context"]["code"])


async def test_a_yes_is_recorded_without_a_proof_and_makes_no_token(asked: World) -> None:
    answer = await post(asked, question(), x_request_id="abc-1")

    assert answer.status_code == 200
    assert answer.headers["x-request-id"] == "abc-1"
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json()
    assert document == {
        "decision": True,
        "context": {
            "code": "policy.allowed",
            "decision": document["context"]["decision"],
            "policy": "ToolPolicy billing/refunds",
            "rule": "allow-get-charge-list-charges",
        },
    }
    [record] = await asked.records()
    facts = record["unmapped"]["countersign"]
    assert (facts["leg"], facts["pep"], facts["proof"], facts["key_tier"]) == ("AuthZEN", "edge", "none", "TPM")
    assert (record["metadata"]["uid"], record["status_id"]) == (document["context"]["decision"], 1)
    assert "jkt" not in facts
    assert "jti" not in facts
    assert record["actor"]["app_uid"] == INSTANCE


async def test_a_no_says_which_rule_and_why(asked: World) -> None:
    stop = {**allow("get_charge"), "name": "stop", "effect": "Deny", "reason": "not today"}
    asked.source.put(kube.TOOL_POLICIES, policy(stop, name="stops"))

    context = (await post(asked, question())).json()["context"]

    assert (context["code"], context["policy"], context["rule"]) == (
        "policy.denied",
        "ToolPolicy billing/stops",
        "stop",
    )
    assert context["reason"] == "not today"
    [record] = await asked.records()
    assert (record["status_id"], record["unmapped"]["countersign"]["proof"]) == (2, "none")


async def test_unknown_members_are_ignored(asked: World) -> None:
    more = question(extra={"a": 1})
    more["subject"]["properties"] = {"role": "admin"}
    more["context"] |= {"ip": "10.0.0.1", "assurance": "Hardware", "device": "other"}
    assert await code(asked, more) == "policy.allowed"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"subject": {"type": "user", "id": SPIFFE_ID}}, "request.mapping"),
        ({"subject": {"type": "identity", "id": "user:bent@example.com"}}, "task.mismatch"),
        ({"action": {"name": "tools/list"}}, "request.mapping"),
        ({"action": {"name": "GET"}}, "request.mapping"),
        ({"resource": {"type": "file", "id": "x"}}, "request.mapping"),
        ({"resource": {"type": "tool", "id": "get_charge"}}, "request.mapping"),
        ({"resource": {"type": "tool", "id": "a b", "properties": {"server": AUDIENCE}}}, "request.mapping"),
        (
            {"resource": {"type": "tool", "id": "get_charge", "properties": {"server": AUDIENCE, "arguments": []}}},
            "request.mapping",
        ),
        ({"resource": {"type": "mcp_server", "id": AUDIENCE}}, "request.mapping"),
        (
            {"resource": {"type": "mcp_server", "id": AUDIENCE}, "action": {"name": "resources/list"}},
            "request.mapping",
        ),
        ({"resource": {"type": "mcp_server", "id": AUDIENCE}, "action": {"name": "tools/list"}}, "policy.allowed"),
        ({"context": {"instance": INSTANCE}}, "request.mapping"),
        ({"context": {"agent": SPIFFE_ID, "instance": "billing", "key_tier": "TPM"}}, "request.mapping"),
        ({"context": {"agent": SPIFFE_ID, "instance": INSTANCE, "key_tier": "HSM"}}, "request.mapping"),
        ({"context": {"agent": SPIFFE_ID, "instance": INSTANCE, "key_tier": ["TPM"]}}, "request.mapping"),
        ({"context": {"agent": SPIFFE_ID, "instance": INSTANCE}}, "environment.key_tier_too_low"),
        ({"context": {"agent": SPIFFE_ID, "instance": "billing/other", "key_tier": "TPM"}}, "instance.unknown"),
        ({"context": {"agent": f"{SPIFFE_ID}x", "instance": INSTANCE, "key_tier": "TPM"}}, "instance.mismatch"),
        ({"context": {"agent": f"{SPIFFE_ID}x", "key_tier": "TPM"}}, "instance.unknown"),
        ({"context": {"agent": "refund-agent", "key_tier": "TPM"}}, "instance.unknown"),
        ({"context": {"agent": SPIFFE_ID, "key_tier": "TPM"}}, "policy.allowed"),
        (tool("create_refund"), "policy.default_deny"),
        (tool("delete_all"), "tool.unknown"),
    ],
    ids=str,
)
async def test_what_a_question_means(asked: World, change: dict[str, Any], expected: str) -> None:
    assert await code(asked, question(**change)) == expected
    [record] = await asked.records()
    assert (record["status_code"], record["unmapped"]["countersign"]["pep"]) == (expected, "edge")


async def test_an_agent_with_two_instances_must_say_which(asked: World) -> None:
    second = asked.instance()
    second["metadata"] |= {"name": "second", "uid": "uid-second"}
    second["status"]["certificate"] = {**second["status"]["certificate"], "keyThumbprint": "k" * 43}
    asked.source.put(kube.AGENT_INSTANCES, second)
    context = {"agent": SPIFFE_ID, "key_tier": "TPM"}

    assert await code(asked, question(context=context)) == "instance.ambiguous"

    asked.source.put(kube.AGENT_INSTANCES, {**second, "spec": {**second["spec"], "state": "Revoked"}})
    assert await code(asked, question(context=context)) == "policy.allowed"


@pytest.mark.parametrize(
    ("resource", "change", "expected"),
    [
        (kube.AGENT_INSTANCES, {"state": "Revoked"}, "instance.revoked"),
        (kube.DEVICES, {"state": "Denied"}, "device.not_approved"),
    ],
)
async def test_d14_what_is_revoked_is_looked_up_at_each_question(
    asked: World, resource: Any, change: dict[str, Any], expected: str
) -> None:
    assert await code(asked, question()) == "policy.allowed"
    made = asked.instance(**change) if resource is kube.AGENT_INSTANCES else asked.device(**change)
    asked.source.put(resource, made)
    assert await code(asked, question()) == expected


async def test_c12_a_deleted_pod_ends_it(asked: World) -> None:
    asked.source.drop(kube.PODS, "refund-1", "billing")
    assert await code(asked, question()) == "instance.ended"


async def test_a_peps_word_for_the_tier_is_worth_no_more_than_the_device(asked: World) -> None:
    asked.source.put(
        kube.DEVICE_POOLS, thing("DevicePool", "racks", {"assurance": "Software", "ekRoots": asked.ca.pem})
    )
    asked.source.put(kube.AGENT_IDENTITIES, asked.identity(minAssurance="Software"))
    stripe = asked.server(requires={"minAssurance": "Software", "minKeyTier": "TPM"})
    asked.source.put(kube.TOOL_SERVERS, stripe)
    assert await code(asked, question()) == "environment.key_tier_too_low"


async def test_a_rule_that_wants_approval_is_no_yes_here(asked: World) -> None:
    ask = {**allow("get_charge"), "name": "ask", "effect": "RequireApproval"}
    asked.source.put(kube.TOOL_POLICIES, policy(ask, name="ask"))
    assert (await post(asked, question())).json()["decision"] is False


# Who asks


@pytest.mark.parametrize("token", [None, "another.token", "", "a b"])
async def test_only_listed_peps_ask(asked: World, token: str | None) -> None:
    answer = await post(asked, question(), token=token)
    assert (answer.status_code, answer.json().split(":")[0]) == (401, "pep.unknown")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert await asked.records() == []


async def test_a_good_token_of_another_account_is_unknown(asked: World) -> None:
    asked.reviewer.account = "other"  # type: ignore[attr-defined]
    assert (await post(asked, question())).status_code == 401


async def test_a_token_is_reviewed_for_the_issuer_and_believed_for_ten_seconds(asked: World) -> None:
    for _ in range(2):
        assert await code(asked, question()) == "policy.allowed"
    assert asked.reviewer.asked == [(TOKEN, ISSUER)]  # type: ignore[attr-defined]
    asked.clock.advance(10)
    asked.reviewer.away = True  # type: ignore[attr-defined]
    answer = await post(asked, question())
    assert (answer.status_code, answer.json().split(":")[0]) == (503, "decide.unavailable")


async def test_without_an_api_server_to_ask_no_token_is_good(asked: World) -> None:
    believe(asked, None)  # type: ignore[arg-type]
    assert (await post(asked, question())).status_code == 401


@pytest.mark.parametrize("path", [ONE, MANY])
async def test_a_pep_asks_about_its_own_servers_only(asked: World, path: str) -> None:
    other = asked.server("other", audience="https://tools.billing.svc/other")
    asked.source.put(kube.TOOL_SERVERS, other)
    for audience in ("https://tools.billing.svc/other", "https://nobody.example.com"):
        foreign = question(resource={"type": "mcp_server", "id": audience})
        body = foreign if path == ONE else {"evaluations": [question(), foreign]}
        answer = await post(asked, body, path)
        assert (answer.status_code, answer.json().split(":")[0]) == (403, "pep.not_allowed")
    assert await asked.records() == []


async def test_a_client_certificate_that_is_listed_asks(tmp_path: Path, ca: LocalCA) -> None:
    clients, strangers = LocalCA("peps"), LocalCA("strangers")
    (tmp_path / "peps.crt").write_bytes(clients.pem)
    pep = {"name": "gate", "servers": ["billing/stripe"], "certificate": "gate.edge.svc"}
    calls = {**settings(tmp_path).calls.model_dump(), "client_ca": tmp_path / "peps.crt"}
    async with listening(tmp_path, peps=[pep], calls=calls) as (world, ports):

        async def ask(issuer: LocalCA | None, name: str) -> int:
            tls = client_tls(ca)
            if issuer is not None:
                pair = issuer.issue("pep", names=[name])
                (tmp_path / "c.crt").write_bytes(pair.certificate)
                (tmp_path / "c.key").write_bytes(pair.key)
                tls.load_cert_chain(tmp_path / "c.crt", tmp_path / "c.key")
            async with httpx.AsyncClient(verify=tls) as client:
                url = f"https://{SERVING}:{ports.calls.number}{ONE}"
                try:
                    return (await client.post(url, json=question())).status_code
                except (httpx.TransportError, ssl.SSLError):
                    return 0

        assert await ask(clients, "gate.edge.svc") == 200
        assert await ask(clients, "other.edge.svc") == 401
        assert await ask(None, "") == 401
        assert await ask(strangers, "gate.edge.svc") == 0
        assert (await world.call()).status_code == 200  # a signer has no certificate of this kind


async def test_e3_a_pep_is_limited(tmp_path: Path) -> None:
    world = await World.make(tmp_path, peps=PEPS, limits={"pep_rate": 1, "pep_burst": 64})
    believe(world, Reviewer())
    batch = {"evaluations": [question()] * 64}
    assert (await post(world, batch, MANY)).status_code == 200
    answer = await post(world, question())
    assert (answer.status_code, answer.json().split(":")[0], answer.headers["retry-after"]) == (
        429,
        "rate.limited",
        "1",
    )
    await world.context.aclose()


@pytest.mark.parametrize(
    "peps",
    [
        [{"name": "a", "servers": ["n/s"]}],
        [{"name": "a", "servers": [], "service_account": "n/a"}],
        [{"name": "a", "servers": ["n/s"], "service_account": "n/a", "certificate": "x"}],
        [{"name": "a", "servers": ["n/s"], "certificate": "x"}],
        [{"name": "a", "servers": ["n/s"], "service_account": "n/a"}] * 2,
        [
            {"name": "a", "servers": ["n/s"], "service_account": "n/a"},
            {"name": "b", "servers": ["n/s"], "service_account": "n/a"},
        ],
    ],
    ids=str,
)
def test_settings_that_tell_no_pep_apart_are_refused(tmp_path: Path, peps: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"peps|PEP"):
        settings(tmp_path, peps=peps)


# The form


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "parse.syntax"),
        (b"[]", "parse.type"),
        (b'{"subject":{},"subject":{}}', "parse.duplicate"),
        (b"{}", "request.parameter"),
        (json.dumps(question(subject="x")).encode(), "request.parameter"),
        (json.dumps(question(subject={"type": "identity"})).encode(), "request.parameter"),
        (json.dumps(question(action={"name": 1})).encode(), "request.parameter"),
        (json.dumps(question(resource=None)).encode(), "request.parameter"),
        (json.dumps(question(context=[])).encode(), "request.parameter"),
    ],
    ids=str,
)
async def test_what_is_malformed_is_400_with_a_string(asked: World, body: bytes, expected: str) -> None:
    answer = await post(asked, body)
    assert (answer.status_code, answer.json().split(":")[0]) == (400, expected)
    assert await asked.records() == []


async def test_another_media_type_or_a_query_is_refused(asked: World) -> None:
    assert (await post(asked, question(), content_type="text/plain")).status_code == 415
    assert (await post(asked, question(), f"{ONE}?a=1")).status_code == 400


async def test_a_request_id_that_is_no_id_is_not_echoed(asked: World) -> None:
    assert "x-request-id" not in (await post(asked, question(), x_request_id="a" * 257)).headers
    assert (await post(asked, b"[]", x_request_id="r")).headers["x-request-id"] == "r"


# Several at once


@pytest.mark.parametrize(
    ("semantic", "expected"),
    [
        (None, [True, False, True, False]),
        ("execute_all", [True, False, True, False]),
        ("deny_on_first_deny", [True, False]),
        ("permit_on_first_permit", [True]),
    ],
)
async def test_the_three_semantics(asked: World, semantic: str | None, expected: list[bool]) -> None:
    items = [tool(name) for name in ("get_charge", "create_refund", "list_charges", "delete_all")]
    body = {**question(), "evaluations": items}
    if semantic is not None:
        body["options"] = {"evaluations_semantic": semantic}

    answer = (await post(asked, body, MANY)).json()

    assert [one["decision"] for one in answer["evaluations"]] == expected
    assert len(await asked.records()) == len(expected)


async def test_a_permit_later_in_the_row_is_reached(asked: World) -> None:
    body = {**question(), "evaluations": [tool("create_refund"), tool("get_charge"), tool("get_charge")]}
    body["options"] = {"evaluations_semantic": "permit_on_first_permit"}
    answer = (await post(asked, body, MANY)).json()
    assert [one["decision"] for one in answer["evaluations"]] == [False, True]


async def test_no_evaluations_is_one_question(asked: World) -> None:
    for body in (question(), {**question(), "evaluations": []}):
        assert (await post(asked, body, MANY)).json()["decision"] is True


@pytest.mark.parametrize(
    "body",
    [
        {"evaluations": [question()] * 65},
        {"evaluations": {}},
        {"evaluations": [question(), 7]},
        {"evaluations": [question(), {}]},
        {"evaluations": [question()], "options": {"evaluations_semantic": "any"}},
        {"evaluations": [question()], "options": {"evaluations_semantic": ["execute_all"]}},
        {"evaluations": [question()], "options": []},
        {},
    ],
    ids=lambda body: str(body)[:40],
)
async def test_a_batch_that_is_malformed_decides_nothing(asked: World, body: Any) -> None:
    assert (await post(asked, body, MANY)).status_code == 400
    assert await asked.records() == []


# When the front door does not know


async def test_d12_stale_watches_and_a_lost_log_are_a_no(asked: World) -> None:
    asked.source.stale_kinds = ["toolpolicies"]
    assert await code(asked, question()) == "decide.unavailable"
    asked.source.stale_kinds = []
    await asked.context.audit.aclose()
    assert await code(asked, question()) == "audit.unavailable"
    assert await code(asked, question(**tool("create_refund"))) == "audit.unavailable"


async def test_d13_a_bug_is_a_no(asked: World) -> None:
    broken = asked.instance()
    broken["spec"] = {"type": "Pod"}
    asked.source.put(kube.AGENT_INSTANCES, broken)
    assert await code(asked, question()) == "decide.failed"


async def test_the_replay_store_is_not_asked(asked: World) -> None:
    class Away:
        async def insert(self, _key: tuple[str, str], **_times: int) -> None:
            raise Unavailable("replay.unavailable")

    asked.use(replay=Away())
    assert await code(asked, question()) == "policy.allowed"


async def test_the_metadata_names_the_two_endpoints(asked: World) -> None:
    transport = httpx.ASGITransport(CallsApp(asked.context))
    async with httpx.AsyncClient(transport=transport, base_url=ISSUER) as client:
        answer = await client.get("/.well-known/authzen-configuration")
        wrong = await client.get(ONE)
    assert answer.json() == {
        "policy_decision_point": ISSUER,
        "access_evaluation_endpoint": ISSUER + ONE,
        "access_evaluations_endpoint": ISSUER + MANY,
    }
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
