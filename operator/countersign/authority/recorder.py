"""Every answer of the attestation CA is counted and logged; from the moment the asker is a pod, it is also on record.

The record is durable before the answer leaves; without a record the answer is ``audit.unavailable`` (enrolment.md 2).
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import structlog

from countersign.audit import decision_record, new_decision_id
from countersign.authority.trust import spiffe_id
from countersign.errors import CountersignError
from countersign.wire import thumbprint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from countersign.audit import AuditLog, DecisionFacts
    from countersign.authority.exam import Exam
    from countersign.authority.metrics import Metrics
    from countersign.clock import Clock

__all__ = ["Recorder"]

_LOG: Final = structlog.get_logger(__name__)
_ALLOWED: Final = "policy.allowed"
_LEG: Final = "E1"
_OPERATION: Final = "attest"
"""``api.operation`` of both; ``api.service.name`` says which of the two was asked."""


class Recorder:
    """Writes what was answered: one metric and one log line each, and one audit record where the asker is known."""

    def __init__(self, log: AuditLog, metrics: Metrics, clock: Clock, *, url: str) -> None:
        """Keep the log; ``url`` is the service's name in the records."""
        self._log = log
        self._metrics = metrics
        self._clock = clock
        self._url = url

    @asynccontextmanager
    async def answer(self, operation: str, exam: Exam, peer: str | None) -> AsyncIterator[dict[str, Any]]:
        """Record the answer that the body comes to; the body may add facts to what is yielded."""
        began = self._clock.monotonic()
        facts: dict[str, Any] = {}
        code = "attest.failed"
        try:
            yield facts
            await self._write(operation, _ALLOWED, exam, peer, facts)
            code = _ALLOWED
        except CountersignError as refusal:
            code = refusal.code
            if code != "audit.unavailable":
                await self._write(operation, code, exam, peer, facts)
            raise
        except Exception:
            await self._write(operation, code, exam, peer, facts)
            raise
        finally:
            self._metrics.answers.labels(operation, code).inc()
            self._metrics.seconds.labels(operation).observe(self._clock.monotonic() - began)
            _LOG.info("answered", operation=operation, code=code, peer=peer, **_who(exam), **facts)

    async def _write(self, operation: str, code: str, exam: Exam, peer: str | None, facts: dict[str, Any]) -> None:
        if not exam.authenticated:
            return
        record: DecisionFacts = {
            "decision": new_decision_id(),
            "now": exam.now,
            "code": code,
            "allowed": code == _ALLOWED,
            "leg": _LEG,
            "operation": _OPERATION,
            "service": f"{self._url}{operation}",
            "peer": peer,
            "instance": facts.get("instance"),
        }
        record.update(_known(exam))
        await self._log.append(decision_record(**record))


def _known(exam: Exam) -> DecisionFacts:
    """Return what the checks have found so far: no token, no secret, and of the proven key its thumbprint alone."""
    known: DecisionFacts = {}
    if exam.known_issuer is not None:
        known["agent"] = spiffe_id(exam.known_issuer, exam.identity)
    if exam.devices:
        known["device_uid"] = exam.device["metadata"]["uid"]
        known["device_name"] = exam.device["metadata"]["name"]
        known["assurance"] = None if exam.pool is None else exam.pool["spec"].get("assurance")
    if exam.known_key is not None:
        known["jkt"] = thumbprint(exam.known_key)
    return known


def _who(exam: Exam) -> dict[str, str]:
    """Return what is known of the asker, names only."""
    if not exam.authenticated:
        return {}
    found = {"pod": f"{exam.review.namespace}/{exam.review.pod_name}", "node": exam.review.node_name or ""}
    if exam.identities:
        found["agent"] = f"{exam.identity['metadata']['namespace']}/{exam.identity['metadata']['name']}"
    if exam.devices:
        found["device"] = exam.device["metadata"]["name"]
    return found
