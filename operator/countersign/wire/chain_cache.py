"""Chains that were verified a moment ago (wire.md 3.2): a certificate says now what it said then.

Only what cannot change is kept: names, key, and the time in which every certificate up to the root is valid. Whether that
time is now and whether the trust bundle is still the one is asked at each use; what the cluster says of the key's holder
is never kept here.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["ChainCache", "KnownChain"]

_MOST: Final = 8192
_SECONDS: Final = 60


@dataclass(frozen=True)
class KnownChain:
    """What a chain that passed step 9 at ``verified`` says. ``begins`` and ``ends`` are of all its certificates, root included.

    ``roots`` is the trust bundle of ``trust_domain`` under which it was verified; ``names`` are the leaf's URI names, ``jwk``
    is its ``key`` as RFC 7518 has it, ``jkt`` the thumbprint.
    """

    verified: int
    trust_domain: str
    roots: Sequence[x509.Certificate] = field(repr=False)
    begins: float
    ends: float
    names: tuple[str, ...]
    key: ec.EllipticCurvePublicKey
    jwk: Mapping[str, str]
    jkt: str


class ChainCache:
    """Verified chains by the digest of their header's bytes; the least recently used are forgotten first."""

    def __init__(self, most: int = _MOST) -> None:
        """Keep at most ``most``."""
        self._most = most
        self._known: OrderedDict[bytes, KnownChain] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def find(
        self, header: str, roots: Callable[[str], Sequence[x509.Certificate]], *, now: int, skew: int
    ) -> KnownChain | None:
        """Return the chain if it was verified less than 60 s ago, is valid now, and under the roots of now; else it has to be verified."""
        digest = _digest(header)
        known = self._known.get(digest)
        if known is None:
            return None
        fresh = known.verified - skew <= now < known.verified + _SECONDS
        valid = known.begins - skew <= now < known.ends
        if not fresh or not valid or not _same(known.roots, roots(known.trust_domain)):
            del self._known[digest]
            return None
        self._known.move_to_end(digest)
        return known

    def keep(self, header: str, known: KnownChain) -> None:
        """Keep a chain whose holder passed every check: so nobody without a certificate has a place here."""
        self._known[_digest(header)] = known
        if len(self._known) > self._most:
            self._known.popitem(last=False)


def _digest(header: str) -> bytes:
    return sha256(header.encode("latin-1", "replace")).digest()


def _same(one: Sequence[x509.Certificate], other: Sequence[x509.Certificate]) -> bool:
    return one is other or list(one) == list(other)
