"""What the agents that never stop calling have seen, read from the nodes' disks: no API server is asked for it."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from support.eventually import until

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from support.agents import Agents
    from support.node import Node

_PATIENCE = 300.0
ALLOWED = frozenset({"read", "pay"})
"""What ``pods/stream.py`` calls these is allowed by policy; everything else it does must never be."""
NEVER_FINAL = frozenset(
    {
        "nonce.invalid",
        "nonce.expired",
        "replay.store_reset",
        "token.kid",
        "token.expired",
        "environment.attestation_stale",
    }
)
"""Refusals after which the signer asks again by itself (wire.md, section 4): an agent never sees one."""


@dataclass(frozen=True)
class Call:
    """One call of an agent: what it was for, what came of it (``allowed``, ``refused``, ``failed``), and when."""

    kind: str
    tool: str
    arguments: dict[str, Any]
    answer: str
    code: str
    decision: str
    began: float
    ended: float


@dataclass(frozen=True)
class Stream:
    """One agent: its node and its pod."""

    node: Node
    pod: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Its ``/work``."""
        return volume(self.node, self.pod, "work")

    def calls(self) -> list[Call]:
        """Return every call that has ended, in order."""
        fields = Call.__dataclass_fields__
        return [Call(**{name: each[name] for name in fields}) for each in lines(self.folder / "calls.jsonl")]


def _ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def volume(node: Node, pod: dict[str, Any], name: str) -> Path:
    """Return where this machine has the emptyDir ``name`` of ``pod``."""
    uid = pod["metadata"]["uid"]
    return node.directory / "kubelet" / "pods" / uid / "volumes" / "kubernetes.io~empty-dir" / name


def lines(file: Path) -> list[dict[str, Any]]:
    """Return the lines of JSON that are written to their end."""
    whole = file.read_bytes().rpartition(b"\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


class Streams:
    """The agents of a DaemonSet ``stream``, one on each node."""

    def __init__(self, agents: Agents) -> None:
        self.agents, self.began = agents, time.time()
        self.all: list[Stream] = []
        self._seen: dict[str, tuple[Stream, list[Call]]] = {}

    def _look(self) -> bool:
        """See who the agents are now: a node that was away may have other pods. True if each node has one that is Ready."""
        nodes = {node.name: node for node in self.agents.cluster.nodes}
        pods = [pod for pod in self.agents.pods("stream") if _ready(pod)]
        self.all = [Stream(nodes[pod["spec"]["nodeName"]], pod) for pod in pods]
        return len(self.all) == len(nodes)

    def read(self) -> None:
        """Remember what has been written: the folder of a pod goes with it."""
        known = {uid: each for uid, (each, _) in self._seen.items()}
        for uid, each in {**known, **{one.pod["metadata"]["uid"]: one for one in self.all}}.items():
            with suppress(FileNotFoundError):
                self._seen[uid] = each, each.calls()

    def calls(self, since: float = 0.0, nodes: Iterable[str] | None = None) -> list[Call]:
        """Return the calls that began after ``since``, of the agents on ``nodes``."""
        self.read()
        wanted = None if nodes is None else set(nodes)
        chosen = [calls for each, calls in self._seen.values() if wanted is None or each.node.name in wanted]
        return [call for calls in chosen for call in calls if call.began > since]

    def flow(self, since: float, each: int = 5, seconds: float = _PATIENCE) -> None:
        """Wait until every agent had ``each`` calls allowed that began after ``since``."""

        def flows() -> bool:
            return self._look() and all(
                sum(call.answer == "allowed" for call in self.calls(since, [one.node.name])) >= each for one in self.all
            )

        until(flows, "every agent's calls are allowed again", seconds)

    def hold(self) -> None:
        """Let every agent end its call and begin no other."""
        for each in self.all:
            (each.folder / "hold").touch()
        until(lambda: all((each.folder / "held").exists() for each in self.all), "the agents pause", 60)

    def go_on(self) -> None:
        """Let them call again."""
        for each in self.all:
            (each.folder / "held").unlink(missing_ok=True)
            (each.folder / "hold").unlink(missing_ok=True)


@dataclass(frozen=True)
class Outcome:
    """What a failure did to the calls that policy allows: how many there were, which failed, from when and until when."""

    made: int
    failed: Counter[str]
    first: float
    recovered: float

    @classmethod
    def of(cls, calls: list[Call], killed: float) -> Outcome:
        """Look at calls that ended after ``killed``; ``first`` and ``recovered`` are seconds from there to failures' ends."""
        ours = [call for call in calls if call.kind in ALLOWED and call.ended > killed]
        failed = [call for call in ours if call.answer != "allowed"]
        ends = [call.ended - killed for call in failed]
        return cls(len(ours), Counter(call.code for call in failed), min(ends, default=0.0), max(ends, default=0.0))

    def __str__(self) -> str:
        if not self.failed:
            return f"none of {self.made} allowed calls failed"
        codes = ", ".join(f"{count} {code}" for code, count in sorted(self.failed.items()))
        return f"{sum(self.failed.values())} of {self.made} allowed calls failed ({codes}), from {self.first:.1f} to {self.recovered:.1f} s"


def now() -> float:
    """Return the time as the agents write it; nodes and this machine have one clock."""
    return time.time()
