"""`countersign policy test` and the front door say the same of the same vectors, as far as the front door knows the facts."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from countersign.errors import Invalid
from countersign.policy import Catalogue, RuleSet
from countersign.policytools.cases import Case, read_cases
from countersign.policytools.facts import claims_of, read_caller, read_now
from countersign.policytools.trial import run_case, shown
from countersign.wire import Call, parse_json
from countersign_webhook.decide.facts import Facts
from countersign_webhook.decide.form import CURRENT, TokenRequest
from countersign_webhook.decide.judge import judge

if TYPE_CHECKING:
    from collections.abc import Iterator

VECTORS = Path(__file__).parents[1] / "data" / "policy"


def alone(case: Case) -> Case:
    """The case without what has no life yet: tasks and approvals."""
    caller = case.given["caller"]
    caller = {**caller, "agent": {**caller["agent"], "tasks": "Optional"}}
    return Case(case.file, case.name, {**case.given, "caller": caller, "task": None, "approvals": []}, case.call, None)


def cases() -> Iterator[Any]:
    for path in sorted(VECTORS.glob("*.yaml")):
        for case in read_cases(path):
            if not case.lists:
                yield pytest.param(alone(case), id=f"{path.stem[:2]}: {case.name}")


@pytest.mark.parametrize("case", [*cases()])
def test_the_front_door_agrees(case: Case) -> None:
    given, call = case.given, case.call
    servers = Catalogue.build(given["toolServers"], claims_of(given["toolServers"]), pins_observed=True)
    server = servers.find(call["server"])
    caller = read_caller(given["caller"], given["cluster"], "caller")
    try:
        arguments = parse_json(call["argumentsJSON"].encode()) if "argumentsJSON" in call else call.get("arguments", {})
    except Invalid:
        pytest.fail("no vector has text that is no JSON: the front door answers that before it judges")
    request = TokenRequest(
        CURRENT,
        Call(
            protocol="MCP",
            method=call.get("method", "tools/call"),
            tool=call.get("tool", ""),
            arguments=arguments,
            audience=server.audience if server is not None else "https://nowhere.example.com",
        ),
    )
    facts = Facts({}, caller.agent, caller.instance, caller.device, "uid", evidence_limit=timedelta(days=365))
    verdict = judge(
        request,
        facts,
        caller.key_tier,
        now=read_now(given["now"], "now"),
        cluster=caller.cluster,
        rules=RuleSet.compile(given["policies"]),
        servers=servers,
    )
    assert shown(verdict.decision) == run_case(case).got
