"""What is loaded at each number of policies: our front door, and OPA with three questions. Each is a process on one core."""

from __future__ import annotations

import contextlib
import itertools
import json
import ssl
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deciding
import opa
from cryptography.hazmat.primitives.asymmetric import ec
from exchange import encoded
from load import Line, Load, connect, cpu_seconds, load, megabytes

from countersign.demo.processes import until
from countersign.devcluster import LocalCA, start, write_private

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from deciding import Member

    from countersign.devcluster import Child

__all__ = [
    "CONNECTIONS",
    "OURS",
    "PLAIN",
    "PROOF",
    "WHOLE",
    "Place",
    "Subject",
    "doors",
    "granted",
    "opas",
    "place",
    "tokens",
]

CONNECTIONS = 16
OURS = "Countersign: the whole decision"
WHOLE = "OPA: chain, proof, rules, token, log"
PROOF = "OPA: proof, rules, log"
PLAIN = "OPA: the plain question"
_NONCES = 16
_FIRST = 20
_MOST = 5_000
_SPARE = 1.3
_START_SECONDS = 180
_DECIDER = Path(__file__).with_name("decider.py")


@dataclass
class Subject:
    """A server, and the question that it is asked; ``make`` returns requests for one connection."""

    who: str
    policies: int
    child: Child
    port: int
    make: Callable[[Line, Member, int], Awaitable[list[bytes]]]
    accepted: Callable[[bytes], bool]
    ready: dict[str, Any] = field(default_factory=dict)
    loads: list[Load] = field(default_factory=list)
    alone: list[Load] = field(default_factory=list)
    memory: float = 0

    async def load(self, where: Place, seconds: float) -> None:
        """Ask on all connections that long, then on one for a third of it. The first load of each only warms up."""
        # New ones each time: a server hangs up on those that waited for the others' turns.
        lines = [(await connect(self.port, where.context, self.accepted), one) for one in where.members[:CONNECTIONS]]
        rate = self.loads[-1].answered / self.loads[-1].wall if self.loads else _FIRST / seconds * len(lines)
        self.loads.append(await self._asked(lines, rate, seconds))
        rate = self.alone[-1].answered / self.alone[-1].wall if self.alone else _FIRST / seconds
        self.alone.append(await self._asked(lines[:1], rate, seconds / 3))
        self.memory = megabytes(self.child.process.pid)
        for line, _ in lines:
            await line.hang_up()

    async def edited(self, where: Place) -> None:
        """Change the policy about the call, and keep how long that took to bite (OPA tells when)."""
        line = await connect(self.port, where.context, granted)
        await line.ask([opa.edited(5001)], _START_SECONDS)
        self.ready = {"edited": line.micros[0] / 1e6}
        await line.hang_up()

    async def _asked(self, lines: list[tuple[Line, Member]], rate: float, seconds: float) -> Load:
        """Make as many requests as will be answered at ``rate``, and some, then ask."""
        count = min(_MOST, int(rate * seconds * _SPARE / len(lines)) + 1)
        requests = [await self.make(line, one, count) for line, one in lines]
        pid = self.child.process.pid
        return await load([line for line, _ in lines], requests, seconds, lambda: cpu_seconds(pid))


@dataclass(frozen=True)
class Place:
    """What all servers of a run share: a folder, a serving CA, the instances, and what a front door knows of them."""

    directory: Path
    ca: LocalCA
    members: list[Member]
    known: dict[str, Any]
    core: int

    @property
    def context(self) -> ssl.SSLContext:
        """What a client of these servers believes."""
        return ssl.create_default_context(cadata=self.ca.pem.decode())

    def folder(self, name: str) -> Path:
        """Return a new folder with a serving certificate."""
        directory = self.directory / name
        self.ca.issue("bench", names=["127.0.0.1"]).write(directory, "tls")
        write_private(directory / "crew.json", json.dumps(self.known).encode())
        return directory


@contextlib.contextmanager
def place(core: int) -> Iterator[Place]:
    """Make the folder and the instances."""
    members, known = deciding.crew(CONNECTIONS)
    with tempfile.TemporaryDirectory(prefix="cs-bench-") as directory:
        yield Place(Path(directory), LocalCA("Bench Serving CA"), members, known, core)


@contextlib.contextmanager
def doors(
    where: Place, sizes: Sequence[int], *, cores: Sequence[int] = (), store: Path | None = None
) -> Iterator[list[Subject]]:
    """Start a front door of each size on one core, or on ``cores``; ``store`` is a folder as ``decider.py`` wants it."""
    with contextlib.ExitStack() as stack:
        children = []
        for number, size in enumerate(sizes):
            directory = where.folder(f"door-{number}" if store is None else f"sharing-door-{number}")
            words = [str(size), ",".join(map(str, cores or (where.core,))), *([] if store is None else [store])]
            child = start(f"door {size}", [sys.executable, _DECIDER, directory, *words], log=directory / "log")
            stack.callback(child.stop)
            children.append((size, child, directory / "ready.json"))
        found = []
        for size, child, file in children:
            _wait(child, file.exists)
            ready = json.loads(file.read_bytes())
            found.append(Subject(OURS, size, child, ready["port"], tokens, granted, ready=ready))
        yield found


@contextlib.contextmanager
def opas(where: Place, sizes: Sequence[int], program: Path) -> Iterator[list[Subject]]:
    """Start two OPAs of each size: one writes its decision log and gets proofs, the other neither."""
    facts = opa.known(where.members, where.known["bundle"], ec.generate_private_key(ec.SECP256R1()))
    with contextlib.ExitStack() as stack:
        found = []
        for size, logged in itertools.product(sizes, (True, False)):
            directory = where.folder(f"opa-{size}-{logged}")
            child, port = opa.launch(program, directory, facts, size, core=where.core, logged=logged)
            stack.callback(child.stop)
            _wait(child, lambda port=port: opa.listens(port))
            asked = ((WHOLE, opa.WHOLE), (PROOF, opa.PROOF)) if logged else ((PLAIN, None),)
            for who, path in asked:
                found.append(Subject(who, size, child, port, _asking(path), _allowed))
        yield found


async def tokens(line: Line, member: Member, count: int) -> list[bytes]:
    """Return signed requests for tokens, each with a nonce that the door has just made."""
    nonces: list[str] = []
    get = f"GET /nonce?jkt={member.key.jkt}&count={_NONCES} HTTP/1.1\r\nhost: bench\r\n\r\n".encode()
    while len(nonces) < count:
        nonces += json.loads((await line.ask([get], 10)).partition(b"\r\n\r\n")[2])["nonces"]
    return [encoded(await deciding.request(member, nonce)) for nonce in nonces[:count]]


def _asking(path: str | None) -> Callable[[Line, Member, int], Awaitable[list[bytes]]]:
    async def make(_line: Line, member: Member, count: int) -> list[bytes]:
        if path is None:
            return [opa.posted(opa.PLAIN, opa.facts())] * count
        return [opa.posted(path, await opa.signed(member)) for _ in range(count)]

    return make


def granted(answer: bytes) -> bool:
    """Whether a front door said yes."""
    return answer.startswith(b"HTTP/1.1 200 ")


def _allowed(answer: bytes) -> bool:
    return answer.startswith(b"HTTP/1.1 200 ") and b'"allow":true' in answer


def _wait(child: Child, ready: Callable[[], bool]) -> None:
    if until(lambda: ready() or not child.alive, _START_SECONDS) is None or not child.alive:
        raise RuntimeError(f"{child.name} did not start\n{child.tail()}")
