"""What every signed request must pass before it is believed: fresh caches, then wire.md 3.4 (1) to (14), then its rate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from countersign.errors import CountersignError, Unavailable
from countersign.wire import LegT, verify_leg_t

if TYPE_CHECKING:
    from datetime import datetime

    from countersign.wire import Message, VerifiedCaller
    from countersign_webhook.context import WebhookContext

__all__ = ["Guard", "Refusal"]


@dataclass(frozen=True)
class Refusal:
    """A no, and how far the request came: ``jkt`` once a key is known, ``audited`` once its signature is good."""

    code: str
    detail: str
    retry_after: int | None = None
    jkt: str | None = None
    audited: bool = False

    @classmethod
    def of(cls, error: CountersignError) -> Refusal:
        """Read what an error carries."""
        retry_after = error.retry_after if isinstance(error, Unavailable) else None
        jkt, audited = getattr(error, "jkt", None), bool(getattr(error, "audited", False))
        return cls(error.code, error.detail, retry_after, jkt, audited)


class Guard:
    """The gate of leg T."""

    def __init__(self, context: WebhookContext) -> None:
        """Use the parts of ``context``."""
        self._context = context

    def require_fresh(self) -> None:
        """Refuse to answer from caches that are not warm, or older than their limit.

        Raises
        ------
        Unavailable
            ``decide.unavailable``.

        """
        if stale := self._context.stale():
            raise Unavailable("decide.unavailable", f"no current view of {', '.join(stale)}")

    async def verify(self, message: Message, path: str, now: datetime) -> VerifiedCaller:
        """Return who signed ``message`` for the endpoint at ``path``; raises what the first failing check raises."""
        self.require_fresh()
        context = self._context
        limits = context.settings.limits
        return await verify_leg_t(
            message,
            LegT(
                audience=context.settings.issuer + path,
                issuer=context.settings.issuer,
                now=int(now.timestamp()),
                roots=context.registry.roots,
                nonces=context.nonces,
                replay=context.replay,
                instance=partial(context.registry.instance, now=now),
                skew=limits.skew_seconds,
                window=limits.proof_seconds,
            ),
        )

    def nonce_header(self, jkt: str | None, now: datetime) -> tuple[tuple[str, str], ...]:
        """Return the field with one more nonce for a key that is known (wire.md 3.3.2)."""
        if jkt is None:
            return ()
        return (("countersign-nonce", self._context.nonces.make(jkt, int(now.timestamp()))),)
