"""How often may somebody ask? By address for strangers, and by pod and node for who has a token (threats.md E3)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from countersign.wire.limit import RateLimit

if TYPE_CHECKING:
    from countersign.authority.settings import Limits
    from countersign.clock import Clock
    from countersign.kube import TokenReview

__all__ = ["Askers"]

_SITE: Final = 64
"""Bits of an IPv6 address that are one neighbour: whoever has one has them all."""


@dataclass(frozen=True)
class Askers:
    """The buckets; each forgets who has not asked for longest, so a flood of addresses takes bounded memory."""

    addresses: RateLimit
    pods: RateLimit
    nodes: RateLimit

    @classmethod
    def of(cls, limits: Limits, clock: Clock) -> Self:
        """Make them as the settings say."""
        return cls(
            RateLimit(clock, rate=limits.address_rate, burst=limits.address_burst),
            RateLimit(clock, rate=limits.pod_rate, burst=limits.pod_burst),
            RateLimit(clock, rate=limits.node_rate, burst=limits.node_burst),
        )

    def address(self, peer: str | None) -> None:
        """Take one request of an address, before anything of it is read. Raises Unavailable ``rate.limited``."""
        self.addresses.take(_neighbour(peer or ""))

    def pod(self, review: TokenReview) -> None:
        """Take one enrolment step of the pod that a token is bound to, and of its node. Raises Unavailable ``rate.limited``."""
        self.pods.take(review.pod_uid or "")
        self.nodes.take(review.node_name or "")


def _neighbour(peer: str) -> str:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, _SITE), strict=False))
    return peer
