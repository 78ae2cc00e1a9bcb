"""Decisions per second per core: a whole front door on one core, and OPA on the same one, loaded over TLS from another.

What is counted is the CPU time of the server's process, all its threads and the kernel's part in them, for each decision. So
a generator that is slower than the server, or somebody else's work on the machine, costs little accuracy.
"""

from __future__ import annotations

import contextlib
import os
import statistics
from typing import TYPE_CHECKING

import agreement
import floor
import opa
import subjects
from report import Claim, Section, Table
from timing import Timed, measure, percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from load import Load
    from subjects import Subject

__all__ = ["SIZES", "section"]

SIZES = (1, 100, 1_000, 10_000)
_FLAT = 1.1
_NEAR = 2.0
_TEXT = (
    "A front door in a process of its own, pinned to one core: the webhook's server, application, audit log and keys, over "
    "objects in memory instead of a watch, with default settings but the limits of rate and time. {connections} keep-alive "
    "connections over TLS 1.3 load it from {where}, each with one request under way; requests are signed beforehand, by "
    "software keys. CPU is that of the server's process for one decision, one load a round: proof, chain, policy, record "
    "on disk before the answer, token, HTTP and TLS; the rate of a core is what this CPU allows, p50 and p99 are what a "
    "caller waits with all {connections} asking, and what one waits that asks alone. One policy speaks about "
    "the call, with an Allow and a Deny; the others are of other agents. A chain is verified when it is first seen, so one "
    "verify and one sign are the floor of the table."
)
_OPA = (
    "OPA {version} stands on the same core with the same certificate, connections and generator, GOMAXPROCS=1, its store "
    "optimised for reading, access log off. Policies are Rego rules whose first conditions its rule index finds, the rest "
    "of what it knows are objects with the key that is looked up. It cannot read an RFC 9421 signature, so its proof is a "
    "JWS (ES256) over the same call, audience and times. Three questions: *chain, proof, rules, token, log* is as much of "
    "our job as it can do; *proof, rules, log* takes the agent's key from data; the *plain question* gets the caller's "
    "facts unproved and writes no log. What OPA leaves out in all of them: nonces, refusal of replays, the tool's schema, "
    "and a record that is on disk: its decision log goes to a file without fsync. Certificates stay the same through the "
    "run: both may know one again, but OPA has nothing to keep a verified chain in (its `io_jwt_keys` keeps parsed keys)."
)


async def section(
    rounds: int, seconds: float, told: Callable[[str], None], sizes: Sequence[int] = SIZES, program: Path | None = None
) -> Section:
    """Load each server in turn for ``seconds``, beside the floor, and return the table; OPA too if ``program`` is given."""
    cores = sorted(os.sched_getaffinity(0))
    bare = floor.cases()
    found: dict[str, Timed] = {case.name: Timed(case.name) for case in bare}
    with subjects.place(cores[0]) as where, contextlib.ExitStack() as stack:
        alike = None
        told("starting front doors")
        all_of_them = stack.enter_context(subjects.doors(where, sizes))
        if program is not None:
            told("starting OPA")
            all_of_them += stack.enter_context(subjects.opas(where, sizes, program))
            told("asking both the same")
            alike = await agreement.agreed(where, all_of_them)
        all_of_them.sort(key=lambda one: one.policies)
        for turn in range(rounds + 1):
            with _pinned({where.core}):
                for name, timed in (await measure(bare, rounds=1, told=told)).items():
                    found[name].micros += timed.micros
                    found[name].rounds.append(statistics.median(timed.micros))
            with _pinned(set(cores[1:]) or set(cores)):
                for one in all_of_them[:: -1 if turn % 2 else 1]:  # what drifts hits none of them always first
                    told(f"{one.who}; policies: {one.policies:,} ({turn}/{rounds})")
                    await one.load(where, seconds)
        for one in all_of_them:
            if one.who == subjects.WHOLE:
                told(f"{one.who}; policies: {one.policies:,}: one is changed")
                await one.edited(where)
    text = _TEXT.format(
        connections=subjects.CONNECTIONS, where="another" if len(cores) > 1 else "the same, the only one"
    )
    if program is not None:
        text += "\n\n" + _OPA.format(version=opa.VERSION)
    rows = {(one.who, one.policies): _timed(one) for one in all_of_them}
    tables = [_table(all_of_them, rows, found[floor.DECISION])]
    return Section(
        "Decisions per second per core",
        text,
        tables=tables,
        facts=[
            *_facts(all_of_them),
            *([("mixed questions that both decided alike, before the run", alike)] if alike else []),
        ],
        claims=_claims(rows, found, sizes),
    )


def _timed(one: Subject) -> Timed:
    cpu = [load.cpu / load.answered * 1e6 for load in one.loads[1:]]
    return Timed(one.who, None, cpu, cpu)


def _table(found: list[Subject], rows: dict[tuple[str, int], Timed], bare: Timed) -> Table:
    head = ["policies", "who", "decisions a second and core", "CPU µs", "of the floor", "answered a second"]
    head += ["p50 ms", "p99 ms", "alone: p50 ms", "p99 ms", "MiB"]
    lines = []
    for one in found:
        timed, loads = rows[one.who, one.policies], one.loads[1:]
        rate = sum(load.answered for load in loads) / sum(load.wall for load in loads)
        cpu = [f"{1e6 / timed.p50:,.0f}", f"{timed.p50:,.0f}", f"{timed.ratio(bare):.2f}", f"{rate:,.0f}"]
        waits = [each for kept in (loads, one.alone[1:]) for each in _waits(kept)]
        lines.append([f"{one.policies:,}", one.who, *cpu, *waits, f"{one.memory:,.0f}"])
    return Table(head, lines, words=(1,))


def _waits(loads: list[Load]) -> list[str]:
    micros = [each for load in loads for each in load.micros]
    return [f"{percentile(micros, percent) / 1e3:.2f}" for percent in (50, 99)]


def _facts(found: list[Subject]) -> list[tuple[str, str]]:
    facts = []
    for one in found:
        if "compiled" in one.ready:
            times = f"{one.ready['compiled'] * 1e3:,.1f} ms; {one.ready['compiled_again'] * 1e3:,.1f} ms"
            facts.append((f"to compile all; again when one changed; policies: {one.policies:,}", times))
    for one in found:
        if one.who == subjects.WHOLE:
            took = f"{one.ready['edited'] * 1e3:,.1f} ms"
            facts.append((f"OPA, one policy put, until it bites; policies: {one.policies:,}", took))
    loads = [load for one in found for load in one.loads[1:]]
    busiest = max(load.generator / load.wall for load in loads)
    facts.append(("the generator's own core was busy, at most", f"{busiest:.0%}"))
    return facts


def _claims(rows: dict[tuple[str, int], Timed], found: dict[str, Timed], sizes: Sequence[int]) -> list[Claim]:
    ours = {size: rows[subjects.OURS, size] for size in sizes}
    least, most = min(sizes), max(sizes)
    flat = ours[most].ratio(ours[least])
    claims = []
    if most > least:
        text = f"A decision at {most:,} policies costs {flat:.2f} times the CPU of one at {least:,} (goal: {_FLAT})."
        claims.append(Claim(text, reached=flat <= _FLAT))
    planned = max(each.ratio(found[floor.VERIFY]) for each in ours.values()) / floor.ALL_AT_ONCE
    left = max(each.ratio(found[floor.DECISION]) for each in ours.values())
    text = (
        f"A decision takes at most {planned:.2f} times the CPU of the floor that was planned with (goal: {_NEAR:g}): "
        f"{floor.ALL_AT_ONCE} verifies, for proof, token and issue with libraries. It takes {left:.1f} times what is left of "
        "that, one verify and one sign."
    )
    claims.append(Claim(text, reached=planned <= _NEAR))
    goals = {
        subjects.WHOLE: "doing as much of the same job as it can",
        subjects.PROOF: "checking the proof under a known key and the same rules, without chain and token",
        subjects.PLAIN: "asked the plain question, nothing proved or logged (a moonshot)",
    }
    for who, doing in goals.items():
        if (who, least) in rows:
            faster = [rows[who, size].ratio(ours[size]) for size in sizes]
            listed = ", ".join(f"{each:.2f}" for each in faster)
            text = (
                f"Beside OPA {doing}: {listed} times as many decisions a second and core at {_listed(sizes)} policies."
            )
            claims.append(Claim(text, reached=min(faster) > 1))
    return claims


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(f"{size:,}" for size in sizes)


@contextlib.contextmanager
def _pinned(cores: set[int]) -> Iterator[None]:
    """Keep this process on these cores: the floor on the server's, the generator off it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
