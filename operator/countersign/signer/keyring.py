"""The identity in memory: who this signer is now, until when, and when to renew (enrolment.md section 4).

Nothing is stored. A restarted signer enrols anew; the instance is found again by its pod, and the old key is dead.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from countersign.errors import CountersignError, Denied, Unavailable
from countersign.signer.enrol import ak_expiry
from countersign.signer.trust import read_trust
from countersign.wire import chain_header

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cryptography import x509

    from countersign.attest import AttestationDevice, AttestingKey
    from countersign.clock import Clock
    from countersign.signer.enrol import Admission, Enroller

__all__ = ["Identity", "Keyring", "renewal_delay"]

_AK_MARGIN_SECONDS = 120
_REFUSED_SECONDS = 60.0
_FIRST_BACKOFF = 1.0
_LONGEST_BACKOFF = 60.0
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


class Keyring:
    """Enrols, renews, and says why there is no identity when there is none."""

    def __init__(
        self,
        device: AttestationDevice,
        enroller: Enroller,
        *,
        trust_dir: Path,
        clock: Clock,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """Keep the parts; :meth:`run` does the work."""
        self._device = device
        self._enroller = enroller
        self._trust_dir = trust_dir
        self._clock = clock
        self._rng = rng
        self._identity: Identity | None = None
        self._admission: Admission | None = None
        self._problem: CountersignError | None = Unavailable("attest.unavailable", "enrolment has not finished")
        self._wake = asyncio.Event()
        self._reattest = False
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

    def reattest(self) -> None:
        """Ask for E1 again soon: the front door found the attestation too old."""
        self._reattest = True
        self._wake.set()

    async def run(self) -> None:
        """Enrol and renew until cancelled; never ends by itself, whatever the authority says."""
        backoff = _FIRST_BACKOFF
        while True:
            try:
                await self._obtain()
            except Denied as denied:
                self._failed(denied)
                await self._pause(_REFUSED_SECONDS)
            except Unavailable as unavailable:
                self._failed(unavailable)
                await self._pause(min(backoff, _LONGEST_BACKOFF) * (0.5 + self._rng()))
                backoff = min(backoff * 2, _LONGEST_BACKOFF)
            else:
                backoff = _FIRST_BACKOFF
                identity = self.current()
                jitter = self._rng() * 2 - 1
                await self._pause(
                    renewal_delay(identity.not_before, identity.not_after, self._clock.now(), jitter=jitter)
                )

    async def _obtain(self) -> None:
        """Get a first certificate, or the next one for the same key."""
        trust = read_trust(self._trust_dir)
        key = self._identity.key if self._identity is not None else await self._device.create_key()
        now = self._clock.now().timestamp()
        if self._reattest or self._admission is None or ak_expiry(self._admission) - now < _AK_MARGIN_SECONDS:
            self._admission = None
            self._admission = await self._enroller.admit(trust, key)
            self._reattest = False
        try:
            chain = await self._enroller.certify(trust, key, self._admission)
        except Denied:
            self._admission = None  # whatever made the CA refuse, the next try proves everything again
            raise
        self._identity = _identity(key, chain, self._admission.instance, self._clock.now())
        self._problem = None
        self.renewals += 1

    async def _pause(self, seconds: float) -> None:
        """Wait, or less when somebody asks for a new attestation."""
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    def _failed(self, problem: CountersignError) -> None:
        self._problem = problem
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
