"""One HTTP request as every reader of it must see it (wire.md 2.2): target, fields, body, and no second reading."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from countersign.errors import Invalid
from countersign.wire.lazy import lazy
from countersign.wire.strict_json import MAX_BODY

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ONCE_FIELDS", "ONCE_PREFIXES", "TRAVELLING_FIELDS", "TRAVELLING_PREFIX", "Message", "travels"]

ONCE_FIELDS: Final = frozenset(
    {
        "host",
        "content-type",
        "content-length",
        "content-encoding",
        "content-digest",
        "authorization",
        "dpop",
        "signature",
        "signature-input",
        "workload-identity-token",
        "workload-proof-token",
        "txn-token",
    }
)
"""Fields that occur at most once, also when their values are equal; with every field of ``ONCE_PREFIXES``."""
ONCE_PREFIXES: Final = ("countersign-", "mcp-")

TRAVELLING_FIELDS: Final = frozenset(
    {
        "host",
        "accept",
        "content-type",
        "content-length",
        "user-agent",
        "traceparent",
        "tracestate",
        "mcp-protocol-version",
        "mcp-method",
        "mcp-name",
        "mcp-session-id",
    }
)
"""What may travel on from agent to tool, with ``mcp-param-*``: any other field is an argument that no policy saw (D3).

Of ``mcp-*`` only what the signature covers (wire.md 3.1.4): another could be added on the way, and a tool might heed it.
"""
TRAVELLING_PREFIX: Final = "mcp-param-"

_METHOD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NAME: Final = _METHOD
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TARGET: Final = re.compile(r"/[\x21\x22\x24-\x7e]*")
"""Origin form: printable ASCII without the fragment's ``#``."""

_OFTEN: Final[dict[str | bytes, str]] = {
    name.encode(): name
    for name in (ONCE_FIELDS | TRAVELLING_FIELDS | {"countersign-chain", "accept-encoding", "connection"})
    - {"content-encoding"}
}
"""Names that need no look at their characters, and at nothing else."""


def travels(name: str) -> bool:
    """Tell whether the agent's field ``name`` (lower case) reaches the tool; the signer adds our own itself."""
    return name in TRAVELLING_FIELDS or name.startswith(TRAVELLING_PREFIX)


@dataclass(frozen=True)
class Message:
    """A request. ``target`` is the origin form as received; names in ``headers`` are lower case, values are trimmed.

    What arrives from elsewhere goes through :meth:`build`; the constructor is for what we write ourselves.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    built: bool = field(default=False, init=False, repr=False, compare=False)
    """Whether :meth:`build` made it: then it is known to have one reading."""

    @classmethod
    def build(
        cls,
        method: str,
        target: str,
        headers: Iterable[tuple[str | bytes, str | bytes]],
        body: bytes,
        *,
        max_body: int = MAX_BODY,
    ) -> Message:
        """Return the request, if it has one reading. Bytes and text are taken as ISO 8859-1, one character a byte.

        Raises
        ------
        Invalid
            ``http.path`` for a target that is no origin form, ``parse.syntax`` for a method or field line outside HTTP's
            grammar, ``parse.duplicate_header``, ``parse.encoding`` for any ``Content-Encoding``, ``parse.size``.

        """
        if not _METHOD.fullmatch(method):
            raise Invalid("parse.syntax", "the method is no token")
        if not _TARGET.fullmatch(target):
            raise Invalid("http.path", "the target is in origin form")
        headers = [*headers]
        fields = _plainly(headers)
        message = cls(method, target, tuple(fields.items()) if fields is not None else _one_by_one(headers), body)
        if len(body) > max_body:
            raise Invalid("parse.size", f"at most {max_body} bytes")
        message.__dict__["built"] = True
        if fields is not None:
            message.__dict__["fields"] = fields
        return message

    @lazy
    def fields(self) -> dict[str, str]:
        """The first value of each field; those that decide occur once."""
        return dict(reversed(self.headers))

    def get(self, name: str) -> str | None:
        """Return the first value of the field ``name`` (lower case), or None; fields that decide occur once."""
        return self.fields.get(name)


def _plainly(headers: list[tuple[str | bytes, str | bytes]]) -> dict[str, str] | None:
    """Return the fields if each has a well-known name, occurs once and has a value in printable ASCII; None for the others."""
    try:
        names = [_OFTEN[name] for name, _ in headers]
        values = [value.decode("latin-1").strip(" \t") for _, value in headers]  # type: ignore[union-attr]  # if it is text:
    except (KeyError, AttributeError):
        return None
    text = "".join(values)
    fields = dict(zip(names, values, strict=True))
    return fields if text.isascii() and text.isprintable() and len(fields) == len(names) else None


def _one_by_one(headers: list[tuple[str | bytes, str | bytes]]) -> tuple[tuple[str, str], ...]:
    """Return the fields; raises as :meth:`Message.build` for the first that is wrong."""
    fields: list[tuple[str, str]] = []
    once: set[str] = set()
    for raw_name, raw_value in headers:
        name, value = _text(raw_name), _text(raw_value).strip(" \t")
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise Invalid("parse.syntax", "a field line is outside the grammar")
        name = name.lower()  # only now: the Kelvin sign would become a k
        if name in ONCE_FIELDS or name.startswith(ONCE_PREFIXES):
            if name in once:
                raise Invalid("parse.duplicate_header", f"{name} occurs at most once")
            once.add(name)
        if name == "content-encoding":
            raise Invalid("parse.encoding", "a body is sent as it is")
        fields.append((name, value))
    return tuple(fields)


def _text(raw: str | bytes) -> str:
    return raw if isinstance(raw, str) else raw.decode("latin-1")
