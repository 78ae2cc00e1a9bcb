"""What an ACME error says: an RFC 7807 document with a type of RFC 8555 section 6.7 and our extension member ``code``."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["STATUSES", "URN", "AcmeProblem"]

URN: Final = "urn:ietf:params:acme:error:"

STATUSES: Final[dict[str, int]] = {
    "accountDoesNotExist": 400,
    "alreadyRevoked": 400,
    "badAttestationStatement": 400,
    "badCSR": 400,
    "badNonce": 400,
    "badPublicKey": 400,
    "badRevocationReason": 400,
    "badSignatureAlgorithm": 400,
    "externalAccountRequired": 403,
    "malformed": 400,
    "orderNotReady": 403,
    "rateLimited": 429,
    "rejectedIdentifier": 400,
    "serverInternal": 500,
    "unauthorized": 403,
    "unsupportedIdentifier": 400,
}
"""HTTP status of each type that our CA uses; another CA's document brings its own."""

_MAX_TEXT: Final = 512


class AcmeProblem(Exception):
    """An ACME error, made by our CA or read from one.

    ``type`` is the whole URN, ``name`` its last part; ``code`` is a reason code of the registry, or what the other CA
    sent in its place, or None. ``detail`` and ``subproblems`` are for people.
    """

    def __init__(
        self,
        type: str,  # noqa: A002 - the member's name in RFC 7807
        detail: str = "",
        code: str | None = None,
        *,
        status: int | None = None,
        retry_after: int | None = None,
        subproblems: tuple[dict[str, Any], ...] = (),
    ) -> None:
        """Take the short or the whole name of a type; ``status`` is by default the type's."""
        name = type.removeprefix(URN)
        super().__init__(": ".join(part for part in (name, code, detail) if part))
        self.type = type if ":" in type else URN + type
        self.name = name
        self.detail = detail
        self.code = code
        self.status = status if status is not None else STATUSES.get(name, 400)
        self.retry_after = retry_after
        self.subproblems = subproblems

    def document(self) -> dict[str, Any]:
        """Return the problem document."""
        found: dict[str, Any] = {"type": self.type, "detail": self.detail, "status": self.status}
        if self.code is not None:
            found["code"] = self.code
        if self.subproblems:
            found["subproblems"] = list(self.subproblems)
        return found

    @classmethod
    def read(cls, document: Any, *, status: int) -> AcmeProblem:
        """Make the error of what a CA sent; anything that is no problem document is ``serverInternal``.

        A CA's words are cut to a bounded length and to printable characters: they end in our logs.
        """
        if not isinstance(document, dict):
            return cls("serverInternal", f"the CA answered {status} without a problem document", status=status)
        raw = document.get("subproblems")
        subproblems = tuple(item for item in raw if isinstance(item, dict)) if isinstance(raw, list) else ()
        code = document.get("code")
        return cls(
            _text(document.get("type")) or "about:blank",
            _text(document.get("detail")),
            _text(code) if isinstance(code, str) else None,
            status=status,
            subproblems=subproblems[:8],
        )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        return ""
    return "".join(character if character.isprintable() else "?" for character in value[:_MAX_TEXT])
