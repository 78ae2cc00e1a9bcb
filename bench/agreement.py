"""Both decide alike, or nothing is measured: the same mixed questions to our rules and to OPA's, and mixed requests to both servers."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import deciding
import opa
import subjects
from exchange import encoded
from inside import GRANTS, TOOL, policies_of, question, server
from load import connect

from countersign.policy import Catalogue, RuleSet, decide
from countersign.verifier.testing import TestKey

if TYPE_CHECKING:
    from deciding import Member
    from load import Line
    from subjects import Place, Subject

    from countersign.policy import Question

__all__ = ["agreed"]

_QUESTIONS = 300
_MISSING = object()
_ODD = 0.15
_AMOUNTS = (_MISSING, None, True, "1200", 0, 1, 1200.0, 12.5, 5000, 5001)
_CHARGES = ("ch_2", "ch_disputed", _MISSING)  # strings, as the tool's schema has it: OPA is not asked to read that


async def agreed(where: Place, found: list[Subject]) -> str:
    """Return how many questions both decided alike, and how many of them with yes. Raises RuntimeError at the first that differs."""
    sizes = sorted({one.policies for one in found})
    asked, yes = 0, 0
    for size in sizes:
        plain = await _line(where, _of(found, subjects.PLAIN, size))
        rules, catalogue = RuleSet.compile(policies_of(size)), Catalogue.build([server()], GRANTS)
        for one in _questions(size):
            ours, theirs = decide(one, rules, catalogue).allowed, await _allowed(plain, opa.PLAIN, opa.facts(one))
            _same(ours, theirs, f"{one}")
            asked, yes = asked + 1, yes + ours
        await plain.hang_up()
    for size in sizes:
        lines = [await _line(where, _of(found, who, size)) for who in (subjects.OURS, subjects.WHOLE)]
        for what, expected, member, key, call in _requests(where.members):
            signer = replace(member, key=key)
            message = await deciding.request(signer, await _nonce(lines[0], member), call)
            ours = (await lines[0].ask([encoded(message)], 10)).startswith(b"HTTP/1.1 200 ")
            _same(ours, await _allowed(lines[1], opa.WHOLE, await opa.signed(signer, call)), what)
            _same(ours, expected, what)
            asked, yes = asked + 1, yes + ours
        for line in lines:
            await line.hang_up()
    return f"{asked:,}, {yes:,} of them with yes"


def _requests(members: list[Member]) -> list[tuple[str, bool, Member, TestKey, dict[str, Any]]]:
    """Return what both servers are asked: what it is, whether it is allowed, who asks, which key signs, and the call."""
    good, foreign = members[0], members[-1]
    calls = {
        "a good call": (True, deciding.details()),
        "a tool without a rule": (False, deciding.details("get_charge", {"charge": "ch_1"})),
        "too much": (False, deciding.details(TOOL, {"charge": "ch_1", "amount": 5001})),
        "a disputed charge": (False, deciding.details(TOOL, {"charge": "ch_disputed", "amount": 1200})),
    }
    found = [(what, expected, good, good.key, call) for what, (expected, call) in calls.items()]
    return [
        *found,
        ("a signature of another key", False, good, TestKey(), deciding.details()),
        ("a certificate of another CA", False, foreign, foreign.key, deciding.details()),
    ]


def _questions(size: int) -> list[Question]:
    draw, now = random.Random(size), datetime.now(UTC)
    return [_question(draw, now, size) for _ in range(_QUESTIONS)]


def _question(draw: random.Random, now: datetime, size: int) -> Question:
    """Return a question that is good but for what was drawn: each part is odd now and then."""

    def of(good: Any, *odd: Any) -> Any:
        return draw.choice(odd) if draw.random() < _ODD else good

    base = question(now)
    amount, charge = of(1200, *_AMOUNTS), of("ch_1", *_CHARGES)
    arguments = {name: value for name, value in (("amount", amount), ("charge", charge)) if value is not _MISSING}
    agent = replace(
        base.caller.agent,
        namespace=of("billing", "shipping"),
        name=of("refund-agent", f"agent-{draw.randrange(size + 1)}", "nobody"),
    )
    device = replace(base.caller.device, attestation_time=now - timedelta(minutes=of(30, 5, 59, 61)))
    caller = replace(base.caller, agent=agent, device=device, key_tier=of("TPM", "TPMSession"))
    return replace(base, caller=caller, tool=of(TOOL, "get_charge"), arguments=arguments)


def _of(found: list[Subject], who: str, size: int) -> Subject:
    return next(one for one in found if (one.who, one.policies) == (who, size))


async def _line(where: Place, one: Subject) -> Line:
    return await connect(one.port, where.context, lambda _answer: True)


async def _nonce(line: Line, member: Member) -> str:
    get = f"GET /nonce?jkt={member.key.jkt} HTTP/1.1\r\nhost: bench\r\n\r\n".encode()
    return str(json.loads((await line.ask([get], 10)).partition(b"\r\n\r\n")[2])["nonces"][0])


async def _allowed(line: Line, path: str, given: dict[str, Any]) -> bool:
    """Ask OPA; an answer without a result is a mistake of the benchmark's own."""
    answer = await line.ask([opa.posted(path, given)], 10)
    result = json.loads(answer.partition(b"\r\n\r\n")[2])["result"]
    return bool(result["allow"])


def _same(ours: object, theirs: object, what: str) -> None:
    if ours != theirs:
        raise RuntimeError(f"not decided alike: {what}: {ours} and {theirs}")
