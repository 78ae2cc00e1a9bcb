"""What a signer tells the agent when the answer is no: the front door's words, the tool server's, or its own."""

from __future__ import annotations

import json
from typing import Any, Final

from countersign.errors import CODES, CountersignError, Unavailable

__all__ = ["Refused", "find_refusal", "read_refusal", "refused_by"]

_MAX_DETAIL: Final = 256
_LEAST_REFUSAL: Final = 400
_STATUSES: Final = 600
_DIGITS: Final = 6


class Refused(Exception):
    """A refusal on its way to the agent. ``status`` is the HTTP status it stands for; ``decision`` an audit record's id.

    ``approval`` names the ToolApproval (``namespace/name``) that the call waits for; ``retry_after`` is in seconds.
    """

    def __init__(
        self,
        code: str,
        status: int,
        *,
        detail: str = "",
        decision: str | None = None,
        approval: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        """Keep what the agent may know; ``code`` is of the registry."""
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.status = status
        self.detail = detail
        self.decision = decision
        self.approval = approval
        self.retry_after = retry_after


def read_refusal(status: int, body: bytes, retry_after: str | None) -> Refused:
    """Read an OAuth error or a problem document of ours; whatever cannot be read is ``decide.failed``."""
    refused = find_refusal(status, body, retry_after)
    return refused or Refused("decide.failed", 503, retry_after=_seconds(retry_after))


def find_refusal(status: int, body: bytes, retry_after: str | None) -> Refused | None:
    """Read the same, where it may be something else: None without a code of the registry."""
    document = _object(body)
    code = document.get("code")
    if not isinstance(code, str) or code not in CODES or not _LEAST_REFUSAL <= status < _STATUSES:
        return None
    return Refused(
        code,
        status,
        detail=_text(document.get("detail") or document.get("error_description")),
        decision=_text(document.get("decision")) or None,
        approval=_text(document.get("approval")) or None,
        retry_after=_seconds(retry_after),
    )


def refused_by(error: CountersignError, status: int) -> Refused:
    """Turn an error of our own into a refusal with that HTTP status."""
    wait = error.retry_after if isinstance(error, Unavailable) else None
    return Refused(error.code, status, detail=error.detail, retry_after=wait)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value[:_MAX_DETAIL] if isinstance(value, str) else ""


def _seconds(value: str | None) -> int | None:
    return int(value) if value and value.isascii() and value.isdigit() and len(value) <= _DIGITS else None
