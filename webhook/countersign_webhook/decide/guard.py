"""What every signed request must pass before it is believed: fresh caches, then wire.md 3.4 (1) to (14), then its rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from countersign.errors import CountersignError, Unavailable
from countersign.wire import LegT, verify_leg_t

if TYPE_CHECKING:
    from datetime import datetime

    from countersign.wire import InstanceView, Message, NonceCheck, VerifiedCaller
    from countersign_webhook.context import WebhookContext
    from countersign_webhook.decide.case import Case

__all__ = ["Guard", "Refusal"]


@dataclass(frozen=True)
class Refusal:
    """A no. ``jkt`` is the key that the chain names, good or not, from step 9 of wire.md 3.4 on: it may be told a nonce."""

    code: str
    detail: str
    retry_after: int | None = None
    jkt: str | None = None
    skew: float | None = None

    @classmethod
    def of(cls, error: CountersignError) -> Refusal:
        """Read what an error carries."""
        retry_after = error.retry_after if isinstance(error, Unavailable) else None
        return cls(error.code, error.detail, retry_after, getattr(error, "jkt", None), getattr(error, "skew", None))


class _Noting:
    """The nonces, which step 12 asks first of all that follow a good signature: so the case knows that it has one.

    A refusal says so itself; a store that is silent and a bug do not.
    """

    def __init__(self, nonces: NonceCheck, case: Case) -> None:
        self._nonces, self._case = nonces, case

    def check(self, nonce: str, jkt: str, now: int) -> int:
        self._case.jkt = jkt
        return self._nonces.check(nonce, jkt, now)


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

    async def verify(self, message: Message, case: Case) -> VerifiedCaller:
        """Return who signed ``message`` for the endpoint of ``case``; raises what the first failing check raises.

        How far it came, and whose key it is, is noted in ``case`` on the way.
        """
        self.require_fresh()
        context = self._context
        limits = context.settings.limits

        def instance(jkt: str) -> InstanceView | None:
            case.view = context.registry.instance(jkt)
            return case.view

        return await verify_leg_t(
            message,
            LegT(
                audience=context.settings.issuer + case.endpoint,
                issuer=context.settings.issuer,
                now=case.seconds,
                roots=context.registry.roots,
                nonces=_Noting(context.nonces, case),
                replay=context.replay,
                instance=instance,
                skew=limits.skew_seconds,
                window=limits.proof_seconds,
                chains=context.chains,
            ),
        )

    def nonce_header(self, jkt: str | None, now: datetime) -> tuple[tuple[str, str], ...]:
        """Return the field with one more nonce for a key that is known (wire.md 3.3.2)."""
        if jkt is None:
            return ()
        return (("countersign-nonce", self._context.nonces.make(jkt, int(now.timestamp()))),)
