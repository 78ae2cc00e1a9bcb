"""The identity in memory: who this signer is now, until when, and when to renew (enrolment.md section 4).

Nothing is stored. A restarted signer enrols anew; the instance is found again by its pod, and the old key is dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from countersign.clock import COMPARE_CLOCKS
from countersign.errors import CountersignError, Denied, Unavailable
from countersign.signer.enrol import ak_expiry
from countersign.signer.trust import read_trust
from countersign.wire import chain_header

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from cryptography import x509

    from countersign.attest import AttestationDevice, AttestingKey
    from countersign.clock import Clock
    from countersign.signer.enrol import Admission, Enroller
    from countersign.signer.metrics import SignerMetrics
    from countersign.signer.trust import Trust

__all__ = ["Identity", "Keyring", "outage_delay", "refused_delay", "renewal_delay"]

_AK_MARGIN_SECONDS: Final = 120
_REFUSED_SECONDS: Final = 60.0
_FIRST_BACKOFF: Final = 1.0
_LONGEST_BACKOFF: Final = 60.0
_LEAST_RENEWAL_SECONDS: Final = 5.0
"""However short a certificate's life or wrong a clock: this far apart are two renewals."""
_SKEW: Final = timedelta(seconds=5)
_REATTEST_SECONDS: Final = 30.0
"""An attestation this young is not made anew, however stale the front door finds it."""
_log = structlog.get_logger("signer")


@dataclass(frozen=True)
class Identity:
    """A certified key: everything leg T needs. ``chain`` is the value of ``Countersign-Chain``."""

    key: AttestingKey
    chain: str
    instance: str
    not_before: datetime
    not_after: datetime
    obtained_at: datetime


def renewal_delay(not_before: datetime, not_after: datetime, now: datetime, *, jitter: float) -> float:
    """Return the seconds until renewal: two thirds of the life, moved by ``jitter`` (-1 to 1) times a tenth of it."""
    life = (not_after - not_before).total_seconds()
    due = not_before.timestamp() + life * 2 / 3 + life * 0.1 * jitter
    return max(due - now.timestamp(), 0.0)


def refused_delay(*, jitter: float) -> float:
    """Return the seconds until the next try after a no: a minute and, by ``jitter`` (0 to 1), a fifth more of it.

    Whoever was refused together, as by a mistake in an object, does not come back together.
    """
    return _REFUSED_SECONDS * (1 + 0.2 * jitter)


def outage_delay(attempt: int, *, jitter: float) -> float:
    """Return the seconds until the next try after the ``attempt``-th (from 0) that nobody answered: 1 to 60, half to 1½."""
    return float(min(_FIRST_BACKOFF * 2 ** min(attempt, 16), _LONGEST_BACKOFF) * (0.5 + jitter))


class Keyring:
    """Enrols, renews, and says why there is no identity when there is none."""

    def __init__(
        self,
        device: AttestationDevice,
        enroller: Enroller,
        *,
        trust_dir: Path,
        clock: Clock,
        metrics: SignerMetrics,
        rng: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Keep the parts; :meth:`run` does the work. ``sleep`` is where all its waiting happens."""
        self._device = device
        self._enroller = enroller
        self._trust_dir = trust_dir
        self._clock = clock
        self._metrics = metrics
        self._rng = rng
        self._sleep = sleep
        self._key: AttestingKey | None = None
        self._identity: Identity | None = None
        self._admission: Admission | None = None
        self._admitted_at = 0.0
        self._problem: CountersignError | None = Unavailable("attest.unavailable", "enrolment has not finished")
        self._wake = asyncio.Event()
        self._tried = asyncio.Event()
        self.renewals = 0

    @property
    def problem(self) -> CountersignError | None:
        """Why the last attempt failed; None after one that worked."""
        return self._problem

    def current(self) -> Identity:
        """Return the identity that signs now.

        Raises:
            Unavailable: there is none, or its certificate ended; the code is that of the last attempt.
        """
        identity = self._identity
        if identity is None or identity.not_after <= self._clock.now():
            why = self._problem or Unavailable("attest.unavailable", "the certificate ended")
            raise Unavailable(why.code, why.detail, retry_after=5)
        return identity

    async def reattest(self, *, wait: float = 5.0) -> None:
        """Run E1 again, as the front door found the attestation too old; return when done, or after ``wait`` seconds.

        After a refusal, and within half a minute of the last attestation, nothing is asked: a call must not be able to
        make the signer knock more often than enrolment.md allows.
        """
        young = self._clock.monotonic() - self._admitted_at < _REATTEST_SECONDS
        if self._problem is not None or young:
            return
        if self._admission is not None:  # else somebody else asked already
            self._admission = None
            self._tried.clear()
            self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._tried.wait()

    async def run(self) -> None:
        """Enrol and renew until cancelled; never ends by itself, whatever the authority says."""
        unanswered = 0
        while True:
            problem = await self._attempt()
            if problem is None:
                unanswered = 0
                await self._until_renewal()
            elif isinstance(problem, Denied):
                await self._sleep(refused_delay(jitter=self._rng()))  # and nothing shortens it
            else:
                await self._sleep(outage_delay(unanswered, jitter=self._rng()))
                unanswered += 1

    async def _attempt(self) -> CountersignError | None:
        try:
            await self._obtain()
        except CountersignError as problem:
            self._failed(problem)
        except Exception:  # noqa: BLE001 - whatever the TPM or a library does, the loop goes on
            _log.exception("enrol.broke")
            self._failed(Unavailable("attest.failed", "an error of the signer itself; see its log"))
        else:
            self._problem = None
            self.renewals += 1
            self._metrics.enrolments.labels(code="ok").inc()
        self._tried.set()
        return self._problem

    async def _obtain(self) -> None:
        """Get a first certificate, or the next one for the same key."""
        self._wake.clear()
        self._tried.clear()
        trust = read_trust(self._trust_dir)
        if self._key is None:
            self._key = await self._device.create_key()
        admission = await self._admit(trust, self._key)
        try:
            chain = await self._enroller.certify(trust, self._key, admission)
        except Denied:
            self._admission = None  # whatever made the CA refuse, the next try proves everything again
            raise
        identity = _identity(self._key, chain, admission.instance, self._clock.now())
        if not identity.not_before <= identity.obtained_at + _SKEW < identity.not_after:
            raise Unavailable(
                "attest.unavailable", f"the certificate is not valid now, by this node's clock; {COMPARE_CLOCKS}"
            )
        self._identity = identity

    async def _admit(self, trust: Trust, key: AttestingKey) -> Admission:
        """Return an admission whose AK certificate still lives two minutes, by E1 where there is none."""
        admission = self._admission
        if admission is None or ak_expiry(admission) - self._clock.now().timestamp() < _AK_MARGIN_SECONDS:
            self._admission = None  # E1 replaces the AK in the device: the old certificate is of no more use
            admission = await self._enroller.admit(trust, key)
            self._admission, self._admitted_at = admission, self._clock.monotonic()
        return admission

    async def _until_renewal(self) -> None:
        """Wait until the renewal is due, or less when somebody asked for a new attestation meanwhile."""
        assert self._identity is not None
        identity, jitter = self._identity, self._rng() * 2 - 1
        due = renewal_delay(identity.not_before, identity.not_after, self._clock.now(), jitter=jitter)
        due = max(due, _LEAST_RENEWAL_SECONDS)
        tasks = [asyncio.ensure_future(self._sleep(due)), asyncio.ensure_future(self._wake.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _failed(self, problem: CountersignError) -> None:
        self._problem = problem
        self._metrics.enrolments.labels(code=problem.code).inc()
        _log.warning("enrol.failed", code=problem.code, detail=problem.detail)


def _identity(key: AttestingKey, chain: list[x509.Certificate], instance: str, now: datetime) -> Identity:
    leaf = chain[0]
    return Identity(
        key=key,
        chain=chain_header(chain),
        instance=instance,
        not_before=leaf.not_valid_before_utc.astimezone(UTC),
        not_after=leaf.not_valid_after_utc.astimezone(UTC),
        obtained_at=now,
    )
