"""The CAs at hand: what was last read of them, and when to look again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import structlog

from countersign.authority.ca import CaError, CertificateAuthority
from countersign.authority.rotation import (
    attestation_ca,
    attestation_overlap,
    identity_ca,
    identity_overlap,
    identity_secret_name,
)
from countersign.authority.trust import stamp

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from countersign.clock import Clock
    from countersign.kube import Kube

__all__ = ["Custody"]

_REREAD: Final = 60.0
_LOG: Final = structlog.get_logger(__name__)


class Custody:
    """Holds the attestation CA, from :meth:`open` on, and the identity CAs, once each was loaded."""

    def __init__(self, kube: Kube, clock: Clock, *, namespace: str, cluster: str, ahead: timedelta) -> None:
        """Know nothing yet. ``ahead`` is how long a CA is published before it signs."""
        self._kube = kube
        self._clock = clock
        self._namespace = namespace
        self._cluster = cluster
        self._ahead = ahead
        self._attestation: CertificateAuthority | None = None
        self._identities: dict[str, tuple[str, str, CertificateAuthority]] = {}
        self._read_at: dict[str, float] = {}

    @property
    def pace(self) -> float:
        """How many seconds a Secret is believed without another look: a person may replace it, a step may be due."""
        return min(_REREAD, self._ahead.total_seconds() / 4)

    @property
    def attestation(self) -> CertificateAuthority:
        """The attestation CA."""
        if self._attestation is None:
            raise RuntimeError("the attestation CA was not opened")
        return self._attestation

    def identity(self, issuer: str, uid: str) -> CertificateAuthority | None:
        """Return the CA of the Embedded issuer of that name and UID, if it was loaded."""
        known, _, ca = self._identities.get(issuer, ("", "", None))
        return ca if known == uid else None

    def expiry(self) -> tuple[float, float]:
        """Return when the attestation CA ends, and when the first of the identity CAs does; seconds since 1970, or inf."""
        identities = [ca.certificate.not_valid_after_utc.timestamp() for _, _, ca in self._identities.values()]
        return self.attestation.certificate.not_valid_after_utc.timestamp(), min(identities, default=float("inf"))

    async def open(self, now: datetime) -> None:
        """Read the attestation CA, or make it. Raises CaError or KubeError."""
        ca = await attestation_ca(
            self._kube, self._namespace, cluster=self._cluster, now=now, overlap=attestation_overlap(self._ahead)
        )
        if ca.took_over:
            _LOG.info("the attestation CA was rotated", until=stamp(ca.certificate.not_valid_after_utc))
        self._attestation = ca
        self._read_at[""] = self._clock.monotonic()

    async def follow(self, now: datetime) -> None:
        """Read the attestation CA again if it is time; one that cannot be used is an error in the log, and the old stays.

        Raises KubeError.
        """
        if self._is_fresh(""):
            return
        try:
            await self.open(now)
        except CaError as error:
            _LOG.error("the attestation CA cannot be used; what was read before signs on", error=str(error))

    async def load(self, issuer: dict[str, Any], now: datetime) -> CertificateAuthority:
        """Return the CA of an issuer, read again if it is time; ``took_over`` is true once.

        Raises CaError, after which there is none of this issuer, or KubeError.
        """
        name, uid = issuer["metadata"]["name"], issuer["metadata"]["uid"]
        secret = identity_secret_name(issuer)
        *known, ca = self._identities.get(name, ("", "", None))
        alive = ca is not None and ca.certificate.not_valid_after_utc > now
        if ca is not None and alive and known == [uid, secret] and self._is_fresh(name):
            return ca
        try:
            ca = await identity_ca(self._kube, self._namespace, issuer, now, identity_overlap(self._ahead))
        except CaError:
            self._identities.pop(name, None)
            raise
        self._identities[name] = uid, secret, ca.told()
        self._read_at[name] = self._clock.monotonic()
        return ca

    def _is_fresh(self, name: str) -> bool:
        return self._clock.monotonic() - self._read_at.get(name, float("-inf")) < self.pace
