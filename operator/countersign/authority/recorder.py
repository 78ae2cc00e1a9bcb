"""Every answer of the attestation CA is counted and logged; from the moment the asker is a pod, it is also on record.

The record is durable before the answer leaves; without a record the answer is ``audit.unavailable`` (enrolment.md 2).
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram

from countersign.errors import CountersignError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from countersign.audit import AuditLog
    from countersign.authority.exam import Exam
    from countersign.clock import Clock

__all__ = ["Metrics", "Recorder"]

_LOG: Final = structlog.get_logger(__name__)


class Metrics:
    """What ``/metrics`` shows; labels come from fixed lists only."""

    def __init__(self) -> None:
        """Make a registry of one's own, so that two authorities can live in one test."""
        self.registry = CollectorRegistry()
        self.answers = Counter(
            "countersign_authority_answers",
            "Answers, by operation and reason code.",
            ["operation", "code"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "countersign_authority_answer_seconds", "Time to an answer.", ["operation"], registry=self.registry
        )


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
        code = _ALLOWED
        try:
            yield facts
        except CountersignError as refusal:
            code = refusal.code
            await self._write(operation, code, exam, peer, facts)
            raise
        except Exception:
            code = "attest.failed"
            await self._write(operation, code, exam, peer, facts)
            raise
        else:
            await self._write(operation, code, exam, peer, facts)
        finally:
            self._metrics.answers.labels(operation, code).inc()
            self._metrics.seconds.labels(operation).observe(self._clock.monotonic() - began)
            _LOG.info("answered", operation=operation, code=code, peer=peer, **_who(exam), **facts)

    async def _write(self, operation: str, code: str, exam: Exam, peer: str | None, facts: dict[str, Any]) -> None:
        if not exam.authenticated:
            return
        await self._log.append(record_of(operation, code, exam, peer, facts, url=self._url, clock=self._clock))


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
