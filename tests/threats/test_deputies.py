"""D16: an agent that calls for another gets nothing of the other's rights, and the record says who called."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from support.line import code_of
from support.soak.stage import Who, add_agent, spiffe_id
from support.world import AUDIENCE, SPIFFE_ID, allow, details, form, policy

from countersign import kube

if TYPE_CHECKING:
    from support.line import Line

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


@dataclass
class Pair:
    """A parent that may read charges, and its helper that may list them; each by a rule that names it."""

    line: Line
    helper: Who

    async def ask(self, tool: str, *, who: Who | None, arguments: Any = None, **changes: str | None) -> str:
        """Ask for a token, as the helper or as the parent; return the code."""
        body = form(details(tool, arguments), resource=AUDIENCE, **changes)
        world = self.line.world
        if who is None:
            return code_of(await world.send(await world.signed(body=body)))
        leaf = world.ca.leaf(who.key.public_key, spiffe_id(who.agent))
        return code_of(await world.send(await world.signed(body=body, key=who.key, chain=[leaf])))


@pytest.fixture
def pair(line: Line) -> Pair:
    helper = add_agent(line.world, "helper")
    rules = [
        {**allow("get_charge"), "subjects": {"agents": [{"name": "refund-agent"}]}},
        {**allow("list_charges"), "subjects": {"agents": [{"name": "helper"}]}},
    ]
    line.world.source.put(kube.TOOL_POLICIES, policy(*rules))
    return Pair(line, helper)


async def test_d16_a_helper_has_its_own_rights_and_none_of_its_parents(pair: Pair) -> None:
    assert await pair.ask("list_charges", who=pair.helper) == "ok"
    assert await pair.ask("get_charge", who=pair.helper) == "policy.default_deny"
    assert await pair.ask("get_charge", who=None) == "ok"
    assert await pair.ask("list_charges", who=None) == "policy.default_deny"


@pytest.mark.parametrize("tool", ["get_charge", "create_refund"])
async def test_d16_a_parents_token_is_exchanged_for_nothing(pair: Pair, tool: str) -> None:
    token = await pair.line.token("get_charge")
    subject = {"subject_token": token}
    typed = {**subject, "subject_token_type": ACCESS_TOKEN}
    acting = {"actor_token": token, "actor_token_type": ACCESS_TOKEN}
    for who in (pair.helper, None):
        assert await pair.ask(tool, who=who, **subject) == "task.mismatch"
        assert await pair.ask(tool, who=who, **typed) == "request.subject_type"
        assert await pair.ask(tool, who=who, **acting) == "request.parameter"
        assert await pair.ask(tool, who=who, scope="all") == "request.parameter"


async def test_d16_a_parents_token_runs_nothing_under_the_helpers_key(pair: Pair) -> None:
    token = await pair.line.token("get_charge")
    stolen = await pair.line.call(token, key=pair.helper.key)
    assert code_of(await pair.line.present(stolen)) == "proof.signature"
    assert pair.line.ran[AUDIENCE] == []


async def test_d16_each_call_is_on_record_under_the_name_of_who_made_it(pair: Pair) -> None:
    for who, tool in ((pair.helper, "list_charges"), (None, "get_charge"), (pair.helper, "get_charge")):
        await pair.ask(tool, who=who)
    records = await pair.line.world.records()
    seen = [(one["actor"]["app_name"], one["resources"][0]["name"], one["status_code"]) for one in records]
    helper = spiffe_id("helper")
    assert seen == [
        (helper, "list_charges", "policy.allowed"),
        (SPIFFE_ID, "get_charge", "policy.allowed"),
        (helper, "get_charge", "policy.default_deny"),
    ]
    assert "actors" not in json.dumps(records)  # nobody speaks for another, so there is no chain to show
