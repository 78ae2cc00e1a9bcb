"""An endpoint of leg T: bounds, proof, work, record, answer. Subclasses say only what the work is.

Every way out is one of three: an answer whose record is durable, a typed refusal (recorded from step 11 of wire.md 3.4
on), or nothing at all for a client that left. An exception that nobody expected is ``decide.failed``, a no (D13, E1).
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar, Final

import structlog

from countersign.audit import new_decision_id
from countersign.errors import CountersignError, Unavailable
from countersign.wire import oauth_error
from countersign_webhook.decide.case import Case
from countersign_webhook.decide.guard import Guard, Refusal
from countersign_webhook.decide.http import Answer, Gone, TooLate, read_message, send_answer

if TYPE_CHECKING:
    from countersign.wire import Message
    from countersign_webhook.context import WebhookContext
    from countersign_webhook.decide.http import Receive, Scope, Send

__all__ = ["SignedEndpoint"]

_BODY_FACTOR: Final = 4
_log = structlog.get_logger("countersign.webhook.decide")


class SignedEndpoint:
    """A raw ASGI application for one path and method."""

    path: ClassVar[str]
    method: ClassVar[str]

    def __init__(self, context: WebhookContext) -> None:
        """Use the parts of ``context``."""
        self.context = context
        self.guard = Guard(context)

    async def answer(self, case: Case, message: Message) -> Answer:
        """Answer a verified request; ``case.caller`` is set. Raises CountersignError to refuse."""
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        metrics, clock = self.context.metrics, self.context.clock
        limits = self.context.settings.limits
        close = False
        started = clock.monotonic()
        try:
            if scope["method"] != self.method:
                answer, close = self._wrong_method(), True
            else:
                message = await read_message(
                    scope, receive, limit=_BODY_FACTOR * limits.body_bytes, seconds=limits.body_seconds
                )
                started = clock.monotonic()
                answer = await self._decided(message, _peer(scope))
        except Gone:
            return
        except CountersignError as error:
            answer, close = _refuse(Refusal.of(error)), True
            if isinstance(error, TooLate):
                answer = Answer(HTTPStatus.REQUEST_TIMEOUT, answer.headers, answer.body, answer.code)
        except Exception:  # noqa: BLE001 - as below, for what is no whole request yet
            _log.exception("request not read", path=self.path)
            answer, close = _refuse(Refusal("decide.failed", "see the webhook's log", retry_after=1)), True
        metrics.answered(self.path, answer.code, clock.monotonic() - started)
        await send_answer(scope, send, answer, close=close)

    async def _decided(self, message: Message, peer: str | None) -> Answer:
        """Verify and answer within the time for a decision."""
        case = Case(id=new_decision_id(), now=self.context.clock.now(), endpoint=self.path, peer=peer)
        try:
            async with asyncio.timeout(self.context.settings.decide.timeout_seconds):
                case.caller = await self.guard.verify(message, case)
                self.context.instance_rate.take(case.caller.instance.uid)
                answer = await self.answer(case, message)
        except CountersignError as error:
            return await self._refused(case, Refusal.of(error))
        except TimeoutError:
            return await self._refused(case, Refusal("decide.failed", "the decision took too long", retry_after=1))
        except Exception:  # noqa: BLE001 - whatever a request does to us, its sender gets a no
            _log.exception("decision failed", decision=case.id)
            return await self._refused(case, Refusal("decide.failed", "see the webhook's log", retry_after=1))
        nonce = self.guard.nonce_header(case.jkt, case.now)
        return Answer(answer.status, (*answer.headers, *nonce), answer.body, answer.code)

    async def _refused(self, case: Case, refusal: Refusal) -> Answer:
        """Record a refusal that came far enough, tell the instance's owner, and answer."""
        if refusal.skew is not None:
            self.context.skew.untimely(refusal.skew)
        if case.jkt is not None:
            servers = self.context.book.servers
            try:
                await self.context.recorder.refused(case, refusal, servers)
            except Unavailable as error:
                refusal = Refusal.of(error)
            self.context.notices.denied(case, refusal, servers)
        return _refuse(refusal, case.id, self.guard.nonce_header(case.jkt or refusal.jkt, case.now))

    def _wrong_method(self) -> Answer:
        answer = _refuse(Refusal("mcp.http_method", f"{self.path} takes {self.method}"))
        return Answer(answer.status, (*answer.headers, ("allow", self.method)), answer.body, answer.code)


def _refuse(refusal: Refusal, decision: str | None = None, more: tuple[tuple[str, str], ...] = ()) -> Answer:
    status, headers, body = oauth_error(
        refusal.code, description=refusal.detail, decision=decision, retry_after=refusal.retry_after
    )
    return Answer(status, (*headers, *more), body, refusal.code)


def _peer(scope: Scope) -> str | None:
    client = scope.get("client")
    return client[0] if client else None
