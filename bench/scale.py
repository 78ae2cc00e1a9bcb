"""Scale: admission at a rate, memory, CPU and requests as pods grow, and restarts among ten thousand of them."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

from crowd import NAMESPACES, NODES, Crowd, machine_with_kwok
from report import Section
from timing import percentile

from countersign.demo.processes import ProcessError
from countersign.devcluster.binaries import KWOK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from countersign.demo.machine import Machine

__all__ = ["SIZES", "section"]

SIZES = (1_000, 2_500, 5_000, 10_000)
_RATE = 50
_PROCESSES = ("operator", "webhook", "authority")
_REST_SECONDS = 30
_PATIENCE = 1800
_TICKS = os.sysconf("SC_CLK_TCK")
_TEXT = (
    "A real control plane with its admission, operator, webhook and authority as processes with the chart's rights, and "
    "kwok {version} for {nodes} nodes' kubelets: pods of {agents} agents in {namespaces} namespaces, injected by the webhook, "
    "and for every second pod an AgentInstance, written as the authority writes it. A stage ends when every instance has its "
    "condition from the operator and nothing waits. CPU is of the process, in the stage, for each pod that came in it."
)


@dataclass(frozen=True)
class _Stage:
    """What was seen when so many pods were there: memory in MiB, CPU seconds since the start, requests since the start."""

    pods: int
    memory: dict[str, float]
    cpu: dict[str, float]
    requests: float
    seconds: float


async def section(told: Callable[[str], None], sizes: Sequence[int] = SIZES) -> Section:
    """Grow the crowd, restart the processes at its largest, and return the table."""
    with machine_with_kwok(told) as machine:
        async with Crowd.of(machine) as crowd:
            await _converged(machine, crowd)
            before = _webhook_admissions(machine)
            stages = [_look(machine, 0, 0.0)]
            for size in sizes:
                told(f"scale: {size:,} pods")
                began = time.monotonic()
                if len(stages) == 1:
                    took = await crowd.at_a_rate(size, _RATE)
                    rate = size / (time.monotonic() - began)
                    after = _webhook_admissions(machine)
                await crowd.fill(size, size // 2)
                made = time.monotonic()
                await _converged(machine, crowd)
                stages.append(_look(machine, size, time.monotonic() - made))
                told(f"scale: {size:,} pods took {time.monotonic() - began:.0f} s")
            rest = await _at_rest(machine)
            restarts = [(name, await _restarted(machine, crowd, name, told)) for name in _PROCESSES]
    facts = [*_admission(took, rate, before, after), *_growth(stages), *rest]
    facts += [fact for name, found in restarts for fact in found]
    text = _TEXT.format(version=KWOK.version, nodes=NODES, agents=len(crowd.identities), namespaces=NAMESPACES)
    return Section("Scale", text, facts=facts)


def _admission(
    took: list[float], rate: float, before: tuple[dict[float, float], float], after: tuple[dict[float, float], float]
) -> list[tuple[str, str]]:
    millis = [seconds * 1e3 for seconds in took]
    count = {bound: after[0][bound] - before[0].get(bound, 0) for bound in after[0]}
    mean = (after[1] - before[1]) / max(1.0, count[float("inf")]) * 1e3
    name = f"create a pod, {len(took):,} at {_RATE} a second ({rate:,.0f} reached)"
    return [
        (
            f"{name}: p50, p99, as the client sees it",
            f"{percentile(millis, 50):,.1f} ms, {percentile(millis, 99):,.1f} ms",
        ),
        (f"{name}: the mutating webhook as the API server sees it: mean", f"{mean:,.1f} ms"),
        *(
            (f"of these within {bound * 1e3:,.0f} ms", f"{count[bound] / count[float('inf')]:.2%}")
            for bound in (0.005, 0.025, 0.1)
        ),
    ]


def _growth(stages: list[_Stage]) -> list[tuple[str, str]]:
    facts = []
    for stage in stages:
        shown = ", ".join(f"{name} {stage.memory[name]:,.0f}" for name in _PROCESSES)
        facts.append((f"memory (PSS, MiB) with {stage.pods:,} pods and {stage.pods // 2:,} instances", shown))
    for name in _PROCESSES:
        shown = ", ".join(
            f"{(after.cpu[name] - before.cpu[name]) / (after.pods - before.pods) * 1e3:,.1f} (to {after.pods:,})"
            for before, after in itertools.pairwise(stages)
        )
        facts.append((f"CPU of the {name} for each pod, ms", shown))
    requests = ", ".join(
        f"{(after.requests - before.requests) / (after.pods - before.pods):,.1f} (to {after.pods:,})"
        for before, after in itertools.pairwise(stages)
    )
    facts.append(("requests of our processes for each pod", requests))
    settled = ", ".join(f"{stage.seconds:,.0f} s (at {stage.pods:,})" for stage in stages[1:])
    facts.append(("until every status is written, after the last object of a stage", settled))
    return facts


async def _at_rest(machine: Machine) -> list[tuple[str, str]]:
    before = {name: _cpu(machine, name) for name in _PROCESSES}
    await asyncio.sleep(_REST_SECONDS)
    used = {name: (_cpu(machine, name) - before[name]) / _REST_SECONDS for name in _PROCESSES}
    return [("CPU at rest with all of them", ", ".join(f"{name} {share:.1%}" for name, share in used.items()))]


async def _restarted(machine: Machine, crowd: Crowd, name: str, told: Callable[[str], None]) -> list[tuple[str, str]]:
    """Kill a process among all its objects, start it, and wait until it is ready."""
    told(f"scale: restart of the {name}")
    ports = machine.layout.ports
    port = {"operator": ports.operator_health, "webhook": ports.webhook_health, "authority": ports.authority_health}[
        name
    ]
    machine.processes.kill(name)
    began = time.monotonic()
    machine.start(name)
    await _thread(lambda: machine.processes.await_ready(name, port, _PATIENCE))
    ready = time.monotonic() - began
    await _converged(machine, crowd)
    settled = f", settled {time.monotonic() - began:.1f} s" if name == "operator" else ""
    return [
        (f"the {name} killed and started: ready after", f"{ready:.1f} s{settled}; PSS {_pss(machine, name):,.0f} MiB")
    ]


async def _converged(machine: Machine, crowd: Crowd) -> None:
    """Return when every instance has its condition and the operator's queue is empty."""
    end = time.monotonic() + _PATIENCE
    quiet = 0
    while quiet < 3:
        if time.monotonic() > end:
            raise ProcessError(f"the operator has not settled in {_PATIENCE} s")
        await asyncio.sleep(0.3)
        quiet = quiet + 1 if _waiting(machine) == 0 else 0
        if quiet == 3 and await crowd.ready() < crowd.instances:
            quiet = 0


async def _thread(work: Callable[[], object]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, work)


def _look(machine: Machine, pods: int, seconds: float) -> _Stage:
    return _Stage(
        pods,
        {name: _pss(machine, name) for name in _PROCESSES},
        {name: _cpu(machine, name) for name in _PROCESSES},
        sum(_metric(machine, "apiserver_flowcontrol_dispatched_requests_total", 'flow_schema="service-accounts"')),
        seconds,
    )


def _pss(machine: Machine, name: str) -> float:
    text = Path(f"/proc/{machine.processes.pid(name)}/smaps_rollup").read_text(encoding="ascii")
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def _cpu(machine: Machine, name: str) -> float:
    fields = Path(f"/proc/{machine.processes.pid(name)}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _waiting(machine: Machine) -> float:
    try:
        with urlopen(f"http://127.0.0.1:{machine.layout.ports.operator_health}/metrics", timeout=20) as answer:
            found = re.search(r"^countersign_operator_queue (\S+)", answer.read().decode(), re.MULTILINE)
    except OSError:
        return 1.0
    return float(found[1]) if found else 1.0


def _metric(machine: Machine, name: str, *labels: str) -> list[float]:
    """Return the values of a metric of the API server that has these labels."""
    lines = machine.admin.run("get", "--raw", "/metrics").splitlines()
    return [
        float(line.split()[-1]) for line in lines if line.startswith(name + "{") and all(one in line for one in labels)
    ]


def _webhook_admissions(machine: Machine) -> tuple[dict[float, float], float]:
    """Return how many admissions the mutating webhook answered within each bound, and their seconds together."""
    lines = machine.admin.run("get", "--raw", "/metrics").splitlines()
    name = "apiserver_admission_webhook_admission_duration_seconds_"
    ours = [line for line in lines if line.startswith(name) and 'type="admit"' in line and 'operation="CREATE"' in line]
    within: dict[float, float] = {float("inf"): 0.0}
    for line in ours:
        if bound := re.search(r'le="([^"]+)"', line):
            at = float(bound[1])
            within[at] = within.get(at, 0.0) + float(line.split()[-1])
    return within, sum(float(line.split()[-1]) for line in ours if line.startswith(name + "sum"))
