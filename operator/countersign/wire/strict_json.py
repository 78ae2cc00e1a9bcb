"""The one strict JSON parser (wire.md 2.1): what it accepts means the same to every RFC 8259 parser.

A regular expression for each token and one function for each kind of value. Nothing is repaired: the first failure, read
from left to right, is the answer. Values are plain Python ones; an integral number of any spelling is an ``int``.
Most texts have nothing doubtful: those the standard library reads, under the same rules for names and numbers.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any, Final

from countersign.errors import Invalid

__all__ = ["MAX_BODY", "MAX_DEPTH", "MAX_MEMBERS", "MAX_NUMBER", "parse_json", "parse_value"]

MAX_BODY: Final = 262_144
"""Bytes of a call's body unless the setting says otherwise (wire.md 11)."""
MAX_DEPTH: Final = 32
MAX_MEMBERS: Final = 10_000
MAX_NUMBER: Final = 64
"""Characters of a number's text."""

_LARGEST: Final = 2**53 - 1
_ALWAYS_WHOLE: Final = 16
"""Fewer digits than that are never more than the largest."""
_BOMS: Final = (b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe", b"\x00\x00\xfe\xff")
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_COLON: Final = re.compile(r"[ \t\n\r]*:[ \t\n\r]*")
_IN_OBJECT: Final = re.compile(r"[ \t\n\r]*([,}])[ \t\n\r]*")
_IN_ARRAY: Final = re.compile(r"[ \t\n\r]*([,\]])[ \t\n\r]*")
_PLAIN: Final = re.compile(r'[^"\\\x00-\x1f]*')
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?=[ \t\n\r,\]}]|\Z)")
_WHOLE: Final = re.compile(r'(?:\\[\x20-\x7e][^"\\\x00-\x1f]*)*"')
"""The rest of a string that has escapes, from the first of them on."""
_HEX: Final = re.compile(r"[0-9A-Fa-f]{4}")
_LOW: Final = re.compile(r"\\u([Dd][C-Fc-f][0-9A-Fa-f]{2})")
_LITERALS: Final[dict[str, tuple[str, Any]]] = {"t": ("true", True), "f": ("false", False), "n": ("null", None)}
_ESCAPES: Final = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HIGH_FIRST, _LOW_FIRST, _LOW_LAST = 0xD800, 0xDC00, 0xDFFF


def parse_json(data: bytes, *, max_bytes: int = MAX_BODY) -> dict[str, Any]:
    """Return the object that ``data`` is.

    Raises
    ------
    Invalid
        ``parse.*``; the detail gives a place, never text.

    """
    value = parse_value(data, max_bytes=max_bytes)
    if not isinstance(value, dict):
        raise Invalid("parse.type", "the top level is no object")
    return value


def parse_value(data: bytes, *, max_bytes: int = MAX_BODY) -> Any:
    """Return the value of any type that ``data`` is; raises as :func:`parse_json`, but never ``parse.type``."""
    if len(data) > max_bytes:
        raise Invalid("parse.size", f"at most {max_bytes} bytes")
    if data.startswith(_BOMS):
        raise Invalid("parse.bom", "a byte order mark")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid("parse.utf8", f"no UTF-8 at byte {error.start}") from None
    found = _quickly(text)
    if found is not _UNSURE:
        return found
    reader = _Reader(text)
    value, at = reader.value(_skip(text, 0), MAX_DEPTH)
    if _skip(text, at) != len(text):
        raise _fault("trailing", at)
    return value


def _quickly(text: str) -> Any:
    """Return the value of a text that is good for certain, as the standard library reads it; ``_UNSURE`` for any other.

    Without a backslash a string is what it spells. Every brace, bracket and comma is counted as if it stood outside of one.
    """
    containers = text.count("{") + text.count("[")
    if "\\" in text or containers > MAX_DEPTH or containers + text.count(",") > MAX_MEMBERS:
        return _UNSURE
    try:
        value, end = _SCAN(text, _skip(text, 0))
    except (ValueError, Invalid, RecursionError, StopIteration):
        return _UNSURE
    return value if end == len(text) or _skip(text, end) == len(text) else _UNSURE


def _skip(text: str, at: int) -> int:
    return _expect(_SPACE, text, at).end()


def _expect(pattern: re.Pattern[str], text: str, at: int) -> re.Match[str]:
    match = pattern.match(text, at)
    if match is None:
        raise _fault("syntax", at)
    return match


def _fault(name: str, at: int) -> Invalid:
    return Invalid(f"parse.{name}", f"at character {at}")


class _Reader:
    """One text and how many members and elements were met in it. Each method returns what it read and where that ends."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._members = 0

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        """Read the value that starts at ``at``; ``depth`` more containers may open."""
        first = self._text[at : at + 1]
        if first == '"':
            return self._string(at + 1)
        if first in ("{", "["):
            if not depth:
                raise _fault("depth", at)
            return self._object(at + 1, depth - 1) if first == "{" else self._array(at + 1, depth - 1)
        if first in _LITERALS:
            word, value = _LITERALS[first]
            if not self._text.startswith(word, at):
                raise _fault("syntax", at)
            return value, at + len(word)
        match = _expect(_NUMBER, self._text, at)
        return _number(match[0], at), match.end()

    def _object(self, at: int, depth: int) -> tuple[dict[str, Any], int]:
        text = self._text
        found: dict[str, Any] = {}
        folded: set[str] = set()
        at = _skip(text, at)
        if text.startswith("}", at):
            return found, at + 1
        while True:
            if not text.startswith('"', at):
                raise _fault("syntax", at)
            self._count(at)
            start = at
            name, at = self._string(at + 1)
            folded.add(name.casefold())
            if len(folded) == len(found):
                raise _fault("duplicate", start)
            at = _expect(_COLON, text, at).end()
            found[name], at = self.value(at, depth)
            after = _expect(_IN_OBJECT, text, at)
            if after[1] == "}":
                return found, after.end(1)
            at = after.end()

    def _array(self, at: int, depth: int) -> tuple[list[Any], int]:
        text = self._text
        found: list[Any] = []
        at = _skip(text, at)
        if text.startswith("]", at):
            return found, at + 1
        while True:
            self._count(at)
            item, at = self.value(at, depth)
            found.append(item)
            after = _expect(_IN_ARRAY, text, at)
            if after[1] == "]":
                return found, after.end(1)
            at = after.end()

    def _count(self, at: int) -> None:
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise _fault("members", at)

    def _string(self, at: int) -> tuple[str, int]:
        """Read a string from behind its opening quote; piece by piece only if it is not plainly good."""
        text = self._text
        end = _expect(_PLAIN, text, at).end()
        if text.startswith('"', end):
            return text[at:end], end + 1
        whole = _WHOLE.match(text, end)
        value = None if whole is None else _unescaped(text[at - 1 : whole.end()])
        if whole is not None and value is not None:
            return value, whole.end()
        return self._string_by_piece(at)

    def _string_by_piece(self, at: int) -> tuple[str, int]:
        """Read a string as the page words it, which finds the first fault."""
        text = self._text
        parts: list[str] = []
        while True:
            end = _expect(_PLAIN, text, at).end()
            parts.append(text[at:end])
            if text.startswith('"', end):
                return "".join(parts), end + 1
            if not text.startswith("\\", end):
                raise _fault("syntax", end)
            escaped, at = self._escape(end)
            parts.append(escaped)

    def _escape(self, at: int) -> tuple[str, int]:
        """Read the escape whose backslash is at ``at``; a pair of surrogates is one escape."""
        text = self._text
        kind = text[at + 1 : at + 2]
        if kind in _ESCAPES:
            return _ESCAPES[kind], at + 2
        digits = _HEX.match(text, at + 2) if kind == "u" else None
        if digits is None:
            raise _fault("syntax", at)
        point = int(digits[0], 16)
        if not point:
            raise _fault("nul", at)
        if not _HIGH_FIRST <= point <= _LOW_LAST:
            return chr(point), at + 6
        low = _LOW.match(text, at + 6) if point < _LOW_FIRST else None
        if low is None:
            raise _fault("surrogate", at)
        return chr(0x10000 + ((point - _HIGH_FIRST) << 10) + int(low[1], 16) - _LOW_FIRST), at + 12


def _unescaped(token: str) -> str | None:
    """Return what the quoted ``token`` spells, as the standard library reads it; None for anything but plain good text."""
    try:
        value: str = json.loads(token)
        value.encode()
    except ValueError:
        return None
    return None if "\0" in value else value


def _number(text: str, at: int) -> int | float:
    """Return the number that ``text`` spells, if binary64 holds exactly its shortest form (wire.md 2.1.5)."""
    if len(text) > MAX_NUMBER:
        raise _fault("number_length", at)
    mantissa = text.lower().partition("e")[0]
    if not mantissa.strip("-0."):
        if text[0] == "-":
            raise _fault("negative_zero", at)
        return 0
    if text.lstrip("-").isdigit():
        whole = int(text)
        if not -_LARGEST <= whole <= _LARGEST:
            raise _fault("number_range", at)
        return whole
    value = float(text)
    if not -_LARGEST <= value <= _LARGEST:
        raise _fault("number_range", at)
    if not value:
        raise _fault("number_precision", at)
    exact = Decimal(text)  # value is finite and no zero, so the exponent is small
    if not -_LARGEST <= exact <= _LARGEST:
        raise _fault("number_range", at)
    if exact != Decimal(repr(value)):
        raise _fault("number_precision", at)
    return int(value) if value.is_integer() else value


def _number_or_fault(text: str) -> int | float:
    if len(text) < _ALWAYS_WHOLE and text.isascii() and text.isdigit():
        return int(text)
    if not text.isascii():
        raise _fault("syntax", 0)
    return _number(text, 0)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > 1 and len({name.casefold() for name, _ in pairs}) < len(pairs):
        raise _fault("duplicate", 0)
    return dict(pairs)


def _no_such_number(_text: str) -> Any:
    raise _fault("syntax", 0)


_UNSURE: Final = object()
_SCAN: Final = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_float=_number_or_fault,
    parse_int=_number_or_fault,
    parse_constant=_no_such_number,
).scan_once  # type: ignore[attr-defined]  # what ``decode`` calls between two looks for spaces
