"""The edge of ``GET /audit/decisions``: one header in, records or a problem document out."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

import structlog

from countersign.errors import CountersignError, Invalid
from countersign.wire import problem
from countersign_webhook.decide.guard import Refusal
from countersign_webhook.decide.http import NO_STORE, Answer, Gone, read_message, send_answer
from countersign_webhook.reading.search import Search

if TYPE_CHECKING:
    from countersign_webhook.context import WebhookContext
    from countersign_webhook.decide.http import Receive, Scope, Send

__all__ = ["ReadingEndpoint"]

_log = structlog.get_logger("countersign.webhook.reading")
_BODY_SECONDS: Final = 1.0


class ReadingEndpoint:
    """A raw ASGI application for the one path."""

    path: ClassVar[str] = "/audit/decisions"

    def __init__(self, context: WebhookContext) -> None:
        """Use the parts of ``context``."""
        self._context = context
        self._search = Search(context.settings.audit.directory)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; whatever is not a good answer is a problem document."""
        close = False
        try:
            answer = await self._answered(scope, receive)
        except Gone:
            return
        except CountersignError as error:
            answer, close = _refuse(Refusal.of(error)), True
        except Exception:  # noqa: BLE001 - whoever asks gets a no, not a traceback
            _log.exception("question not answered")
            answer, close = _refuse(Refusal("audit.unavailable", "see the webhook's log", retry_after=1)), True
        self._context.metrics.requests.labels(self.path, answer.code).inc()
        await send_answer(scope, send, answer, close=close)

    async def _answered(self, scope: Scope, receive: Receive) -> Answer:
        client = scope.get("client")
        self._context.address_rate.take(client[0] if client else "")
        message = await read_message(scope, receive, limit=0, seconds=_BODY_SECONDS)
        if scope["method"] != "GET" or "?" in message.target:
            raise Invalid("audit.question", f"GET {self.path}, and the question in Countersign-Question")
        question, person = await self._context.readers.admit(
            message.get("countersign-question"), self._context.clock.now()
        )
        found = await self._search.answer(question)
        _log.info("records read", by=person, namespace=question.namespace, records=len(found["records"]))
        return Answer.of_json({"log": self._context.audit.name, **found}, NO_STORE)


def _refuse(refusal: Refusal) -> Answer:
    status, headers, body = problem(refusal.code, detail=refusal.detail, retry_after=refusal.retry_after)
    return Answer(status, headers, body, refusal.code)
