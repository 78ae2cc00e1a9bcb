"""A plain HTTP request as one call (wire.md 2.5): the digest input of path, query and body, each read in one way only.

Which tool a request is, by method and path template, is the webhook's to find; this reads what a digest covers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from countersign.errors import Invalid
from countersign.wire.call import Call
from countersign.wire.mcp import JSON_TYPES
from countersign.wire.strict_json import parse_json

if TYPE_CHECKING:
    from countersign.wire.message import Message

__all__ = ["http_input", "parse_http"]

_SEGMENT: Final = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,=:@]|%[0-9A-Fa-f]{2})+")
_PAIR: Final = re.compile(
    r"((?:[A-Za-z0-9\-._~!$'()*,:@/?]|%[0-9A-Fa-f]{2})+)=((?:[A-Za-z0-9\-._~!$'()*,:@/?]|%[0-9A-Fa-f]{2})*)"
)
_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_UNSAFE: Final = re.compile(r"[/\\;\x00-\x1f\x7f-\x9f]")
_BODILESS: Final = frozenset({"GET", "HEAD"})


def parse_http(message: Message, *, audience: str, base_path: str) -> Call:
    """Return the call that ``message`` is at the server ``audience``, whose endpoint's own path is ``base_path``.

    ``base_path`` is empty or starts with a slash and does not end with one. The call's ``tool`` is empty.

    Raises
    ------
    Invalid
        ``http.path``, ``http.query``, ``http.body``, or ``parse.*`` for a JSON body.

    """
    return Call("HTTP", message.method, "", http_input(message, base_path=base_path), audience)


def http_input(message: Message, *, base_path: str) -> dict[str, Any]:
    """Return the digest input of ``message``; raises as :func:`parse_http`."""
    target, mark, query = message.target.partition("?")
    path = _below(target, base_path)
    _check_path(path)
    return {"body": _body(message), "path": path, "query": _query(query) if mark else {}}


def _below(target: str, base_path: str) -> str:
    if target == base_path:
        return "/"
    if not target.startswith(f"{base_path}/"):
        raise Invalid("http.path", "the target is not below the endpoint's path")
    return target.removeprefix(base_path)


def _check_path(path: str) -> None:
    if path == "/":
        return
    for segment in path[1:].split("/"):
        plain = _decoded(segment) if _SEGMENT.fullmatch(segment) else None
        if plain is None or plain in {".", ".."} or _UNSAFE.search(plain):
            raise Invalid("http.path", "a segment that routers read differently")


def _query(query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in query.split("&"):
        match = _PAIR.fullmatch(pair)
        name, value = (_decoded(match[1]), _decoded(match[2])) if match else (None, None)
        if name is None or value is None or name in found or "\0" in name + value:
            raise Invalid("http.query", "name=value pairs, each name once, decoded in one way only")
        found[name] = value
    return found


def _body(message: Message) -> dict[str, Any] | None:
    if not message.body:
        return None
    if message.method in _BODILESS:
        raise Invalid("http.body", "GET and HEAD have no body")
    if (message.get("content-type") or "").lower() not in JSON_TYPES:
        raise Invalid("http.body", "a body is application/json in UTF-8")
    return parse_json(message.body, max_bytes=len(message.body))  # Message.build judged its size


def _decoded(text: str) -> str | None:
    """Decode percent-encoding once; None if the result is no UTF-8, or would decode once more."""
    try:
        plain = unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if _ESCAPE.search(plain) else plain
