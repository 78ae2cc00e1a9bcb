"""Many decisions against an oracle that asks nobody: how a call was made says whether the answer must be yes or no.

Decision ``index`` of ``seed`` is always the same one, but for keys and nonces. Two of three are good calls, in one of the many
ways in which they can be written; the third is a good call that was spoilt.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes
from uuid import UUID

import rfc8785
from support.soak.attacks import (
    AUDIENCES,
    BEFORE_POLICY,
    METHODS,
    PROOFS,
    TOOLS,
    WORLDS,
    changed,
    form_tricks,
    json_tricks,
)
from support.soak.mutate import dumped
from support.soak.progress import Progress
from support.soak.scenes import SCENES
from support.soak.stage import READER_TOOLS, Call, Stage
from support.world import AUDIENCE, ISSUER, form

from countersign.audit import verify_log
from countersign.audit.lines import read_lines
from countersign.wire import TokenExam, verify_token

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from countersign.wire import Message

__all__ = ["SPOILERS", "Outcome", "Wrong", "decisions", "good_form", "log_faults", "plan_of"]

TOGETHER = 32
"""Decisions that run at once: their records share a sync."""
PER_SECOND = 100
"""Decisions to each second of the world's clock, so that the replay store is as full at the end as at the beginning."""
SPOILT_CODES = {"policy.default_deny", "policy.denied", "policy.undecided", *BEFORE_POLICY}


@dataclass(frozen=True)
class Wrong:
    """A decision that was not as it had to be."""

    index: int
    what: str


@dataclass
class Outcome:
    """What came of many decisions. ``tokens`` is the sum of the decision ids of all tokens, to hold against the log."""

    progress: Progress
    wrong: list[Wrong] = field(default_factory=list)
    allowed: int = 0
    hostile: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    tokens: int = 0


@dataclass(frozen=True)
class Plan:
    """One decision that is due: what is sent, and which codes are right. ``world`` is changed around it."""

    index: int
    kind: str
    call: Call
    codes: frozenset[str]
    rng: Random
    proof: str = ""
    world: str = ""


@dataclass(frozen=True)
class Spoilt:
    """A good call made bad: what was done, the call, and which codes may come of it."""

    kind: str
    call: Call
    codes: set[str]
    proof: str = ""
    world: str = ""


def good_form(rng: Random, call: Call) -> bytes:
    """Return one of the many forms of a good call: order of parameters, percent-encoding, and the JSON in it."""
    details = dumped(rng, [call.entry()]) if call.details is None else call.details
    pairs = [pair.partition(b"=") for pair in form("x", resource=call.audience).split(b"&")]
    values = {name.decode(): value for name, _, value in pairs}
    values["authorization_details"] = _percent(rng, details)
    names = list(values)
    rng.shuffle(names)
    return b"&".join(name.encode() + b"=" + values[name] for name in names)


def _percent(rng: Random, data: bytes) -> bytes:
    how = rng.randrange(3)
    if how == 0:
        return "".join(f"%{byte:02x}" if rng.random() < 0.5 else f"%{byte:02X}" for byte in data).encode()
    text = quote_from_bytes(data, safe="" if how == 1 else "{}[]:,/").encode()
    return text.replace(b"%20", b"+") if rng.random() < 0.5 else text


def plan_of(stage: Stage, seed: str, index: int) -> Plan:
    """Return decision ``index``."""
    rng = Random(f"{seed}:{index}")
    scene = rng.choice(SCENES)
    who = stage.reader if scene.tool in READER_TOOLS and rng.random() < 0.5 else stage.whole
    call = Call(who, scene, scene.good(rng))
    if index % 3:
        return Plan(index, "good", replace(call, body=good_form(rng, call)), frozenset({"ok"}), rng)
    [spoil] = rng.choices([*SPOILERS], [*SPOILERS.values()])
    made = spoil(stage, rng, call)
    body = good_form(rng, made.call) if made.call.body is None else made.call.body
    return Plan(index, made.kind, replace(made.call, body=body), frozenset(made.codes), rng, made.proof, made.world)


def _arguments(_stage: Stage, rng: Random, call: Call) -> Spoilt:
    return Spoilt(f"arguments of {call.scene.tool}", replace(call, arguments=call.scene.bad(rng)), SPOILT_CODES)


def _tool(_stage: Stage, rng: Random, call: Call) -> Spoilt:
    tool = rng.choice(sorted(TOOLS))
    return Spoilt("another tool", replace(call, tool=tool), TOOLS[tool] | {"request.details"})


def _audience(_stage: Stage, rng: Random, call: Call) -> Spoilt:
    audience = rng.choice(sorted(AUDIENCES))
    return Spoilt("another server", replace(call, audience=audience), AUDIENCES[audience] | {"request.resource"})


def _method(_stage: Stage, rng: Random, call: Call) -> Spoilt:
    changed_to = replace(call, method=rng.choice(METHODS))
    return Spoilt("another method", changed_to, {"mcp.method_unknown", "request.details"})


def _protocol(_stage: Stage, rng: Random, call: Call) -> Spoilt:
    changed_to = replace(call, protocol=rng.choice(("HTTP", "mcp", "", "SOAP")))
    return Spoilt("another protocol", changed_to, {"request.details"})


def _text(_stage: Stage, rng: Random, call: Call) -> Spoilt:
    return Spoilt("a text with two readings", replace(call, details=json_tricks(rng, call)), BEFORE_POLICY)


def _form(_stage: Stage, rng: Random, call: Call) -> Spoilt:
    codes = {"request.grant", "request.subject_type", "request.resource", "task.mismatch", "tool.server_unknown"}
    return Spoilt("a form with two readings", replace(call, body=form_tricks(rng, call)), codes | BEFORE_POLICY)


def _agent(stage: Stage, rng: Random, _call: Call) -> Spoilt:
    scene = rng.choice([one for one in SCENES if one.tool not in READER_TOOLS])
    return Spoilt("an agent that no rule names", Call(stage.reader, scene, scene.good(rng)), {"policy.default_deny"})


def _again(_stage: Stage, _rng: Random, call: Call) -> Spoilt:
    return Spoilt("sent again", call, {"proof.replayed"}, proof="again")


def _proof(_stage: Stage, rng: Random, call: Call) -> Spoilt:
    name = rng.choice(sorted(PROOFS))
    return Spoilt(name, call, PROOFS[name][0], proof=name)


def _changed(_stage: Stage, _rng: Random, call: Call) -> Spoilt:
    return Spoilt("changed after it was signed", call, set(), proof="changed")


def _world(_stage: Stage, rng: Random, call: Call) -> Spoilt:
    name = rng.choice(sorted(WORLDS))
    return Spoilt(name, call, WORLDS[name][0], world=name)


SPOILERS = {
    _arguments: 40,
    _tool: 7,
    _audience: 6,
    _method: 5,
    _protocol: 2,
    _text: 8,
    _form: 5,
    _agent: 5,
    _again: 5,
    _proof: 8,
    _changed: 5,
    _world: 4,
}
"""Ways to spoil a good call, and how often each is taken."""


async def _run(stage: Stage, plan: Plan, outcome: Outcome) -> None:
    """Send one, or a good one and the same again, and judge what comes."""
    call, codes = plan.call, plan.codes
    if plan.proof == "changed":
        message, expected = await changed(stage, call, plan.rng)
        codes = frozenset(expected)
    elif plan.proof in PROOFS:
        message = await PROOFS[plan.proof][1](stage, call, plan.rng)
    else:
        message = await stage.signed(call)
    if plan.proof == "again":
        await _judge(stage, replace(plan, kind="good"), message, frozenset({"ok"}), outcome)
    await _judge(stage, plan, message, codes, outcome)


async def _judge(stage: Stage, plan: Plan, message: Message, codes: frozenset[str], outcome: Outcome) -> None:
    code, document = await stage.send(message)
    outcome.codes[code] += 1
    outcome.classes[plan.kind] += 1
    if code == "ok":
        outcome.allowed += 1
        outcome.tokens = (outcome.tokens + UUID(document["decision"]).int) % 2**128
    if codes == {"ok"}:
        fault = None if code == "ok" else f"a good call was refused: {code}"
        fault = fault or await _token_fault(stage, plan.call, document, every=plan.index % 16 == 1)
    else:
        outcome.hostile += 1
        fault = "ALLOWED, and must not be" if code == "ok" else None
        fault = fault or (None if code in codes else f"refused as {code}, not as one of {sorted(codes)}")
    if fault:
        call = plan.call
        made = f"{call.who.agent} {call.entry()} body={call.body!r}"[:1500]
        outcome.wrong.append(Wrong(plan.index, f"{plan.kind}: {fault} ({made})"))
        outcome.progress.say(f"FOUND decision {plan.index}")


async def _token_fault(stage: Stage, call: Call, document: dict[str, Any], *, every: bool) -> str | None:
    """Say what is wrong with a token: it must name this call, this key and this decision, and nothing else."""
    token = document["access_token"]
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    args = "sha256:" + hashlib.sha256(rfc8785.dumps(call.arguments)).hexdigest()
    named = {**call.entry(), "args": args}
    del named["arguments"]
    facts = (
        claims["aud"],
        claims["txn"],
        claims["cnf"]["jkt"],
        claims["authorization_details"],
        claims["exp"] - claims["iat"],
    )
    if facts != (AUDIENCE, document["decision"], call.who.key.jkt, [named], 30):
        return f"a token for something else: {claims}"
    if every:
        key = stage.world.token_key.public_key()

        async def keys(_kid: str) -> Any:
            return key

        await verify_token(TokenExam(token, issuer=ISSUER, audience=AUDIENCE, now=stage.seconds(), skew=5, keys=keys))
    return None


async def decisions(
    directory: Path,
    seed: str,
    indices: range,
    *,
    quiet: bool = False,
    most: int = 20,
    prepare: Callable[[Stage], None] | None = None,
) -> tuple[Outcome, Stage]:
    """Make the decisions ``indices`` of ``seed`` at one front door; stop after ``most`` wrong ones. The log is closed.

    ``prepare`` may change the world before the first.
    """
    stage = await Stage.make(directory)
    if prepare is not None:
        prepare(stage)
    outcome = Outcome(Progress("decisions", len(indices), quiet=quiet))
    due: list[Plan] = []
    try:
        for count, index in enumerate(indices, 1):
            plan = plan_of(stage, seed, index)
            if plan.world:
                await _all(stage, due, outcome)
                changing = WORLDS[plan.world][1](stage, plan.call)
                next(changing)
                await _run(stage, plan, outcome)
                next(changing, None)
            else:
                due.append(plan)
            if len(due) >= TOGETHER:
                await _all(stage, due, outcome)
            if count % PER_SECOND == 0:
                await _all(stage, due, outcome)
                stage.world.clock.advance(1)
            outcome.progress.step(f"(go on with --first {index + indices.step})")
            if len(outcome.wrong) >= most:
                break
        await _all(stage, due, outcome)
    finally:
        await stage.world.context.aclose()
    return outcome, stage


async def _all(stage: Stage, due: list[Plan], outcome: Outcome) -> None:
    """Run what is due at once."""
    await asyncio.gather(*(_run(stage, plan, outcome) for plan in due))
    due.clear()


def log_faults(directory: Path, outcome: Outcome) -> list[str]:
    """Hold the log against the tokens: its chain is whole, and each token that left has its record, and none else has one."""
    report = verify_log([directory / "audit"])
    found = [str(fault) for fault in report.faults]
    count = total = 0
    for path in sorted((directory / "audit").glob("*.jsonl")):
        for line in read_lines([path]):
            record = json.loads(line.data or b"{}")
            if record.get("status_code") == "policy.allowed":
                count += 1
                total = (total + UUID(record["metadata"]["uid"]).int) % 2**128
    if (count, total) != (outcome.allowed, outcome.tokens):
        found.append(f"{outcome.allowed} tokens left, and the log has {count} records of a yes, or of others")
    return found
