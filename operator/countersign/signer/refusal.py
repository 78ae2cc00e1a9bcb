"""What a signer tells the agent when the answer is no: the front door's words, the tool server's, or its own."""

from __future__ import annotations

import json
from typing import Any, Final

from countersign.errors import CODES, CountersignError, Unavailable

__all__ = ["Refused", "read_refusal", "refused_by"]

_MAX_DETAIL: Final = 256


class Refused(Exception):
    """A refusal on its way to the agent. ``status`` is the HTTP status it stands for; ``decision`` an audit record's id."""

    def __init__(
        self,
        code: str,
        status: int,
        *,
        detail: str = "",
        decision: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        """Keep what the agent may know; ``code`` is of the registry."""
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.status = status
        self.detail = detail
        self.decision = decision
        self.retry_after = retry_after


def read_refusal(status: int, body: bytes, retry_after: str | None) -> Refused:
    """Read an OAuth error or a problem document of ours; whatever cannot be read is ``decide.failed``."""
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    document = document if isinstance(document, dict) else {}
    code = document.get("code")
    known = isinstance(code, str) and code in CODES
    return Refused(
        code if known else "decide.failed",
        status if known else 503,
        detail=_text(document.get("detail") or document.get("error_description")),
        decision=_text(document.get("decision")) or None,
        retry_after=int(retry_after) if retry_after and retry_after.isascii() and retry_after.isdigit() else None,
    )


def refused_by(error: CountersignError, status: int) -> Refused:
    """Turn an error of our own into a refusal with that HTTP status."""
    wait = error.retry_after if isinstance(error, Unavailable) else None
    return Refused(error.code, status, detail=error.detail, retry_after=wait)


def _text(value: Any) -> str:
    return value[:_MAX_DETAIL] if isinstance(value, str) else ""
