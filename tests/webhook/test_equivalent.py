"""However a call is written where the page lets it be written in several ways, it is the same call and gets the same answer."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.soak.decisions import good_form
from support.soak.mutate import dumped
from support.soak.scenes import SCENES
from support.soak.stage import Call, Who
from support.world import AUDIENCE, FORM, SoftwareKey, World, allow, details, form, policy

from countersign import kube
from countersign.wire import Message
from countersign_webhook.decide.form import parse_token_request

WHO = Who("refund-agent", SoftwareKey(), "")
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "é", "x y", "/"]), inner, max_size=3)
    ),
    max_leaves=8,
)
SEEDS = st.integers(0, 2**32).map(Random)
quick = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def message(body: bytes, rng: Random | None = None) -> Message:
    """A request as it arrives: names of fields in any case, white space around values."""
    fields = [("content-type", FORM), ("content-length", str(len(body))), ("host", "countersign.example.com")]
    if rng is not None:
        fields = [
            ("".join(rng.choice((c.upper(), c)) for c in name), rng.choice(("", " ", "\t")) + value)
            for name, value in fields
        ]
    return Message.build("POST", "/token", fields, body)


@quick
@given(st.dictionaries(st.sampled_from(["a", "b", "é", "x y", "/"]), JSON, max_size=3), SEEDS)
def test_a_call_is_the_same_however_it_is_written(arguments: dict[str, Any], rng: Random) -> None:
    plain = parse_token_request(message(form(details("pay", arguments))))
    call = Call(WHO, SCENES[0], arguments, tool="pay")
    other = parse_token_request(message(good_form(rng, call), rng))

    assert (other.subject, other.call.audience, other.call.method, other.call.tool) == (
        "current",
        AUDIENCE,
        "tools/call",
        "pay",
    )
    assert other.call.arguments == plain.call.arguments == arguments
    assert (other.call.args, other.call.digest) == (plain.call.args, plain.call.digest)


@quick
@given(SEEDS)
def test_the_names_of_fields_have_no_case_and_their_values_no_ends(rng: Random) -> None:
    assert message(form(), rng) == message(form())


async def test_the_answer_and_the_record_are_the_same(world: World) -> None:
    rule = allow(
        "get_charge", arguments=[{"pointer": "/charge", "type": "String", "string": {"values": ["ch_1", "é/"]}}]
    )
    world.source.put(kube.TOOL_POLICIES, policy(rule))
    for arguments, code in (
        ({"charge": "ch_1"}, "ok"),
        ({"charge": "é/"}, "ok"),
        ({"charge": "ch_2"}, "policy.default_deny"),
    ):
        seen = set()
        for seed in range(20):
            call = Call(WHO, SCENES[0], arguments, tool="get_charge")
            answer = await world.send(await world.signed(body=good_form(Random(seed), call)))
            seen.add("ok" if answer.status_code == 200 else answer.json()["code"])
        assert seen == {code}
        args = {one["unmapped"]["countersign"]["args"] for one in (await world.records())[-20:]}
        assert len(args) == 1


@quick
@given(JSON, SEEDS)
def test_every_way_of_writing_is_read_by_the_standard_library_as_the_value(value: Any, rng: Random) -> None:
    assert json.loads(dumped(rng, value)) == value
