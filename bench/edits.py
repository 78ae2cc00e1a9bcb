"""From an edit of one of ten thousand policies to the first decision that obeys it, through a real API server, under calls."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from call import request_of
from crowd import surely, together
from report import Section
from stage import front_of, missing, set_up
from timing import percentile

from countersign import kube
from countersign.signer.refusal import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from stage import Stage

    from countersign.signer.front import FrontDoor
    from countersign.wire import Call

__all__ = ["EDITS", "POLICIES", "section"]

POLICIES = 10_000
EDITS = 30
_QUIET_SECONDS = 10
_PATIENCE = 1800
_UNBOUNDED = {
    f"COUNTERSIGN_WEBHOOK_LIMITS__{who}_{what}": "1000000"
    for who in ("INSTANCE", "ADDRESS")
    for what in ("RATE", "BURST")
}
_TITLE = "An edit of a policy"
_TEXT = (
    "{policies:,} ToolPolicies of other agents and one that is edited, through the API server, its admission by the webhook, and "
    "the webhook's watch. An agent asks for the same call again and again, one after the other, each signed in a TPM simulator; "
    "an edit turns its answer, and is felt by the first answer that is the other one. With kubectl the clock starts before its "
    "process; the API server's answer to a client that is connected is the other start."
)


@dataclass
class _Asking:
    """One agent that never stops asking: what it was answered, and when."""

    front: FrontDoor
    call: Call
    answers: list[tuple[float, float, bool]] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    ended: bool = False

    async def run(self) -> None:
        """Ask until cancelled. Raises what nobody expects of an answer, and those who wait hear of it."""
        try:
            await self._run()
        finally:
            self.ended = True
            async with self.news:
                self.news.notify_all()

    async def _run(self) -> None:
        while True:
            began = time.perf_counter()
            try:
                await self.front.token(self.call)
            except Refused as error:
                if error.code != "policy.denied":
                    raise
                allowed = False
            else:
                allowed = True
            async with self.news:
                self.answers.append((began, time.perf_counter(), allowed))
                self.news.notify_all()

    async def until(self, *, allowed: bool, after: float) -> float:
        """Return when the first answer of this kind that ended after a moment came."""
        async with self.news:
            while True:
                found = [end for _, end, what in reversed(self.answers[-200:]) if what is allowed and end > after]
                if found:
                    return found[-1]
                if self.ended:
                    raise RuntimeError("the benchmark's own call was refused")
                await self.news.wait()

    def micros(self, start: float, end: float) -> list[float]:
        """Return how long the answers took that were asked for between two moments, in milliseconds."""
        return [(done - began) * 1e3 for began, done, _ in self.answers if start <= began < end]


async def section(told: Callable[[str], None], policies: int = POLICIES, edits: int = EDITS) -> Section:
    """Fill a real API server with policies, edit one again and again, and return the table."""
    text = _TEXT.format(policies=policies)
    if without := missing():
        return Section(_TITLE, text, missing=without)
    with _unbounded(), set_up(told) as stage:
        admin = await kube.Kube.connect(stage.machine.plane.admin_kubeconfig)
        try:
            before = _memory(stage)
            told(f"edits: {policies:,} policies")
            made = await _filled(stage, admin, policies)
            after = _memory(stage)
            restart = await _restarted(stage)
            again = _memory(stage)
            async with front_of(stage) as front:
                asking = _Asking(front, request_of(stage.machine.quickstart.audience))
                facts = await _edited(stage, admin, asking, edits, told)
        finally:
            await admin.aclose()
    facts += [
        (f"{policies:,} policies created, and their statuses written, in", f"{made:,.0f} s"),
        (
            "memory of the webhook (PSS) before; with all of them; started with them",
            f"{before:,.0f}, {after:,.0f}, {again:,.0f} MiB",
        ),
        ("the webhook killed and started: ready, all compiled, after", f"{restart:.1f} s"),
    ]
    return Section(_TITLE, text, facts=facts)


async def _edited(
    stage: Stage, admin: kube.Kube, asking: _Asking, edits: int, told: Callable[[str], None]
) -> list[tuple[str, str]]:
    space = stage.machine.quickstart.namespace
    running = asyncio.create_task(asking.run())
    try:
        await _apply(admin, _policy(space, denies=False))
        await asking.until(allowed=True, after=time.perf_counter())
        quiet = time.perf_counter()
        await asyncio.sleep(_QUIET_SECONDS)
        loud = time.perf_counter()
        ways: dict[str, Callable[[dict[str, Any]], Awaitable[object]]] = {
            "kubectl apply, from before its process": lambda one: asyncio.to_thread(stage.machine.admin.apply, [one]),
            "server-side apply on an open connection": lambda one: _apply(admin, one),
        }
        found: dict[str, list[float]] = {}
        for way, write in ways.items():
            for number in range(edits):
                told(f"edits: {way} ({number + 1}/{edits})")
                denies = number % 2 == 0
                began = time.perf_counter()
                writing = asyncio.ensure_future(write(_policy(space, denies=denies)))
                felt = await asking.until(allowed=not denies, after=began)
                await writing
                found.setdefault(way, []).append(felt - began)
        end = time.perf_counter()
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    facts = [
        (
            f"{way}: to the first decision that obeys, p50, max of {edits}",
            f"{percentile(times, 50) * 1e3:,.0f} ms, {max(times) * 1e3:,.0f} ms",
        )
        for way, times in found.items()
    ]
    for what, (start, stop) in {"without edits": (quiet, loud), "while they are made": (loud, end)}.items():
        took = asking.micros(start, stop)
        facts.append(
            (
                f"answers {what}: p50, p99 of {len(took):,}",
                f"{percentile(took, 50):,.1f} ms, {percentile(took, 99):,.1f} ms",
            )
        )
    return facts


async def _filled(stage: Stage, admin: kube.Kube, policies: int) -> float:
    """Create the policies of others, and wait until the operator has said of each what it thinks."""
    story, began = stage.machine.quickstart, time.monotonic()
    bodies = (_other(story.namespace, story.server, number) for number in range(policies))
    await together(surely(admin, kube.TOOL_POLICIES, body) for body in bodies)
    quiet = 0
    while quiet < 3:
        if time.monotonic() - began > _PATIENCE:
            raise RuntimeError("the operator has not settled")
        await asyncio.sleep(0.5)
        quiet = quiet + 1 if _waiting(stage) == 0 else 0
    return time.monotonic() - began


async def _restarted(stage: Stage) -> float:
    """Kill the webhook and start it; return the seconds until it is ready."""
    machine = stage.machine
    machine.processes.kill("webhook")
    began = time.monotonic()
    machine.start("webhook")
    await asyncio.to_thread(machine.processes.await_ready, "webhook", machine.layout.ports.webhook_health, _PATIENCE)
    return time.monotonic() - began


def _other(namespace: str, server: str, number: int) -> dict[str, Any]:
    rule = {
        "name": "small",
        "effect": "Allow",
        "subjects": {"agents": [{"name": f"agent-{number}"}]},
        "environment": {"minKeyTier": "TPM", "maxAttestationAgeSeconds": 3600},
        "tools": [{"server": {"name": server}, "names": [f"tool-{number}"]}],
        "arguments": [{"pointer": "/amount", "type": "Integer", "integer": {"minimum": 1, "maximum": 5000}}],
        "when": f"args.amount < {number + 100}",
    }
    return _body(namespace, f"other-{number}", [rule])


def _policy(namespace: str, *, denies: bool) -> dict[str, Any]:
    """Return the policy that is edited: it denies the call, or something else."""
    tools = [{"names": ["get_charge" if denies else "nothing"]}]
    return _body(namespace, "edited", [{"name": "stop", "effect": "Deny", "tools": tools}])


def _body(namespace: str, name: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    head = {"apiVersion": kube.TOOL_POLICIES.api_version, "kind": kube.TOOL_POLICIES.kind}
    return {**head, "metadata": {"name": name, "namespace": namespace}, "spec": {"rules": rules}}


async def _apply(admin: kube.Kube, body: dict[str, Any]) -> None:
    await admin.apply(kube.TOOL_POLICIES, body, "bench")


@contextlib.contextmanager
def _unbounded() -> Iterator[None]:
    """Let one instance ask as often as it can: the bounds on a caller's rate are not what is measured."""
    os.environ.update(_UNBOUNDED)
    try:
        yield
    finally:
        for name in _UNBOUNDED:
            del os.environ[name]


def _waiting(stage: Stage) -> float:
    with urlopen(f"http://127.0.0.1:{stage.machine.layout.ports.operator_health}/metrics", timeout=30) as answer:
        found = re.search(r"^countersign_operator_queue (\S+)", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 1.0


def _memory(stage: Stage) -> float:
    place = Path(f"/proc/{stage.machine.processes.pid('webhook')}/smaps_rollup")
    found = re.search(r"^Pss:\s+(\d+) kB", place.read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0
