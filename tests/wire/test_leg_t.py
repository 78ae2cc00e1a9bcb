"""Leg T: every vector of the page, the order of the checks, and what each check alone stands for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.signed_vectors import Case, VectorKey, cases, certificate, with_session

from countersign.errors import CountersignError, Denied
from countersign.wire import (
    LEG_T_STEPS,
    InstanceView,
    LegT,
    MemoryReplayCache,
    Message,
    Nonces,
    Step,
    chain_header,
    sign_request,
    verify_leg_t,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

ALL = cases("T")
PLAIN = [case for case in ALL if not with_session(case)]
SESSIONS = [case for case in ALL if with_session(case)]
ACCEPTED = [case for case in PLAIN if case.code is None]
REFUSED = [case for case in PLAIN if case.code is not None] + [
    case for case in SESSIONS if case.name == "session_not_covered"
]
URL = "https://countersign.example.com/token"
SPIFFE_ID = "spiffe://agents.example.com/ns/billing/sa/refund-agent"
NOW = 1_795_521_600
NONCES = Nonces(b"k" * 32)


def named(case: Case) -> str:
    return f"{case.name}-{case.code or 'accepted'}"


@pytest.mark.parametrize("case", ACCEPTED, ids=named)
async def test_a_good_request_tells_who_signed_it(case: Case) -> None:
    caller = await verify_leg_t(case.message(), await case.leg_t())

    assert caller.jkt == case.result["jkt"]
    assert caller.spiffe_id == case.result["spiffe"]
    assert caller.key_tier == case.result["key_tier"]


@pytest.mark.parametrize("case", REFUSED, ids=named)
async def test_a_bad_request_fails_with_its_code(case: Case) -> None:
    with pytest.raises(CountersignError) as refusal:
        await verify_leg_t(case.message(), await case.leg_t())

    assert refusal.value.code == case.code


@pytest.mark.parametrize("case", [one for one in SESSIONS if one.name != "session_not_covered"], ids=named)
async def test_any_session_statement_is_refused_until_its_tier_is_built(case: Case) -> None:
    with pytest.raises(Denied) as refusal:
        await verify_leg_t(case.message(), await case.leg_t())

    assert refusal.value.code == "session.format"


async def stops_at(case: Case, steps: Sequence[Step[Any]]) -> tuple[int, str | None]:
    """Return the place in LEG_T_STEPS at which a case fails, with its code; or the end, if it passes."""
    reached: list[Step[Any]] = []

    def watched(step: Step[Any]) -> Step[Any]:
        def check(exam: Any) -> Any:
            reached.append(step)
            return step.check(exam)

        return replace(step, check=check)

    try:
        await verify_leg_t(case.message(), await case.leg_t(), steps=[watched(step) for step in steps])
    except CountersignError as error:
        return LEG_T_STEPS.index(reached[-1]), error.code
    return len(LEG_T_STEPS), None


@pytest.mark.parametrize("case", REFUSED, ids=named)
async def test_without_its_check_a_bad_request_passes_or_fails_later(case: Case) -> None:
    at, _ = await stops_at(case, LEG_T_STEPS)
    left_out = LEG_T_STEPS[at]
    assert case.code in left_out.codes

    later, _ = await stops_at(case, [step for step in LEG_T_STEPS if step is not left_out])

    assert later > at


@pytest.mark.parametrize("case", REFUSED, ids=named)
async def test_no_other_check_is_needed_to_refuse_it(case: Case) -> None:
    at, _ = await stops_at(case, LEG_T_STEPS)

    for other in LEG_T_STEPS[:at]:
        stopped, code = await stops_at(case, [step for step in LEG_T_STEPS if step is not other])
        assert (stopped, code) == (at, case.code), other.codes


ALONE = [
    "wrong_label",
    "wrong_tag",
    "alg_honest",
    "parameter_order",
    "digest_not_covered",
    "component_order",
    "extra_component",
    "expired",
    "created_in_future",
    "window_too_long",
    "wrong_audience",
    "content_encoding",
    "wit_added",
    "leaf_expired",
    "leaf_no_client_auth",
    "leaf_two_names",
    "chain_from_other_root",
    "replayed",
    "signed_by_other_key",
    "instance_revoked",
]


@pytest.mark.parametrize("name", ALONE)
async def test_left_out_alone_the_check_is_all_that_stood_between(name: str) -> None:
    [case] = [one for one in PLAIN if one.name == name]
    _, code = await stops_at(case, [step for step in LEG_T_STEPS if case.code not in step.codes])

    assert code != case.code


def test_the_numbers_are_those_of_the_page_in_its_order() -> None:
    numbers = [step.number for step in LEG_T_STEPS]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(1, 15))


def view(**changes: Any) -> InstanceView:
    fields = {
        "namespace": "billing",
        "name": "refund-agent-7f9c4",
        "uid": "uid-1",
        "spiffe_id": SPIFFE_ID,
        "state": "Active",
        "device_approved": True,
        "assurance": "Hardware",
        **changes,
    }
    return InstanceView(**fields)


def leg(**changes: Any) -> LegT:
    fields = {
        "audience": URL,
        "issuer": "https://countersign.example.com",
        "now": NOW,
        "roots": lambda domain: [certificate("root")] if domain == "agents.example.com" else [],
        "nonces": NONCES,
        "replay": MemoryReplayCache(epoch=NOW - 10),
        "instance": lambda _jkt: view(),
        **changes,
    }
    return LegT(**fields)


async def request(key: VectorKey | None = None, nonce: str | None = None, **more: str) -> Message:
    key = key or VectorKey("tpm")
    chain = chain_header([certificate("leaf"), certificate("intermediate")])
    headers = (("content-type", "application/x-www-form-urlencoded"), ("countersign-chain", chain), *more.items())
    nonce = nonce or NONCES.make(key.jkt, NOW)
    message = Message("POST", "/token", headers, b"a=b")
    return await sign_request(message, key, audience=URL, nonce=nonce, created=NOW)


async def test_what_our_signer_signs_our_verifier_takes() -> None:
    caller = await verify_leg_t(await request(), leg())

    assert (caller.key_tier, caller.instance.name) == ("TPM", "refund-agent-7f9c4")


async def test_a_refusal_says_how_far_the_request_came() -> None:
    key, thief = VectorKey("tpm"), VectorKey("other")
    good = await request()
    early = replace(good, body=b"a=c")
    known = await request(thief)
    late = leg(instance=lambda _jkt: None)
    strange = leg(roots=lambda _domain: ())

    for message, at, jkt, audited in (
        (early, leg(), None, False),
        (good, strange, key.jkt, False),
        (known, leg(), key.jkt, False),
        (good, late, key.jkt, True),
    ):
        with pytest.raises(Denied) as refusal:
            await verify_leg_t(message, at)
        assert (vars(refusal.value)["jkt"], vars(refusal.value)["audited"]) == (jkt, audited)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"device_approved": False}, "device.not_approved"),
        ({"state": "Ended"}, "instance.ended"),
        ({"state": "Ended", "device_approved": False}, "device.not_approved"),
        ({"state": "Revoked"}, "instance.revoked"),
        ({"state": "Unheard-of"}, "instance.revoked"),
        ({"spiffe_id": ""}, "instance.mismatch"),
        ({"spiffe_id": SPIFFE_ID + "2"}, "instance.mismatch"),
    ],
)
async def test_the_record_decides_and_not_the_certificate(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(Denied) as refusal:
        await verify_leg_t(await request(), leg(instance=lambda _jkt: view(**changes)))

    assert refusal.value.code == code


async def test_roots_are_those_of_the_leafs_own_trust_domain() -> None:
    asked: list[str] = []

    def roots(domain: str) -> list[Any]:
        asked.append(domain)
        return []

    with pytest.raises(Denied) as refusal:
        await verify_leg_t(await request(), leg(roots=roots))

    assert (refusal.value.code, asked) == ("cert.chain", ["agents.example.com"])


async def test_a_nonce_is_spent_by_a_good_signature_only() -> None:
    used = MemoryReplayCache(epoch=NOW - 10)
    nonce = NONCES.make(VectorKey("tpm").jkt, NOW)

    with pytest.raises(Denied):
        await verify_leg_t(await request(VectorKey("other"), nonce), leg(replay=used))
    await verify_leg_t(await request(nonce=nonce), leg(replay=used))

    with pytest.raises(Denied) as refusal:
        await verify_leg_t(await request(nonce=nonce), leg(replay=used))
    assert refusal.value.code == "proof.replayed"
