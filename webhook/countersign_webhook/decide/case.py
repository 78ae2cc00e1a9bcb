"""One signed request on its way: what is known so far, so that the answer, the record and the Event say the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from countersign.policy import Decision
    from countersign.wire import InstanceView, VerifiedCaller
    from countersign_webhook.decide.facts import Facts
    from countersign_webhook.decide.form import TokenRequest

__all__ = ["Case"]


@dataclass
class Case:
    """Filled step by step; each step's outcome is None until it was reached. ``now`` is the one reading of the clock.

    ``jkt`` is the key that made a good signature (step 11 of wire.md 3.4): from then on a refusal is recorded. ``view`` is what
    the cluster says of that key's holder, believed or not; ``caller`` is who passed all of 3.4. ``pep`` asked for another's
    call, without a proof, and says by which ``key_tier`` (wire.md 8).
    """

    id: str
    now: datetime
    endpoint: str
    peer: str | None
    jkt: str | None = None
    view: InstanceView | None = None
    caller: VerifiedCaller | None = None
    request: TokenRequest | None = None
    decision: Decision | None = None
    rule_set: str | None = None
    jti: str | None = None
    leg: str = "T"
    pep: str | None = None
    key_tier: str | None = None
    recorded: bool = False
    attempted: bool = False
    seconds: int = field(init=False)
    """``now`` as wire.md counts: whole seconds since 1970."""

    def __post_init__(self) -> None:
        """Count the seconds once."""
        self.seconds = int(self.now.timestamp())

    @property
    def facts(self) -> Facts | None:
        """What the cluster says of the key's holder beyond the view; None where a part of it is missing."""
        return None if self.view is None else self.view.record
