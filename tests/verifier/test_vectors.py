"""Leg C: every vector of the page for MCP, the order of the checks, and what each check alone stands for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.signed_vectors import Case, cases, issuer_key
from support.wire_vectors import load

from countersign.errors import CountersignError, Denied
from countersign.verifier import LEG_C_STEPS, LegC, verify_call
from countersign.wire import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from countersign.wire import Step

ALL = cases("C")
ACCEPTED = [case for case in ALL if case.code is None]
REFUSED = [case for case in ALL if case.code is not None]


def named(case: Case) -> str:
    return f"{case.name}-{case.code or 'accepted'}"


async def leg_c(case: Case, **changes: Any) -> LegC:
    context = case.context
    now, replay = context["now"], case.replay()
    for jti in context["seen"]:
        await replay.insert((context["issuer"], jti), issued=now, expires=now + 65, now=now)
    known = {
        "issuer": context["issuer"],
        "audience": context["audience"],
        "now": now,
        "keys": issuer_key,
        "replay": replay,
        "input_schemas": context["input_schemas"],
        "min_key_tier": context["min_key_tier"],
        **changes,
    }
    return LegC(**known)


@pytest.mark.parametrize("case", ACCEPTED, ids=named)
async def test_a_good_call_tells_who_makes_it(case: Case) -> None:
    caller = await verify_call(case.message(), await leg_c(case))

    assert {name: getattr(caller, name) for name in case.result} == case.result
    assert caller.instance == "billing/refund-agent-7f9c4"


@pytest.mark.parametrize("case", REFUSED, ids=named)
async def test_a_bad_call_fails_with_its_code(case: Case) -> None:
    with pytest.raises(CountersignError) as refusal:
        await verify_call(case.message(), await leg_c(case))

    assert refusal.value.code == case.code


async def stops_at(case: Case, steps: Sequence[Step[Any]]) -> tuple[int, str | None]:
    """Return the place in LEG_C_STEPS at which a case fails, with its code; or the end, if it passes."""
    reached: list[Step[Any]] = []

    def watched(step: Step[Any]) -> Step[Any]:
        def check(exam: Any) -> Any:
            reached.append(step)
            return step.check(exam)

        return replace(step, check=check)

    try:
        await verify_call(case.message(), await leg_c(case), steps=[watched(step) for step in steps])
    except CountersignError as error:
        return LEG_C_STEPS.index(reached[-1]), error.code
    return len(LEG_C_STEPS), None


@pytest.mark.parametrize("case", REFUSED, ids=named)
async def test_without_its_check_a_bad_call_passes_or_fails_later(case: Case) -> None:
    at, _ = await stops_at(case, LEG_C_STEPS)
    left_out = LEG_C_STEPS[at]
    assert case.code in left_out.codes

    later, _ = await stops_at(case, [step for step in LEG_C_STEPS if step is not left_out])

    assert later > at


@pytest.mark.parametrize("case", REFUSED, ids=named)
async def test_no_other_check_is_needed_to_refuse_it(case: Case) -> None:
    at, _ = await stops_at(case, LEG_C_STEPS)

    for other in LEG_C_STEPS[:at]:
        if "token.kid" in other.codes:
            continue  # it finds the key that the next step needs
        stopped, code = await stops_at(case, [step for step in LEG_C_STEPS if step is not other])
        assert (stopped, code) == (at, case.code), other.codes


@pytest.mark.parametrize(
    "name",
    [
        "c_nonce_is_not_jti",
        "c_token_for_other_server",
        "c_other_arguments_signed",
        "c_protocol",
        "c_replayed",
        "c_store_reset",
        "c_low_tier",
        "c_other_key",
        "c_expired_signature",
        "c_wrong_audience_signature",
    ],
)
async def test_left_out_alone_the_check_is_all_that_stood_between(name: str) -> None:
    [case] = [one for one in ALL if one.name == name]

    stopped, code = await stops_at(case, [step for step in LEG_C_STEPS if case.code not in step.codes])

    assert (stopped, code) == (len(LEG_C_STEPS), None)


def test_the_numbers_are_those_of_the_page_in_its_order() -> None:
    numbers = [step.number for step in LEG_C_STEPS]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(1, 22))


def http_cases() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = load("signatures")["cases"]
    return [case for case in found if case["context"].get("protocol") == "HTTP" and case["accept"]]


async def test_a_plain_http_call_is_refused_until_it_is_built() -> None:
    base = ALL[0]
    found = http_cases()
    assert found
    for case in found:
        filled = replace(base, context={**base.context, **case["context"]}, raw=case["request"])
        with pytest.raises(Denied) as refusal:
            await verify_call(filled.message(), await leg_c(filled))
        assert refusal.value.code == "call.protocol"


def good() -> Case:
    return next(case for case in ACCEPTED if case.name == "c_mcp_2026")


@pytest.mark.parametrize(
    ("floor", "code"),
    [
        ({"min_assurance": "Hardware", "max_attestation_age": 1800}, None),
        ({"max_attestation_age": 1799}, "environment.attestation_stale"),
    ],
)
async def test_own_floors_come_on_top(floor: dict[str, Any], code: str | None) -> None:
    if code is None:
        await verify_call(good().message(), await leg_c(good(), **floor))
        return
    with pytest.raises(Denied) as refusal:
        await verify_call(good().message(), await leg_c(good(), **floor))
    assert refusal.value.code == code


async def test_the_endpoints_path_is_held_where_it_is_known() -> None:
    await verify_call(good().message(), await leg_c(good(), path="/mcp"))
    with pytest.raises(CountersignError) as refusal:
        await verify_call(good().message(), await leg_c(good(), path="/other"))
    assert refusal.value.code == "http.path"


async def test_a_refusal_names_the_token_once_the_issuer_vouches_for_it() -> None:
    by_name = {case.name: case for case in REFUSED}
    for name, known in (("c_body_flipped", False), ("c_token_for_other_server", True), ("c_replayed", True)):
        with pytest.raises(CountersignError) as refusal:
            await verify_call(by_name[name].message(), await leg_c(by_name[name]))
        assert (vars(refusal.value).get("jti") is not None) is known
        assert (vars(refusal.value).get("txn") is not None) is known


async def test_a_body_over_the_limit_is_refused() -> None:
    message = good().message()
    with pytest.raises(CountersignError) as refusal:
        await verify_call(message, await leg_c(good(), max_body=len(message.body) - 1))
    assert refusal.value.code == "parse.size"


async def test_truncated_anywhere_the_body_is_refused() -> None:
    message = good().message()
    for end in range(0, len(message.body), 5):
        cut = Message(message.method, message.target, message.headers, message.body[:end])
        with pytest.raises(CountersignError):
            await verify_call(cut, await leg_c(good()))
