"""Run cases: the decision of each, with policies and rules in two orders, beside what was expected."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from countersign.errors import Invalid
from countersign.policy import Catalogue, Decision, Question, RuleSet, decide, listable
from countersign.policytools.facts import claims_of, read_caller, read_now
from countersign.wire import parse_json

if TYPE_CHECKING:
    from countersign.policytools.cases import Case

__all__ = ["Outcome", "run_case", "shown"]


@dataclass(frozen=True)
class Outcome:
    """What came of a case. ``got`` is written as ``expect`` is; ``note`` says what else is wrong."""

    case: Case
    passed: bool
    got: Any
    note: str = ""


def run_case(case: Case) -> Outcome:
    """Decide a case. Every order of policies and of rules must give the same answer."""
    policies = case.given.get("policies") or []
    got, turned = _answer(case, policies), _answer(case, _turned(policies))
    if got != turned:
        return Outcome(case, passed=False, got=got, note=f"another order of policies and rules gives {turned}")
    return Outcome(case, passed=_sorted(got) == _sorted(case.expect), got=got)


def _sorted(answer: Any) -> Any:
    """Return an answer with what would have happened by policy and rule, as files write it."""
    if not isinstance(answer, Mapping) or not answer.get("audit"):
        return answer
    marks = sorted(answer["audit"], key=lambda mark: (str(mark.get("policy")), str(mark.get("rule") or "")))
    return {**answer, "audit": marks}


def _turned(policies: list[Any]) -> list[Any]:
    """Return the policies, and the rules in each, from last to first."""
    turned = copy.deepcopy(policies)[::-1]
    for policy in turned:
        spec = policy.get("spec") if isinstance(policy, dict) else None
        if isinstance(spec, dict) and isinstance(spec.get("rules"), list):
            spec["rules"] = spec["rules"][::-1]
    return turned


def _answer(case: Case, policies: list[Any]) -> Any:
    catalogue = _catalogue(json.dumps(case.given.get("toolServers") or [], default=repr))
    rules = RuleSet.compile(policies)
    try:
        question = _question(case)
    except Invalid as error:
        return shown(Decision("Deny", error.code))
    if case.lists:
        return list(listable(question, rules, catalogue))
    return shown(decide(question, rules, catalogue))


@lru_cache(maxsize=64)
def _catalogue(text: str) -> Catalogue:
    """Read servers once, however many cases have them: to compile their schemas is most of the work."""
    servers = json.loads(text)
    # A file says what was looked up: whether a pinned definition changed is part of that.
    return Catalogue.build(servers, claims_of(servers), pins_observed=True)


def _question(case: Case) -> Question:
    """Build the question; raise ``Invalid`` where the text of the arguments is not strict JSON (step 1 of crds.md 5.2)."""
    given, call = case.given, case.call
    raw = call.get("argumentsJSON")
    return Question(
        now=read_now(given["now"], case.name),
        caller=read_caller(given["caller"], given["cluster"], case.name),
        server=call["server"],
        tool=call.get("tool", ""),
        arguments=call.get("arguments", {}) if raw is None else parse_json(raw.encode("utf-8", "surrogatepass")),
        protocol=call.get("protocol", "MCP"),
        method=call.get("method", "tools/call"),
        call_digest=call.get("digest", ""),
        task=given.get("task"),
        approvals=given.get("approvals") or [],
    )


def shown(decision: Decision) -> dict[str, Any]:
    """Return a decision as a file writes it."""
    found: dict[str, Any] = {"effect": decision.effect, "code": decision.code}
    found |= {name: value for name in ("policy", "rule", "reason") if (value := getattr(decision, name)) is not None}
    if decision.audit:
        found["audit"] = [
            {name: value for name, value in vars(mark).items() if value is not None} for mark in decision.audit
        ]
    return found
