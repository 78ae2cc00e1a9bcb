"""MCP headers that repeat the body (wire.md 2.3.4 and 2.3.5): which arguments a schema mirrors, and how a value is spelt."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any, Final

from countersign.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from countersign.wire.message import Message

__all__ = ["check_params", "mirrors"]

_PARAM: Final = "mcp-param-"
_MARK: Final = "x-mcp-header"
_SENTINEL: Final = re.compile(r"=\?base64\?([A-Za-z0-9+/]*={0,2})\?=")
_MAX_DEPTH: Final = 32


def mirrors(sent: str, value: Any) -> bool:
    """Tell whether the header value ``sent`` spells the body's ``value``, a string, an integer or a boolean."""
    text = _decode(sent)
    if isinstance(value, bool):
        return text == ("true" if value else "false")
    if isinstance(value, int):
        return text == str(value)
    return isinstance(value, str) and text == value


def check_params(message: Message, schema: Any, arguments: Mapping[str, Any], *, required: bool) -> None:
    """Compare every ``Mcp-Param-*`` of ``message`` with the arguments that ``schema`` marks ``x-mcp-header``.

    Raises
    ------
    Invalid
        ``mcp.header_missing`` if ``required`` and a marked argument that is not null has none; ``mcp.header_mismatch``
        for one that differs, that stands for null or nothing, or that no argument is marked for.

    """
    sent = {name: value for name, value in message.headers if name.startswith(_PARAM)}
    marked: dict[str, list[Any]] = {}
    for header, path in _marks(schema):
        marked.setdefault(header, []).append(_at(arguments, path))
    if required:
        for header, values in marked.items():
            if header not in sent and any(value is not None for value in values):
                raise Invalid("mcp.header_missing", f"{header} is required by the tool's schema")
    for header, text in sent.items():
        values = marked.get(header, [])
        if not values or not all(mirrors(text, value) for value in values):
            raise Invalid("mcp.header_mismatch", "an Mcp-Param header is not what the body says")


def _decode(sent: str) -> str | None:
    """Return the text that a header value stands for; None if two readers might decode it differently."""
    if not sent.isascii():
        return None
    if not sent.lower().startswith("=?base64?"):
        return sent
    match = _SENTINEL.fullmatch(sent)
    if match is None:
        return None
    try:
        data = base64.b64decode(match[1], validate=True)
        text = data.decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return text if base64.b64encode(data).decode() == match[1] else None


def _marks(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (field name, path of members) of each marked argument below chains of ``properties``."""
    if not isinstance(schema, dict) or len(path) > _MAX_DEPTH:
        return
    mark = schema.get(_MARK)
    if isinstance(mark, str) and path:
        yield _PARAM + mark.lower(), path
    properties = schema.get("properties")
    if isinstance(properties, dict):
        for name, inner in properties.items():
            yield from _marks(inner, (*path, name))


def _at(arguments: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = arguments
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
