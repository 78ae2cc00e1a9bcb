"""``POST /access/v1/evaluation`` and ``/access/v1/evaluations``: AuthZEN for listed PEPs (wire.md 8).

There is no proof of possession here, so nothing that is answered is a token and no approval is used or made. Whatever goes
wrong with one question is its ``decision: false``; HTTP says only that a request cannot be read or may not be asked.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import structlog

from countersign.audit import new_decision_id
from countersign.errors import CountersignError, Denied, Invalid, Unavailable
from countersign.wire import KEY_TIERS
from countersign_webhook.decide.authzen import meaning, read_evaluation, read_evaluations, server_of
from countersign_webhook.decide.case import Case
from countersign_webhook.decide.form import CURRENT, TokenRequest
from countersign_webhook.decide.guard import Refusal
from countersign_webhook.decide.http import NO_STORE, Answer, Gone, read_message, send_answer
from countersign_webhook.decide.judge import judge
from countersign_webhook.protocol import PEER_NAMES

if TYPE_CHECKING:
    from countersign.wire import InstanceView, Message
    from countersign_webhook.context import WebhookContext
    from countersign_webhook.decide.authzen import Batch, Evaluation, Meaning
    from countersign_webhook.decide.http import Receive, Scope, Send
    from countersign_webhook.settings import Pep

__all__ = ["EVALUATION", "EVALUATIONS", "AccessEndpoint"]

EVALUATION: Final = "/access/v1/evaluation"
EVALUATIONS: Final = "/access/v1/evaluations"
_BODY_FACTOR: Final = 4
_MEDIA_TYPE: Final = re.compile(r"application/json(?:; ?charset=utf-8)?")
_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,256}")
_STATUS: Final = {
    "pep.unknown": 401,
    "pep.not_allowed": 403,
    "rate.limited": 429,
    "parse.size": 413,
    "parse.encoding": 415,
}
_log = structlog.get_logger("countersign.webhook.decide")


class AccessEndpoint:
    """A raw ASGI application for one of the two paths."""

    def __init__(self, context: WebhookContext, path: str) -> None:
        """Use the parts of ``context``."""
        self.path = path
        self._context = context
        self._read = read_evaluation if path == EVALUATION else read_evaluations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        limits, metrics = self._context.settings.limits, self._context.metrics
        more: tuple[tuple[str, str], ...] = ()
        close = True
        try:
            if scope["method"] != "POST":
                answer = _text(
                    HTTPStatus.METHOD_NOT_ALLOWED, "mcp.http_method", f"{self.path} takes POST", ("allow", "POST")
                )
            else:
                message = await read_message(
                    scope, receive, limit=_BODY_FACTOR * limits.body_bytes, seconds=limits.body_seconds
                )
                more, close = _echo(message), False
                answer = await self._answered(message, scope)
        except Gone:
            return
        except CountersignError as error:
            answer = _refusal(error)
        except Exception:  # noqa: BLE001 - whoever asks gets a no, not a traceback
            _log.exception("access not decided", path=self.path)
            answer = _text(
                HTTPStatus.SERVICE_UNAVAILABLE, "decide.failed", "see the webhook's log", ("retry-after", "1")
            )
        metrics.answered(self.path, answer.code)
        await send_answer(
            scope, send, Answer(answer.status, (*answer.headers, *more), answer.body, answer.code), close=close
        )

    async def _answered(self, message: Message, scope: Scope) -> Answer:
        context = self._context
        client = scope.get("client")
        peer = client[0] if client else None
        context.address_rate.take(peer or "")
        pep = await context.peps.asking(message.get("authorization"), scope.get(PEER_NAMES, ()))
        if not _MEDIA_TYPE.fullmatch(message.get("content-type") or ""):
            raise Invalid("parse.encoding", "the body is application/json")
        if "?" in message.target:
            raise Invalid("request.parameter", "no query")
        batch = self._read(message.body, limit=_BODY_FACTOR * context.settings.limits.body_bytes)
        for asked in batch.items:
            self._require_own(pep, asked)
            context.pep_rate.take(pep.name)
        results = await self._decisions(batch, pep, peer)
        return Answer.of_json(results[0] if batch.single else {"evaluations": results}, NO_STORE)

    def _require_own(self, pep: Pep, asked: Evaluation) -> None:
        """Let a PEP ask about its own servers only; one that is not known is nobody's."""
        audience = server_of(asked)
        server = None if audience is None else self._context.book.servers.by_audience(audience)
        if audience is not None and (server is None or server.key not in pep.servers):
            raise Denied("pep.not_allowed", "not a tool server of this policy enforcement point")

    async def _decisions(self, batch: Batch, pep: Pep, peer: str | None) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = []
        for asked in batch.items:
            results.append(await self._decided(asked, pep, peer))
            if results[-1]["decision"] is batch.stop_at:
                break
        return results

    async def _decided(self, asked: Evaluation, pep: Pep, peer: str | None) -> dict[str, Any]:
        """Decide one question; only a recorded yes is one."""
        context = self._context
        case = Case(
            id=new_decision_id(), now=context.clock.now(), endpoint=self.path, peer=peer, leg="AuthZEN", pep=pep.name
        )
        try:
            async with asyncio.timeout(context.settings.decide.timeout_seconds):
                self._judge(case, asked)
                await context.recorder.allowed(case, context.book.servers)
        except CountersignError as error:
            return await self._refused(case, Refusal.of(error))
        except TimeoutError:
            return await self._refused(case, Refusal("decide.failed", "the decision took too long"))
        except Exception:  # noqa: BLE001 - whatever a question does to us, the answer is a no
            _log.exception("decision failed", decision=case.id)
            return await self._refused(case, Refusal("decide.failed", "see the webhook's log"))
        return _result(case, "policy.allowed", allowed=case.recorded)

    def _judge(self, case: Case, asked: Evaluation) -> None:
        """Look everything up that a PEP's word is not taken for, and ask policy; raises what refuses."""
        context = self._context
        if stale := context.stale():
            raise Unavailable("decide.unavailable", f"no current view of {', '.join(stale)}")
        means = meaning(asked)
        case.request = TokenRequest(CURRENT, means.call)
        case.view = self._holder(means)
        _require_alive(case.view, means)
        if case.facts is None:
            raise Unavailable("decide.failed", "a part of the instance is missing")
        case.key_tier = KEY_TIERS[0] if case.view.assurance == "Software" else means.key_tier
        case.rule_set = context.book.rules.digest
        verdict = judge(
            case.request,
            case.facts,
            case.key_tier,
            now=case.now,
            cluster=context.settings.cluster,
            rules=context.book.rules,
            servers=context.book.servers,
        )
        case.decision = verdict.decision
        if not case.decision.allowed:
            raise Denied(case.decision.code, case.decision.reason or "")

    def _holder(self, means: Meaning) -> InstanceView:
        registry = self._context.registry
        if means.instance is not None:
            found = registry.named(*means.instance)
            if found is None:
                raise Denied("instance.unknown", "no such instance")
            return found
        active = registry.active(means.agent)
        if len(active) > 1:
            raise Denied("instance.ambiguous", "the agent has more than one active instance")
        if not active:
            raise Denied("instance.unknown", "the agent has no active instance")
        return active[0]

    async def _refused(self, case: Case, refusal: Refusal) -> dict[str, Any]:
        try:
            await self._context.recorder.refused(case, refusal, self._context.book.servers)
        except Unavailable as error:
            refusal = Refusal.of(error)
        return _result(case, refusal.code, allowed=False)


def _require_alive(view: InstanceView, means: Meaning) -> None:
    """Check what wire.md 3.4 (14) does, in its order, and that the subject is the instance's: no task is bound yet."""
    checks = (
        ("instance.mismatch", view.spiffe_id == means.agent != ""),
        ("device.not_approved", view.device_approved),
        ("instance.ended", view.state != "Ended"),
        ("instance.revoked", view.state == "Active"),
        ("task.mismatch", means.sub == view.spiffe_id),
    )
    for code, good in checks:
        if not good:
            raise Denied(code, "the instance may not call")


def _result(case: Case, code: str, *, allowed: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"code": code, "decision": case.id}
    if case.decision is not None and case.decision.code == code:
        more = {"policy": case.decision.policy, "rule": case.decision.rule, "reason": case.decision.reason}
        told |= {name: value for name, value in more.items() if value is not None}
    return {"decision": allowed, "context": told}


def _refusal(error: CountersignError) -> Answer:
    unavailable = isinstance(error, Unavailable) and error.code != "rate.limited"
    status = HTTPStatus.SERVICE_UNAVAILABLE if unavailable else _STATUS.get(error.code, HTTPStatus.BAD_REQUEST)
    more = []
    if isinstance(error, Unavailable):
        more.append(("retry-after", str(error.retry_after or 1)))
    if status == HTTPStatus.UNAUTHORIZED:
        more.append(("www-authenticate", "Bearer"))
    return _text(status, error.code, error.detail, *more)


def _text(status: int, code: str, detail: str, *headers: tuple[str, str]) -> Answer:
    """Return a string, as AuthZEN wants where there is no decision."""
    answer = Answer.of_json(f"{code}: {detail}", NO_STORE, *headers, status=status)
    return Answer(answer.status, answer.headers, answer.body, code)


def _echo(message: Message) -> tuple[tuple[str, str], ...]:
    found = message.get("x-request-id")
    return (("x-request-id", found),) if found is not None and _REQUEST_ID.fullmatch(found) else ()
