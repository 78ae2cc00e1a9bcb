"""Attacks by the row of docs/threats.md, each from one end to the other; what other tests prove is in docs/threats-tests.md."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
import pytest
from support.enrolment import (
    AGENT,
    EK_ROOT,
    INJECTION,
    NAMESPACE,
    NODE,
    POD,
    TOKEN,
    Account,
    Caller,
    Office,
    b64,
    bare_pod,
    bound,
    patched,
    thing,
)
from support.eventually import eventually
from support.line import OTHER, Line, body_of, code_of
from support.loopback import write_trust
from support.world import AUDIENCE, SPIFFE_ID, SoftwareKey, details, form

from countersign import kube
from countersign.attest import SoftwareDevice
from countersign.demo.layout import neighbours
from countersign.kube import TokenReview
from countersign.kube.injection import inject
from countersign.signer.main import serve
from countersign.signer.settings import SignerSettings
from countersign.wire import MemoryReplayCache, Message

if TYPE_CHECKING:
    from pathlib import Path

AT_ONCE = 50


def changed(message: Message, **fields: str | None) -> Message:
    """The message with other fields (``_`` is ``-``); None takes one away."""
    new = {name.replace("_", "-"): value for name, value in fields.items()}
    kept = [(name, value) for name, value in message.headers if name not in new]
    return replace(message, headers=(*kept, *((name, value) for name, value in new.items() if value is not None)))


# Part A: replay and theft.


async def test_a1_a_token_on_another_machine_is_worth_nothing_and_is_not_used_up_by_the_thief(line: Line) -> None:
    token = await line.token()
    own = await line.call(token)
    thief, neighbour = SoftwareKey(), SoftwareKey()
    second = line.world.instance()
    second["metadata"] |= {"name": "refund-agent-second", "uid": "uid-second"}
    second["status"]["certificate"]["keyThumbprint"] = neighbour.jkt
    line.world.source.put(kube.AGENT_INSTANCES, second)

    bare = changed(own, signature=None, signature_input=None)
    assert code_of(await line.present(bare)) == "proof.missing"
    for key in (thief, neighbour):
        assert code_of(await line.present(await line.call(token, key=key))) == "proof.signature"
    for scheme in ("Bearer", "DPoP", "countersign"):
        assert code_of(await line.present(changed(bare, authorization=f"{scheme} {token}"))) == "token.scheme"
    assert line.ran[AUDIENCE] == []

    assert code_of(await line.present(own)) == "ok"


async def test_a3_a_token_in_the_models_context_asks_for_no_other(line: Line) -> None:
    token = await line.token()
    for more in ((("authorization", f"Countersign {token}"),), (("authorization", f"Bearer {token}"),)):
        message = await line.world.signed(body=form(details()), more=more)
        assert code_of(await line.world.send(message)) == "proof.ambiguous"
    unsigned = Message("POST", "/token", (("authorization", f"Bearer {token}"),), form(details()))
    assert (await line.world.send(unsigned)).status_code == 400


async def test_a6_fifty_copies_at_once_at_two_replicas_run_once(line: Line) -> None:
    now = int(line.world.clock.now().timestamp())
    shared = MemoryReplayCache(epoch=now - 10)
    replicas = [line.start(replay=shared), line.start(replay=shared)]
    message = await line.call(await line.token())

    sends = [line.present(message, server=replicas[number % 2]) for number in range(AT_ONCE)]
    codes = Counter(code_of(one) for one in await asyncio.gather(*sends))

    assert codes == {"ok": 1, "proof.replayed": AT_ONCE - 1}
    assert len(line.ran[AUDIENCE]) == 1


async def test_a6_fifty_copies_of_a_token_request_get_one_token(line: Line) -> None:
    message = await line.world.signed(body=form(details()))
    codes = Counter(code_of(one) for one in await asyncio.gather(*(line.world.send(message) for _ in range(AT_ONCE))))
    assert codes == {"ok": 1, "proof.replayed": AT_ONCE - 1}


async def test_a7_a_tool_server_that_was_restarted_takes_no_call_from_before(line: Line) -> None:
    message = await line.call(await line.token())
    assert code_of(await line.present(message)) == "ok"
    line.start()
    assert code_of(await line.present(message)) == "replay.store_reset"
    assert len(line.ran[AUDIENCE]) == 1


async def test_a9_fifty_requests_under_one_nonce_get_one_token(line: Line) -> None:
    nonce = line.world.nonce()
    asks = [line.ask(arguments={"charge": f"ch_{number}"}, nonce=nonce) for number in range(AT_ONCE)]
    codes = Counter(code_of(one) for one in await asyncio.gather(*asks))
    assert codes == {"ok": 1, "proof.replayed": AT_ONCE - 1}


@pytest.mark.parametrize(
    ("created", "seconds", "code"),
    [
        (-61, 30, "proof.expired"),
        (-30, 30, "proof.expired"),
        (-1_000_000_000, 60, "proof.expired"),
        (61, 30, "proof.future"),
        (6, 30, "proof.future"),
        (0, 86_400, "proof.window"),
        (0, 61, "proof.window"),
        (0, 0, "proof.window"),
    ],
)
async def test_a10_a_proof_outside_its_window(line: Line, created: int, seconds: int, code: str) -> None:
    message = await line.call(await line.token(), created=created, seconds=seconds)
    assert code_of(await line.present(message)) == code


@pytest.mark.parametrize(("minutes", "codes"), [(10, {"proof.expired"}), (-10, {"proof.future"})])
async def test_a10_a_tool_server_whose_clock_is_wrong_refuses(line: Line, minutes: int, codes: set[str]) -> None:
    message = await line.call(await line.token())
    line.world.clock.advance(60 * minutes)
    assert code_of(await line.present(message)) in codes


# Part B: forged or confused attestation.


async def test_b2_twenty_enrolments_of_one_pod_at_once_are_one_instance_with_one_key_that_counts(
    office: Office,
) -> None:
    first = await office.signer()
    signers = [first, *[await Caller.make(office, first.device, TOKEN) for _ in range(4)]]
    bodies = [await one.secret_body(await one.challenged()) for one in signers[-1:] * 20]
    answers = await asyncio.gather(*(first.post("/secret", body) for body in bodies))

    assert {one.status_code for one in answers} == {200}
    assert len({one.json()["instance"] for one in answers}) == 1
    records = await office.context.store.ak_certificates_of(ak_name=await ak_name(office))
    assert len(records) == 20
    assert [one.revoked for one in records].count(None) == 1


async def ak_name(office: Office) -> bytes:
    """The Name of the AK that enrolled last."""
    async with office.context.store._engine.connect() as connection:
        rows = await connection.exec_driver_sql("select ak_name from ak_certificates order by rowid desc limit 1")
        return bytes(rows.scalar_one())


async def test_b4_one_secret_twenty_times_at_once_admits_once(office: Office) -> None:
    one = await office.signer()
    body = await one.secret_body(await one.challenged())
    answers = await asyncio.gather(*(one.post("/secret", body) for _ in range(20)))
    codes = Counter(code_of(answer) for answer in answers)
    assert codes == {"ok": 1, "attest.secret_invalid": 19}
    assert len(office.cluster.all(kube.AGENT_INSTANCES)) == 1


async def test_b4_one_challenge_with_twenty_answers_at_once_has_one_verdict(office: Office) -> None:
    one = await office.signer()
    admitted = await one.admitted()
    account = await Account.make(one)
    order = await account.order(admitted["identifier"])
    good = await one.statement(admitted, order.authorization)
    bad = await one.statement(admitted, "another")
    sends = []
    for number in range(20):
        fresh = replace(account, nonce=await nonce_of(account))
        sends.append(replace(order, account=fresh).attest(bad if number % 2 else good))
    answers = await asyncio.gather(*sends)
    assert len({answer.json()["status"] for answer in answers}) == 1


async def test_b5_twenty_finalizes_at_once_make_one_certificate(office: Office) -> None:
    one = await office.signer()
    admitted = await one.admitted()
    account = await Account.make(one)
    order = await account.order(admitted["identifier"])
    assert (await order.answer(admitted)).json()["status"] == "valid"
    orders = [replace(order, account=replace(account, nonce=await nonce_of(account))) for _ in range(20)]
    answers = await asyncio.gather(*(each.finalize() for each in orders))
    assert {answer.json()["status"] for answer in answers} == {"valid"}
    assert len({answer.json()["certificate"] for answer in answers}) == 1


async def nonce_of(account: Account) -> str:
    async with account.caller.http() as http:
        return str((await http.head(account.directory["newNonce"])).headers["replay-nonce"])


async def test_b9_a_relay_to_the_good_tpm_of_another_node_admits_nobody(office: Office) -> None:
    good = await office.signer()
    office.schedule(bare_pod("evil", "uid-evil", "worker-2"), "token-of-evil")
    relay = replace(good, token="token-of-evil")
    answer = await relay.attest()
    assert (answer.status_code, answer.json()["code"]) == (403, "attest.node_mismatch")
    body = await good.secret_body(await good.challenged())
    assert code_of(await relay.post("/secret", body)) == "attest.secret_invalid"
    assert office.cluster.all(kube.AGENT_INSTANCES) == []


async def test_b9_a_secret_opened_by_the_good_tpm_does_not_vouch_for_a_key_elsewhere(office: Office) -> None:
    good = await office.signer()
    evil = await Caller.make(office, SoftwareDevice.make(EK_ROOT), TOKEN)
    theirs = await evil.device.certify(b"\0" * 32)
    for members in (("public",), ("attest",), ("signature",), ("public", "attest", "signature")):
        changes = {member: b64(getattr(theirs, member)) for member in members}
        assert code_of(await good.secret(await good.challenged(), **changes)) == "attest.key_proof", members
    assert office.cluster.all(kube.AGENT_INSTANCES) == []


# Part C: Kubernetes and node.


async def test_c3_a_pod_that_was_made_while_the_webhook_was_down_gets_no_credential(office: Office) -> None:
    one = await office.signer()
    pod = bare_pod("bare", "uid-bare")
    office.cluster.put(kube.PODS, pod)
    office.cluster.tokens["token-of-bare"] = bound(pod)
    assert code_of(await replace(one, token="token-of-bare").attest()) == "attest.not_injected"


async def test_c5_the_signing_port_is_the_pods_own_loopback(tmp_path: Path) -> None:
    port = neighbours()
    (tmp_path / "token").write_text("token")
    settings = SignerSettings(
        trust_dir=write_trust(tmp_path / "trust"), token_file=tmp_path / "token", port=port, tcti="swtpm:"
    )
    stop = asyncio.Event()
    running = asyncio.create_task(serve(settings, SoftwareDevice.make(EK_ROOT), stop))
    async with asyncio.timeout(30):
        await eventually(lambda: reachable("127.0.0.1", port) and reachable("127.0.0.1", port + 1), "both ports")
        assert not reachable("127.0.0.2", port)
        assert reachable("127.0.0.2", port + 1)  # kubelet probes there; it is no way to a tool
        async with httpx.AsyncClient(base_url=f"http://127.0.0.2:{port + 1}") as neighbour:
            for path in ("/stripe", "/-/servers", "/token"):
                assert (await neighbour.post(path, content=body_of())).status_code in {404, 405}
        stop.set()
        await running


def reachable(host: str, port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex((host, port)) == 0


async def test_c8_a_stolen_pod_token_is_worth_nothing_alone(office: Office) -> None:
    one = await office.signer()
    challenge = await one.challenged()
    elsewhere = SoftwareDevice.make(EK_ROOT)
    await office.register(elsewhere, "worker-2", binding={"type": "Node", "node": {"name": "worker-2"}})
    thief = await Caller.make(office, elsewhere, TOKEN)
    assert code_of(await thief.attest()) == "attest.node_mismatch"

    office.cluster.drop(kube.PODS, POD, NAMESPACE)
    assert code_of(await one.attest()) == "attest.pod_gone"
    assert code_of(await one.secret(challenge)) == "attest.pod_gone"
    office.cluster.put(kube.PODS, bare_pod(uid="uid-of-the-next"))
    assert code_of(await one.attest()) == "attest.pod_mismatch"
    assert office.cluster.all(kube.AGENT_INSTANCES) == []


async def test_c8_the_token_of_another_pod_of_the_node_is_that_pods_alone(office: Office) -> None:
    one = await office.signer()
    pod = office.schedule(bare_pod("second", "uid-second"), "token-of-second")
    other = replace(one, token="token-of-second")
    challenge, foreign = await one.challenged(), await other.challenged()
    assert code_of(await one.secret(foreign)) == "attest.secret_invalid"
    assert code_of(await other.secret(challenge)) == "attest.secret_invalid"
    assert (await one.admitted())["instance"] == f"{NAMESPACE}/{office.instance()['metadata']['name']}"
    assert office.instance()["spec"]["pod"]["uid"] != pod["metadata"]["uid"]
    assert code_of(await other.attest()) == "attest.ak_reused"


async def test_c8_tokens_of_our_own_processes_and_of_nobodys_pod_are_no_agents(office: Office) -> None:
    one = await office.signer()
    own = {**bare_pod("countersign-webhook-1", "uid-own"), "spec": {**bare_pod()["spec"], "serviceAccountName": "x"}}
    own["metadata"] = {**own["metadata"], "namespace": "countersign-system"}
    office.cluster.put(kube.PODS, own)
    office.cluster.tokens["own"] = bound(own)
    office.cluster.tokens["api"] = TokenReview(authenticated=False)  # another audience
    office.cluster.tokens["unbound"] = bound(bare_pod(), pod_name=None, pod_uid=None)
    office.cluster.tokens["nodeless"] = bound(bare_pod(), node_name=None)
    for token, code in (
        ("own", "attest.identity_none"),
        ("api", "attest.token_invalid"),
        ("unbound", "attest.token_unbound"),
        ("nodeless", "attest.pod_mismatch"),
        ("", "attest.token_missing"),
    ):
        assert code_of(await replace(one, token=token).attest()) == code, token


async def test_c8_a_device_made_anew_between_the_two_posts_is_another(office: Office) -> None:
    one = await office.signer()
    challenge = await one.challenged()
    office.cluster.drop(kube.DEVICES, NODE)
    await office.register(SoftwareDevice.make(EK_ROOT))  # of the same name, another TPM
    assert code_of(await one.secret(challenge)) == "attest.device_unknown"
    assert office.cluster.all(kube.AGENT_INSTANCES) == []


async def test_c12_an_identity_made_anew_does_not_inherit_the_old_ones_orders(office: Office) -> None:
    one = await office.signer()
    admitted = await one.admitted()
    account = await Account.make(one)
    order = await account.order(admitted["identifier"])
    old = office.cluster.find(kube.AGENT_IDENTITIES, AGENT, NAMESPACE)
    office.cluster.drop(kube.AGENT_IDENTITIES, AGENT, NAMESPACE)
    office.cluster.put(kube.AGENT_IDENTITIES, thing(AGENT, old["spec"], NAMESPACE, uid="uid-of-the-next"))
    verdict = await order.answer(admitted)
    assert verdict.json()["error"]["code"] == "attest.instance_unknown"


async def test_c5_a_pod_that_shares_what_it_must_not_is_no_agent(office: Office) -> None:
    one = await office.signer()
    identity = office.cluster.find(kube.AGENT_IDENTITIES, AGENT, NAMESPACE)
    for number, change in enumerate(
        (
            {"shareProcessNamespace": True},
            {"hostPID": True},
            {"hostNetwork": True},
            {"securityContext": {"runAsUser": 64174}},
        )
    ):
        pod = bare_pod(f"open-{number}", f"uid-open-{number}")
        pod["spec"] |= change
        office.cluster.put(kube.PODS, patched(pod, inject(pod, identity, INJECTION)))
        office.cluster.tokens["open"] = bound(pod)
        assert code_of(await replace(one, token="open").attest()) == "attest.not_injected", change


# Part D: policy and protocol bypass.


async def test_d1_a_header_that_names_another_tool_than_the_body(line: Line) -> None:
    for more, body, code in (
        ({"mcp-name": "get_charge"}, body_of("create_refund"), "mcp.header_mismatch"),
        ({"mcp-method": "tools/list"}, body_of("get_charge"), "mcp.header_mismatch"),
        ({"mcp-name": "=?base64?Z2V0X2NoYXJnZQ?="}, body_of("get_charge"), "mcp.header_mismatch"),
        ({"mcp-name": "GET_CHARGE"}, body_of("get_charge"), "mcp.header_mismatch"),
        ({}, body_of("create_refund"), "call.tool"),
        ({}, body_of("get_charge", {"charge": "ch_2"}), "call.args"),
    ):
        message = await line.call(await line.token(), body, more=more)
        assert code_of(await line.present(message)) == code, more
    twice = await line.call(await line.token(), more={"mcp-name": "get_charge"})
    twice = replace(twice, headers=(*twice.headers, ("mcp-name", "get_charge")))
    assert code_of(await line.present(twice)) == "parse.duplicate_header"
    assert line.ran[AUDIENCE] == []


@pytest.mark.parametrize(
    "body",
    [
        body_of()[:-1] + b',"method":"tools/list"}',
        body_of().replace(b'"arguments": {}', b'"arguments": {}, "arguments": {"charge":"ch_2"}'),
        body_of().replace(b'"arguments": {}', b'"arguments": {}, "\\u0061rguments": {"charge":"ch_2"}'),
        body_of().replace(b'"arguments": {}', b'"arguments": {}, "Arguments": {}'),
        body_of().replace(b'"arguments": {}', b'"arguments": {}, "argument\xc5\xbf": {}'),
        body_of() + body_of(),
        body_of() + b"\0",
        b"\xef\xbb\xbf" + body_of(),
        body_of().decode().encode("utf-16"),
        b"[" + body_of() + b"]",
        body_of().replace(b'"id": 1', b'"id": 1.5'),
        body_of().replace(b'"id": 1', b'"id": 9007199254740993'),
        body_of().replace(b'"id": 1', b'"id": NaN'),
        body_of().replace(b'"id": 1', b'"id": -0'),
        body_of().replace(b'"id": 1', b'"id": "\\ud800"'),
        body_of().replace(b'"id": 1', b'"id": "\\u0000"'),
        body_of().replace(b'"id": 1', b'"id": "\xc0\xaf"'),
        body_of().replace(b'"id": 1', b'"id": 1, /* */ "x": 1'),
        body_of().replace(b"{}", b'{"charge":' + b"[" * 40 + b"]" * 40 + b"}"),
        body_of().replace(b'"tools/call"', b"'tools/call'"),
    ],
)
async def test_d2_a_body_with_two_readings_reaches_no_tool(line: Line, body: bytes) -> None:
    message = await line.call(await line.token(), body)
    code = code_of(await line.present(message))
    assert code.partition(".")[0] in {"parse", "mcp"}, code
    assert line.ran[AUDIENCE] == []


async def test_d2_what_is_accepted_reaches_the_tool_byte_for_byte(line: Line) -> None:
    body = body_of("get_charge", {"charge": "ch_\u00e9\U0001f600"}).replace(b": ", b" :\t").replace(b",", b"\n,\r")
    message = await line.call(await line.token(arguments={"charge": "ch_\u00e9\U0001f600"}), body)
    assert code_of(await line.present(message)) == "ok"
    ((caller, got),) = line.ran[AUDIENCE]
    assert (got, caller.agent, caller.tool) == (body, SPIFFE_ID, "get_charge")


@pytest.mark.parametrize(
    "name",
    [
        "Get_charge",
        "GET_CHARGE",
        "get_charge ",
        " get_charge",
        "get_charge\u200b",
        "g\u0435t_charge",
        "get-charge",
        "stripe__get_charge",
        "stripe.get_charge",
        "billing/stripe/get_charge",
        "get_charge\0",
        "",
    ],
)
async def test_d4_a_tool_is_its_exact_name(line: Line, name: str) -> None:
    answer = await line.ask(name)
    assert code_of(answer) in {"tool.unknown", "request.details", "parse.nul"}
    token = await line.token()
    assert code_of(await line.present(await line.call(token, body_of(name)))) in {
        "call.tool",
        "mcp.params",
        "parse.nul",
    }


async def test_d4_two_servers_with_tools_of_one_name_are_not_confused(line: Line) -> None:
    assert code_of(await line.ask("list_charges")) == "ok"
    assert code_of(await line.ask("list_charges", audience=OTHER)) == "policy.default_deny"
    foreign = line.world.server("stripe", "payroll", audience="https://tools.payroll.svc/stripe")
    line.world.source.put(kube.TOOL_SERVERS, foreign)
    assert code_of(await line.ask(audience="https://tools.payroll.svc/stripe")) == "tool.server_not_exposed"


async def test_d7_one_byte_changed_anywhere_after_signing(line: Line) -> None:
    message = await line.call(await line.token(), more={"mcp-method": "tools/call", "mcp-name": "get_charge"})
    for at in range(len(message.body)):
        body = message.body[:at] + bytes([message.body[at] ^ 1]) + message.body[at + 1 :]
        assert code_of(await line.present(replace(message, body=body))) == "digest.mismatch"
    for number, (name, value) in enumerate(message.headers):
        if name in {"host", "content-length"}:
            continue  # not covered: the audience is signed instead, and the digest is of the body itself
        for at in {0, len(value) // 2, len(value) - 1}:
            wrong = value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]
            headers = (*message.headers[:number], (name, wrong), *message.headers[number + 1 :])
            assert code_of(await line.present(replace(message, headers=headers))) != "ok", (name, at)
        headers = (*message.headers[:number], *message.headers[number + 1 :])
        assert code_of(await line.present(replace(message, headers=headers))) != "ok", name
    for more in (("mcp-session-id", "x"), ("mcp-param-x", "y"), ("content-type", "text/plain")):
        headers = (*message.headers, more)
        assert code_of(await line.present(replace(message, headers=headers))) != "ok", more
    for target in ("/stripe?a=b", "/stripe/", "/Stripe", "/"):
        assert code_of(await line.present(replace(message, target=target))) != "ok", target
    assert line.ran[AUDIENCE] == []
    assert code_of(await line.present(message)) == "ok"


async def test_d8_the_message_names_neither_key_nor_algorithm_nor_a_second_signature(line: Line) -> None:
    message = await line.call(await line.token())
    fields = dict(message.headers)
    given, signature = fields["signature-input"], fields["signature"]
    for changes in (
        {"signature_input": given + ';alg="none"'},
        {"signature_input": given + ';alg="hmac-sha256"'},
        {"signature_input": given + ';keyid="x"'},
        {"signature_input": given.replace("wimse=", "sig1="), "signature": signature.replace("wimse=", "sig1=")},
        {"signature_input": f"{given}, other={given[6:]}", "signature": f"{signature}, other={signature[6:]}"},
        {"signature": f"{signature}, {signature}"},
        {"signature_input": given.replace(' "content-digest"', "")},
        {"signature_input": given.replace("wimse-workload-to-workload", "other")},
        {"signature": "wimse=::"},
        {"dpop": "eyJhbGciOiJub25lIn0.e30."},
        {"countersign_chain": ":AA==:"},
    ):
        code = code_of(await line.present(changed(message, **changes)))
        assert code.partition(".")[0] == "proof", changes


async def test_d9_a_token_for_one_server_at_another(line: Line) -> None:
    token = await line.token()
    for audience, code in (
        (AUDIENCE, "proof.audience"),
        (OTHER, "token.audience"),
        (f"{OTHER}/", "proof.audience"),
        ("https://ledger.billing.svc:443/mcp", "proof.audience"),
    ):
        message = await line.call(token, audience=audience, target="/mcp")
        assert code_of(await line.present(message, at=OTHER)) == code, audience
    spoofed = changed(await line.call(token), host="ledger.billing.svc", x_forwarded_host="ledger.billing.svc")
    assert code_of(await line.present(spoofed, at=OTHER)) == "proof.audience"
    assert line.ran[OTHER] == []
    assert code_of(await line.present(spoofed)) == "ok"  # Host decides nothing, neither yes nor no


@pytest.mark.parametrize("audience", [f"{AUDIENCE}/", f"{AUDIENCE}?", "https://tools.billing.svc:443/stripe", "stripe"])
async def test_d9_no_other_spelling_of_an_audience_gets_a_token(line: Line, audience: str) -> None:
    assert code_of(await line.ask(audience=audience)) == "tool.server_unknown"


async def test_d14_a_token_is_not_given_after_a_revocation_however_many_ask_at_once(line: Line) -> None:
    before = await asyncio.gather(*(line.ask() for _ in range(10)))
    line.world.source.put(kube.AGENT_INSTANCES, line.world.instance(state="Revoked"))
    after = await asyncio.gather(*(line.ask() for _ in range(10)))
    assert {code_of(one) for one in before} == {"ok"}
    assert {code_of(one) for one in after} == {"instance.revoked"}


# Part E: audit and privacy.


async def test_e1_each_token_that_left_has_its_record_and_each_refusal_too(line: Line) -> None:
    asks = [line.ask("get_charge" if number % 2 else "create_refund") for number in range(20)]
    answers = await asyncio.gather(*asks)
    records = await line.world.records()
    assert {record["metadata"]["uid"] for record in records} == {one.json()["decision"] for one in answers}
    assert Counter(record["status_code"] for record in records) == {"policy.allowed": 10, "policy.default_deny": 10}


async def test_e2_e6_neither_token_nor_record_names_an_argument_or_the_hardware(line: Line) -> None:
    canary = "canary-7f3a"
    token = await line.token(arguments={"charge": canary})
    claims = base64.urlsafe_b64decode(token.split(".")[1] + "==").decode()
    device = line.world.device()
    hardware = [
        device["spec"]["ek"]["publicKeySHA256"],
        device["status"]["model"],
        device["metadata"]["uid"],
        "worker-1",
    ]
    for hidden in (canary, *hardware):
        assert hidden not in claims
    assert canary not in json.dumps(await line.world.records())
