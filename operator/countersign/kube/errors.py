"""What a call of the API server can fail with. The words say what to do, and never repeat a token or a Secret."""

from __future__ import annotations

from typing import Any, Final

from countersign.kube.resources import SECRETS, TOKEN_REVIEWS, Resource

__all__ = ["Conflict", "Gone", "KubeError", "NotFound", "error_of"]

_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_GONE: Final = 410
_INVALID: Final = 422
_TOO_MANY: Final = 429
_QUIET: Final = frozenset({SECRETS, TOKEN_REVIEWS})
_LONGEST: Final = 512


class KubeError(Exception):
    """The API server refused or did not answer; ``status`` is HTTP's, 0 if there was no answer."""

    def __init__(self, message: str, *, status: int = 0, reason: str = "") -> None:
        """Keep ``reason``, the API server's own word (``AlreadyExists``, ``Forbidden``, …)."""
        super().__init__(message)
        self.status = status
        self.reason = reason


class NotFound(KubeError):
    """There is no such object, or no such kind."""


class Conflict(KubeError):
    """Somebody was faster: the object exists already, or changed since it was read. Read it again and decide anew."""


class Gone(KubeError):
    """The version to watch from is too old: list again."""


_HINTS: Final = {
    _UNAUTHORIZED: (
        KubeError,
        "the API server does not accept this process's credentials; see that its token is renewed",
    ),
    _FORBIDDEN: (KubeError, "not permitted; grant it in the ClusterRole of this process's ServiceAccount"),
    _NOT_FOUND: (NotFound, "not found; see that the name is right and the CustomResourceDefinitions are installed"),
    _CONFLICT: (Conflict, "in conflict; read the object again and repeat the change"),
    _GONE: (Gone, "too old; list again"),
    _INVALID: (KubeError, "not valid; correct the fields that the API server names"),
    _TOO_MANY: (KubeError, "too many requests; try again later"),
}


def error_of(status: int, body: Any, what: str, resource: Resource) -> KubeError:
    """Return the error for an answer that is not a success.

    ``what`` names the call (``get pods a/b``); ``body`` is the parsed ``Status`` object, or anything.
    """
    found = body if isinstance(body, dict) else {}
    reason, told = str(found.get("reason") or ""), str(found.get("message") or "")
    kind, hint = _HINTS.get(status, (KubeError, f"the API server answered {status}; see its log"))
    # The API server quotes values that it refuses: those of a Secret or of a review stay out of our logs.
    detail = f" ({told[:_LONGEST]})" if told and resource not in _QUIET else ""
    return kind(f"{what}: {hint}{detail}", status=status, reason=reason)
