"""A refusal as it leaves: the document that the caller gets, and the few words that the hook gets (wire.md 6)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from countersign.errors import CountersignError, Unavailable

__all__ = ["Refusal", "log_refusal"]

_log: Final = logging.getLogger("countersign.verifier")


@dataclass(frozen=True)
class Refusal:
    """Why a request was refused. ``txn`` and ``jti`` are those of a token that the issuer signed; else None."""

    code: str
    detail: str
    txn: str | None = None
    jti: str | None = None
    retry_after: int | None = None

    @classmethod
    def of(cls, error: CountersignError) -> Refusal:
        """Read what an error carries."""
        retry_after = error.retry_after if isinstance(error, Unavailable) else None
        known = vars(error)
        return cls(error.code, error.detail, known.get("txn"), known.get("jti"), retry_after)


def log_refusal(refusal: Refusal) -> None:
    """Log code, ``txn``, ``jti`` and the detail, which never repeats input: the hook of a verifier that is told no other."""
    _log.warning("refused code=%s txn=%s jti=%s detail=%s", refusal.code, refusal.txn, refusal.jti, refusal.detail)
