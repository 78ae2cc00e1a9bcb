"""What is asked again, and what never is (wire.md section 4, "Retries"): only what certainly came before the tool."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs
from support.loopback import call, entry, write_trust

if TYPE_CHECKING:
    from support.loopback import Rig, Seen

REFUSED_ONCE = [
    "proof.replayed",
    "proof.signature",
    "proof.expired",
    "cert.expired",
    "policy.denied",
    "policy.default_deny",
    "instance.revoked",
    "environment.key_tier_too_low",
    "replay.unavailable",
    "audit.unavailable",
    "decide.failed",
    "decide.unavailable",
    "rate.limited",
    "approval.pending",
]

SENT_ONCE = [
    "proof.replayed",
    "proof.signature",
    "proof.expired",
    "token.signature",
    "token.audience",
    "call.args",
    "replay.unavailable",
    "environment.attestation_stale",
    "environment.assurance_too_low",
    "decide.unavailable",
]


def nonce_of(seen: Seen) -> str:
    return (seen.get("signature-input") or "").partition('nonce="')[2].partition('"')[0]


@pytest.mark.parametrize("code", ["nonce.invalid", "nonce.expired"])
async def test_a_nonce_that_is_refused_is_replaced_by_the_one_in_the_answer(rig: Rig, code: str) -> None:
    fresh = "fresh" + "0" * 38
    rig.front.refuse("/token", code, 400, headers={"countersign-nonce": fresh})
    assert (await rig.post(call())).json()["result"] == {"ok": True}
    first, second = rig.front.asked("/token")
    assert nonce_of(second) == fresh
    assert nonce_of(first) != fresh
    assert first.body == second.body


async def test_a_nonce_that_is_refused_without_another_empties_the_pool(rig: Rig) -> None:
    rig.front.refuse("/token", "nonce.invalid", 400)
    assert (await rig.post(call())).json()["result"] == {"ok": True}
    assert len(rig.front.asked("/nonce")) == 2


async def test_a_nonce_is_refused_at_most_once(rig: Rig) -> None:
    for _ in range(2):
        rig.front.refuse("/token", "nonce.expired", 400)
    assert (await rig.post(call())).json()["error"]["data"]["code"] == "nonce.expired"
    assert len(rig.front.asked("/token")) == 2


async def test_nonces_are_used_once_and_asked_for_by_the_pool(rig: Rig) -> None:
    for _ in range(20):
        await rig.post(call())
    used = [nonce_of(seen) for seen in rig.front.seen if not seen.target.startswith("/nonce")]
    assert len(set(used)) == len(used) == 21  # 20 calls and the catalogue
    asked = rig.front.asked("/nonce")
    assert len(asked) == 1  # each answer brought one more
    assert asked[0].target == f"/nonce?jkt={rig.keyring.identity.key.jkt}&count=16"


async def test_an_old_nonce_of_the_pool_is_not_used(rig: Rig) -> None:
    await rig.post(call())
    rig.clock.advance(46)
    await rig.post(call())
    assert len(rig.front.asked("/nonce")) == 2


async def test_after_a_reset_of_the_replay_store_the_signer_waits_a_second_and_asks_anew(rig: Rig) -> None:
    rig.front.refuse("/token", "replay.store_reset", 503, headers={"retry-after": "1"})
    assert (await rig.post(call())).json()["result"] == {"ok": True}
    assert rig.naps == [1.0]
    assert len(rig.front.asked("/nonce")) == 2


async def test_a_stale_attestation_is_made_anew_and_the_call_asked_once_more(rig: Rig) -> None:
    rig.front.refuse("/token", "environment.attestation_stale", 403)
    assert (await rig.post(call())).json()["result"] == {"ok": True}
    assert rig.keyring.reattested == 1


async def test_an_attestation_that_stays_stale_is_a_refusal(rig: Rig) -> None:
    for _ in range(2):
        rig.front.refuse("/token", "environment.attestation_stale", 403, decision="d")
    error = (await rig.post(call())).json()["error"]
    assert error["data"] == {"code": "environment.attestation_stale", "decision": "d"}
    assert rig.keyring.reattested == 1


async def test_for_ten_seconds_after_a_new_certificate_an_unknown_instance_is_asked_again(rig: Rig) -> None:
    for _ in range(5):
        rig.front.refuse("/token", "instance.unknown", 403)
    assert (await rig.post(call())).json()["result"] == {"ok": True}
    assert rig.naps == [0.25] * 5


async def test_after_ten_seconds_an_unknown_instance_is_a_refusal(rig: Rig) -> None:
    for _ in range(100):
        rig.front.refuse("/token", "instance.unknown", 403)
    assert (await rig.post(call())).json()["error"]["data"]["code"] == "instance.unknown"
    assert sum(rig.naps) == pytest.approx(10)


async def test_with_an_old_certificate_an_unknown_instance_is_a_refusal_at_once(rig: Rig) -> None:
    rig.clock.advance(timedelta(minutes=1))
    rig.front.refuse("/token", "instance.unknown", 403)
    assert (await rig.post(call())).json()["error"]["data"]["code"] == "instance.unknown"
    assert rig.naps == []


@pytest.mark.parametrize("code", REFUSED_ONCE)
async def test_nothing_else_is_asked_twice_of_the_front_door(rig: Rig, code: str) -> None:
    rig.front.refuse("/token", code, 403)
    assert (await rig.post(call())).json()["error"]["data"]["code"] == code
    assert len(rig.front.asked("/token")) == 1


@pytest.mark.parametrize("code", ["nonce.invalid", "nonce.expired", "replay.store_reset", "token.kid", "token.expired"])
async def test_a_call_is_sent_again_with_a_new_token_where_the_tool_cannot_have_run(rig: Rig, code: str) -> None:
    rig.tool.refuses(code, 503 if code.startswith("replay") else 401)
    assert (await rig.post(call())).json()["result"] == {"ok": True}
    first, second = rig.tool.seen
    assert first.get("authorization") != second.get("authorization")
    assert first.body == second.body
    assert rig.naps == ([1.0] if code == "replay.store_reset" else [])


@pytest.mark.parametrize(("asked", "waits"), [(b"6", 6.0), (b"0", 1.0), (b"3600", 40.0), (b"soon", 1.0)])
async def test_a_verifier_that_just_started_is_waited_for_as_long_as_it_says(
    rig: Rig, asked: bytes, waits: float
) -> None:
    problem = b'{"title":"x","status":503,"code":"replay.store_reset"}'
    rig.tool.says(503, [(b"content-type", b"application/problem+json"), (b"retry-after", asked)], problem)
    assert (await rig.post(call())).json()["result"] == {"ok": True}
    assert rig.naps == [waits]


@pytest.mark.parametrize("code", ["token.kid", "token.expired", "replay.store_reset"])
async def test_it_is_sent_again_only_once(rig: Rig, code: str) -> None:
    for _ in range(2):
        rig.tool.refuses(code, 401)
    assert (await rig.post(call())).json()["error"]["data"]["code"] == code
    assert len(rig.tool.seen) == 2


@pytest.mark.parametrize("code", SENT_ONCE)
async def test_nothing_else_is_sent_twice_to_a_tool_server(rig: Rig, code: str) -> None:
    rig.tool.refuses(code, 401)
    assert (await rig.post(call())).json()["error"]["data"]["code"] == code
    assert len(rig.tool.seen) == len(rig.front.tokens) == 1
    assert rig.keyring.reattested == 0


async def test_a_lost_answer_of_the_front_door_is_not_asked_for_again(rig: Rig) -> None:
    await rig.post(call())
    del rig.net.hosts["countersign.example.com"]
    await rig.door.aclose()
    rig.door._http = None
    error = (await rig.post(call())).json()["error"]
    assert (error["code"], error["data"]["code"]) == (503, "decide.unavailable")


async def test_a_lost_answer_of_the_tool_server_is_not_sent_again(rig: Rig) -> None:
    heard = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    rig.front.servers = [entry(endpoint="http://plain.billing.svc/mcp")]
    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        rig.net.hosts["plain.billing.svc"] = server.sockets[0].getsockname()[1]
        error = (await rig.post(call())).json()["error"]
    assert error == {"code": 502, "message": "The tool server did not answer", "data": {}}
    assert len(heard) == 1


async def test_calls_at_the_same_time_have_tokens_and_nonces_of_their_own(rig: Rig) -> None:
    answers = await asyncio.gather(*(rig.post(call(id_=number)) for number in range(30)))
    assert [one.json()["id"] for one in answers] == list(range(30))
    tokens = [seen.get("authorization") for seen in rig.tool.seen]
    nonces = [nonce_of(seen) for seen in rig.front.asked("/token")]
    assert len(set(tokens)) == len(set(nonces)) == 30


async def test_the_trust_files_are_read_anew_and_a_new_front_door_is_used(rig: Rig) -> None:
    await rig.post(call())
    rig.net.hosts["moved.example.com"] = rig.net.hosts["countersign.example.com"]
    write_trust(rig.trust_dir, webhook="https://moved.example.com")
    rig.clock.advance(11)
    got = await rig.post(call())
    assert got.json()["error"]["data"]["code"] == "decide.unavailable"  # the twin's certificate has another name
    assert rig.door.issuer() == "https://moved.example.com"


async def test_trust_files_that_break_leave_the_old_ones_in_force(rig: Rig) -> None:
    await rig.post(call())
    (rig.trust_dir / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    rig.clock.advance(11)
    assert (await rig.post(call())).json()["result"] == {"ok": True}
    for name in ("ca.crt", "webhookURL"):
        (rig.trust_dir / name).unlink()
    rig.clock.advance(11)
    assert (await rig.post(call())).json()["result"] == {"ok": True}


async def test_without_trust_files_no_call_is_made(rig: Rig) -> None:
    (rig.trust_dir / "webhookURL").write_text("http://countersign.example.com")
    error = (await rig.post(call())).json()["error"]
    assert (error["code"], error["data"]["code"]) == (503, "decide.unavailable")
    assert rig.front.seen == []


async def test_what_is_sent_again_is_counted_by_the_code_that_allows_it(rig: Rig) -> None:
    rig.front.refuse("/token", "nonce.expired", 400, headers={"countersign-nonce": "n" * 43})
    rig.tool.refuses("token.kid", 401)
    await rig.post(call())
    name = "countersign_signer_retries_total"
    counted = [rig.metrics.registry.get_sample_value(name, {"code": code}) for code in ("nonce.expired", "token.kid")]
    assert counted == [1, 1]


@pytest.mark.parametrize(("behind", "words"), [(600, "600 s behind"), (-600, "600 s ahead of")])
async def test_a10_a_refusal_for_the_time_is_compared_with_the_others_clock(rig: Rig, behind: int, words: str) -> None:
    date = format_datetime(rig.clock.now() + timedelta(seconds=behind), usegmt=True)
    rig.front.refuse("/token", "proof.expired", 400, headers={"date": date}, error_description="made long ago")
    with capture_logs() as logs:
        got = await rig.post(call())
    assert got.json()["error"]["data"]["code"] == "proof.expired"
    skew = {"against": "front_door"}
    assert rig.metrics.registry.get_sample_value("countersign_clock_skew_seconds", skew) == -behind
    [said] = [one["fault"] for one in logs if one["event"] == "clock.skew"]
    assert words in said
    assert "NTP" in said


async def test_a10_a_refusal_of_another_kind_says_nothing_of_clocks(rig: Rig) -> None:
    date = format_datetime(rig.clock.now() + timedelta(seconds=600), usegmt=True)
    rig.front.refuse("/token", "policy.denied", 403, headers={"date": date})
    with capture_logs() as logs:
        await rig.post(call())
    assert [one for one in logs if one["event"] == "clock.skew"] == []
