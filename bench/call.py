"""A signed call end to end through real processes, the same call bare, and the parts of the first, each beside its floor."""

from __future__ import annotations

import contextlib
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deciding
import floor
from exchange import ask
from report import Claim
from stage import front_of
from timing import Case

from countersign.verifier.testing import CallMaker
from countersign.wire import MemoryReplayCache, Message, parse_mcp
from countersign_webhook.app import CallsApp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from stage import Stage
    from timing import Timed

    from countersign.wire import Call

__all__ = ["POLICIES", "claim", "facts", "opened", "request_of"]

POLICIES = 100
_BARE = "bare call: no signer, no verifier"
_SIGNED = "signed call, end to end"
_EXCHANGE = "token exchange, as the signer sees it"
_DECISION = f"decision in process, record on disk ({POLICIES} policies)"
_VERIFIER = "verifier in process"
_TPM = "our key, behind its owner thread"
_SECONDS = 0.4
_MOST = 40
"""Calls of one instance in a turn: a burst is 100, and 50 a second come back."""
_BODY = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_charge","arguments":{"charge":"ch_1"}}}'
_FIELDS = {
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
    "mcp-protocol-version": "2025-11-25",
}


@contextlib.asynccontextmanager
async def opened(stage: Stage, bare_sign: Callable[[], object]) -> AsyncIterator[list[Case]]:
    """Connect to both tool servers, and yield what to time; ``bare_sign`` is one signature of a TPM simulator."""
    story = stage.machine.quickstart
    async with contextlib.AsyncExitStack() as stack:
        bare = stack.enter_context(_caller(stage.bare_port, "/mcp"))
        signed = stack.enter_context(_caller(story.ports[0], f"/{story.server}"))
        front = await stack.enter_async_context(front_of(stage))
        call = request_of(story.audience)

        async def exchange() -> None:
            await front.token(call)

        yield [
            *floor.tpm_cases(bare_sign),
            Case(_BARE, bare, seconds=_SECONDS, most=_MOST),
            Case(_SIGNED, signed, of=_BARE, seconds=_SECONDS, most=_MOST),
            Case(_EXCHANGE, exchange, of=floor.EXCHANGE, seconds=_SECONDS, most=_MOST),
            await stack.enter_async_context(_decision()),
            _verifier(),
        ]


def request_of(audience: str) -> Call:
    """Return the call that is made, as a signer asks a token for it."""
    message = Message("POST", "/mcp", tuple(_FIELDS.items()), _BODY)
    return parse_mcp(message, path="/mcp", input_schemas=None).call(audience)


def facts(found: dict[str, Timed], before: tuple[float, int], after: tuple[float, int]) -> list[tuple[str, str]]:
    """Return what a signed call adds, and where it goes; the webhook's own times are those between the two readings."""
    took = {name: timed.p50 for name, timed in found.items()}
    added, decision, sign = took[_SIGNED] - took[_BARE], took[_DECISION], took[_TPM]
    parts = {
        "the decision": decision,
        "the exchange around it: two HTTP stacks, TLS, wake-ups": took[_EXCHANGE] - decision - sign,
        "two signatures of the TPM": 2 * sign,
        "the verifier": took[_VERIFIER],
    }
    parts["the rest: the signer's own work, and one more hop"] = added - sum(parts.values())
    spent, count = after[0] - before[0], after[1] - before[1]
    return [
        ("a signed call takes longer than a bare one, p50", f"{added / 1e3:,.2f} ms"),
        *((f"of that: {name}", f"{value / 1e3:,.2f} ms") for name, value in parts.items()),
        ("a signed call against its crypto floor", f"{found[_SIGNED].ratio(found[floor.CALL]):.2f}"),
        (f"the webhook's own histogram, mean of {count:,} decisions", f"{spent / count * 1e3:,.2f} ms"),
    ]


def claim(found: dict[str, Timed]) -> Claim:
    """Return what the summary says of a call."""
    added = found[_SIGNED].p50 - found[_BARE].p50
    return Claim(
        f"A signed call through signer, front door and verifier takes {added / 1e3:.1f} ms longer than a bare one, on one machine "
        f"with a TPM simulator: {found[_SIGNED].ratio(found[floor.CALL]):.1f} times the cryptography in it."
    )


@contextlib.contextmanager
def _caller(port: int, path: str) -> Iterator[Callable[[], None]]:
    """Yield one ``tools/call`` on a connection that stays open. It raises RuntimeError if the tool did not answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)

    def call() -> None:
        connection.request("POST", path, body=_BODY, headers=_FIELDS)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200 or b'"cus_1"' not in body:
            raise RuntimeError(f"the benchmark's own call was refused: {answer.status} {body!r}")

    try:
        yield call
    finally:
        connection.close()


@contextlib.asynccontextmanager
async def _decision() -> AsyncIterator[Case]:
    """Yield the whole of ``/token`` in this process, from the request's bytes to the token's, one at a time."""
    (member, _), known = deciding.crew(1)
    with tempfile.TemporaryDirectory(prefix="cs-bench-") as place:
        context, _ = await deciding.context_of(Path(place), known, POLICIES)
        await context.book.settle()
        app = CallsApp(context)

        async def prepare() -> Message:
            nonce = context.nonces.make(member.key.jkt, int(time.time()))
            return await deciding.request(member, nonce)

        async def decide(message: Message) -> None:
            answer = await ask(app, message)
            if answer.status != 200:
                raise RuntimeError(f"the benchmark's own call was refused: {answer.body!r}")

        try:
            yield Case(_DECISION, decide, of=floor.DECISION, prepare=prepare)
        finally:
            await context.aclose()


def _verifier() -> Case:
    """Return the verifier's middleware before an application that does nothing."""
    maker = CallMaker()

    async def nothing(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    app = maker.protect(nothing, replay=MemoryReplayCache(epoch=0))

    async def prepare() -> Message:
        return await maker.call("get_charge", {"charge": "ch_1"})

    async def verify(message: Message) -> None:
        answer = await ask(app, message)
        if answer.status != 204:
            raise RuntimeError(f"the benchmark's own call was refused: {answer.body!r}")

    return Case(_VERIFIER, verify, of=floor.VERIFIER, prepare=prepare)
