"""The form of ``POST /token``, read strictly (wire.md 4): each parameter once, no unknown one, one way to spell a value."""

from __future__ import annotations

import re
from binascii import a2b_qp
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from countersign.errors import Invalid
from countersign.wire import parse_details

if TYPE_CHECKING:
    from countersign.wire import Call, Message

__all__ = ["CURRENT", "TokenRequest", "parse_token_request"]

CURRENT: Final = "current"
"""The ``subject_token`` of a caller that believes in no certain task."""

_GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_SUBJECT_TYPE: Final = "urn:countersign:token-type:task"
_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name, not a token
_MEDIA_TYPE: Final = re.compile(r"application/x-www-form-urlencoded(?:; ?charset=utf-8)?")
_KNOWN: Final = {
    name.encode(): name
    for name in (
        "grant_type",
        "subject_token_type",
        "subject_token",
        "resource",
        "authorization_details",
        "requested_token_type",
    )
}
_KNOWN_BYTES: Final = bytes(range(0x21, 0x7F))
"""Printable ASCII, of which ``%``, ``+``, ``&`` and ``=`` do not stand for themselves; any other byte is refused."""
_NO_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_MAX_PAIRS: Final = 16
_MAX_VALUE: Final = 2048


@dataclass(frozen=True)
class TokenRequest:
    """What a signer asks for: a call token for exactly ``call`` at its audience, under the task ``subject``."""

    subject: str
    call: Call


def parse_token_request(message: Message) -> TokenRequest:
    """Read the form of a request whose proof is good.

    Raises
    ------
    Invalid
        ``parse.encoding`` for another media type, else ``request.*``, or ``parse.*`` for the arguments.

    """
    if not _MEDIA_TYPE.fullmatch(message.get("content-type") or ""):
        raise Invalid("parse.encoding", "the body is application/x-www-form-urlencoded")
    if "?" in message.target:
        raise Invalid("request.parameter", "parameters are in the body alone")
    form = _pairs(message.body)
    for name, value, code in (
        ("grant_type", _GRANT, "request.grant"),
        ("subject_token_type", _SUBJECT_TYPE, "request.subject_type"),
    ):
        if form.get(name) != value:
            raise Invalid(code, f"{name} is {value}")
    if form.get("requested_token_type", _TOKEN_TYPE) != _TOKEN_TYPE:
        raise Invalid("request.parameter", f"requested_token_type is {_TOKEN_TYPE}")
    subject = form.get("subject_token", "")
    if not 0 < len(subject) <= _MAX_VALUE:
        raise Invalid("request.parameter", "subject_token is current, or the UID of a task")
    audience = form.get("resource", "")
    if not 0 < len(audience) <= _MAX_VALUE:
        raise Invalid("request.resource", "resource is the audience of one tool server")
    if "authorization_details" not in form:
        raise Invalid("request.details", "authorization_details is missing")
    return TokenRequest(subject, parse_details(form["authorization_details"], audience=audience))


def _decoded(value: bytes) -> bytes:
    """Undo the percent-encoding of a value without ``=``: that of quoted-printable, but for the sign of an escape."""
    if b"%" not in value and b"+" not in value:
        return value
    return a2b_qp(value.replace(b"+", b" ").replace(b"%", b"="))


def _pairs(body: bytes) -> dict[str, str]:
    """Split the form; what two readers might split or decode differently is ``request.parameter``."""
    pairs = body.split(b"&")
    if len(pairs) > _MAX_PAIRS:
        raise Invalid("request.parameter", f"at most {_MAX_PAIRS} parameters")
    if body.translate(None, _KNOWN_BYTES) or _NO_ESCAPE.search(body):
        raise Invalid("request.parameter", "a parameter is name=value, percent-encoded")
    form: dict[str, str] = {}
    for pair in pairs:
        raw_name, equals, value = pair.partition(b"=")
        if not equals or b"=" in value:
            raise Invalid("request.parameter", "a parameter is name=value, percent-encoded")
        name = _KNOWN.get(raw_name)
        if name is None or name in form:
            raise Invalid("request.parameter", "a parameter is unknown, refused or repeated")
        try:
            form[name] = _decoded(value).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Invalid("request.parameter", f"{name} is no UTF-8") from error
    return form
