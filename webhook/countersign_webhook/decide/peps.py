"""Who may ask for decisions: policy enforcement points that the settings list, each for its ToolServers (wire.md 8)."""

from __future__ import annotations

import re
from collections import OrderedDict
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Protocol

from countersign.errors import Denied, Unavailable
from countersign.kube import KubeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from countersign.clock import Clock
    from countersign.kube import TokenReview
    from countersign_webhook.settings import Pep

__all__ = ["Peps", "TokenReviewer"]

_BEARER: Final = re.compile(r"Bearer ([A-Za-z0-9._~+/-]+=*)")
_CACHE_SECONDS: Final = 10.0
_CACHE_MOST: Final = 1024


class TokenReviewer(Protocol):
    """What ``kube.Kube`` does."""

    async def review_token(self, token: str, audiences: Sequence[str]) -> TokenReview:
        """Tell whose token this is, for these audiences. Raises KubeError if nobody can say."""


class Peps:
    """Knows a PEP by its client certificate, or by a projected ServiceAccount token whose audience is the issuer."""

    def __init__(self, peps: Sequence[Pep], reviewer: TokenReviewer | None, *, issuer: str, clock: Clock) -> None:
        """Know the listed ones; without ``reviewer`` no token is believed."""
        self._by_name = {pep.certificate: pep for pep in peps if pep.certificate is not None}
        self._by_account = {pep.service_account: pep for pep in peps if pep.service_account is not None}
        self._reviewer, self._issuer, self._clock = reviewer, issuer, clock
        self._believed: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    async def asking(self, authorization: str | None, certificate: Iterable[str]) -> Pep:
        """Return who asks; ``certificate`` are the names of a client certificate that the handshake verified.

        Raises
        ------
        Denied
            ``pep.unknown``.
        Unavailable
            ``decide.unavailable`` if nobody can say whose token it is.

        """
        if authorization is not None:
            found = self._by_account.get(await self._account(authorization))
        else:
            found = next((self._by_name[name] for name in certificate if name in self._by_name), None)
        if found is None:
            raise Denied("pep.unknown", "no listed policy enforcement point")
        return found

    async def _account(self, authorization: str) -> str:
        """Return ``namespace/name`` of the token's ServiceAccount; empty for a token that is not good."""
        match = _BEARER.fullmatch(authorization)
        if match is None or self._reviewer is None or not self._by_account:
            return ""
        digest, now = sha256(match[1].encode()).digest(), self._clock.monotonic()
        until, account = self._believed.get(digest, (0.0, ""))
        if now < until:
            return account
        try:
            review = await self._reviewer.review_token(match[1], [self._issuer])
        except KubeError as error:
            raise Unavailable("decide.unavailable", "nobody can say whose token this is") from error
        if not review.authenticated or review.namespace is None:
            return ""
        account = f"{review.namespace}/{review.service_account}"
        self._believed[digest] = (now + _CACHE_SECONDS, account)
        if len(self._believed) > _CACHE_MOST:
            self._believed.popitem(last=False)
        return account
