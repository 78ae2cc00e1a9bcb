"""Most input schemas say only what an object's members are: those are compiled to functions, for they are asked at every call.

The library's evaluation (``schema``) is the rule; this says the same of the keywords that it knows, and nothing of any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, Final

__all__ = ["LONG", "NotPlain", "plain_check"]

Check = Callable[[Any], bool]

LONG: Final = 100
"""Elements of an array that are looked at here; with more of them it is the library's to count its steps."""

_ANNOTATIONS: Final = frozenset(
    {
        "$comment",
        "contentEncoding",
        "contentMediaType",
        "default",
        "deprecated",
        "description",
        "examples",
        "format",
        "readOnly",
        "title",
        "writeOnly",
    }
)


class NotPlain(Exception):
    """A schema, or an argument, that this file says nothing about."""


def plain_check(schema: Any, *, steps: int) -> Check:
    """Return the test of a value against ``schema``, which raises NotPlain for an array that is too long.

    ``steps`` are what the library's evaluation may take: it must not be able to take more, whatever the value.

    Raises
    ------
    NotPlain
        For a schema with any other keyword, form of a keyword, or number of steps.

    """
    check, worst = _compile(schema)
    if worst > steps:
        raise NotPlain
    return check


def _compile(schema: Any) -> tuple[Check, int]:
    """Return the test, and how many keywords one evaluation can ask at most."""
    if schema is True:
        return _anything, 0
    if not isinstance(schema, dict):
        raise NotPlain
    checks: list[Check] = []
    worst = len(schema)
    for keyword, value in schema.items():
        if keyword in _KEYWORDS:
            checks.append(_KEYWORDS[keyword](value))
        elif keyword == "properties":
            members = {name: _compile(inner) for name, inner in value.items()}
            worst += sum(inner for _, inner in members.values())
            checks.append(_properties([(name, check) for name, (check, _) in members.items()]))
        elif keyword == "additionalProperties":
            checks += _closed(value, schema.get("properties", {}))
        elif keyword == "items":
            check, inner = _compile(value)
            worst += LONG * inner
            checks.append(_items(check))
        elif keyword not in _ANNOTATIONS and not keyword.startswith("x-"):
            raise NotPlain
    nothing: Check = _anything
    return reduce(_both, checks, nothing), worst


def _anything(_value: Any) -> bool:
    return True


def _both(one: Check, other: Check) -> Check:
    return other if one is _anything else lambda value: one(value) and other(value)


def _properties(members: list[tuple[str, Check]]) -> Check:
    def check(value: Any) -> bool:
        if isinstance(value, dict):
            for name, inner in members:
                if name in value and not inner(value[name]):
                    return False
        return True

    return check


def _closed(allowed: Any, members: Mapping[str, Any]) -> list[Check]:
    if allowed is True:
        return []
    if allowed is not False:
        raise NotPlain
    names = frozenset(members)
    return [lambda value: not isinstance(value, dict) or names.issuperset(value)]


def _items(inner: Check) -> Check:
    def check(value: Any) -> bool:
        if not isinstance(value, list):
            return True
        if len(value) > LONG:
            raise NotPlain
        return all(map(inner, value))

    return check


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and (isinstance(value, int) or value.is_integer())


_TYPES: Final[dict[str, Check]] = {
    "array": lambda value: isinstance(value, list),
    "boolean": lambda value: isinstance(value, bool),
    "integer": _is_whole,
    "null": lambda value: value is None,
    "number": _is_number,
    "object": lambda value: isinstance(value, dict),
    "string": lambda value: isinstance(value, str),
}


def _type(names: Any) -> Check:
    if isinstance(names, str):
        return _TYPES[names]
    checks = [_TYPES[name] for name in names]
    return lambda value: any(check(value) for check in checks)


def _required(names: Any) -> Check:
    wanted = frozenset(names)
    return lambda value: not isinstance(value, dict) or wanted.issubset(value)


def _enum(values: Any) -> Check:
    if not all(isinstance(one, str) for one in values):
        raise NotPlain  # when a number equals a boolean is the library's to say
    known = frozenset(values)
    return lambda value: isinstance(value, str) and value in known


def _bound(kind: type, size: Callable[[Any], Any], good: Callable[[Any, Any], bool]) -> Callable[[Any], Check]:
    """Return the builder of a keyword that bounds ``size`` of values of ``kind``, and says nothing of others."""
    return lambda limit: lambda value: not isinstance(value, kind) or good(size(value), limit)


def _limit(good: Callable[[Any, Any], bool]) -> Callable[[Any], Check]:
    return lambda limit: lambda value: not _is_number(value) or good(value, limit)


def _least(size: Any, limit: Any) -> bool:
    return bool(size >= limit)


def _most(size: Any, limit: Any) -> bool:
    return bool(size <= limit)


_KEYWORDS: Final[dict[str, Callable[[Any], Check]]] = {
    "type": _type,
    "required": _required,
    "enum": _enum,
    "minimum": _limit(_least),
    "maximum": _limit(_most),
    "exclusiveMinimum": _limit(lambda value, limit: bool(value > limit)),
    "exclusiveMaximum": _limit(lambda value, limit: bool(value < limit)),
    "minLength": _bound(str, len, _least),
    "maxLength": _bound(str, len, _most),
    "minItems": _bound(list, len, _least),
    "maxItems": _bound(list, len, _most),
    "minProperties": _bound(dict, len, _least),
    "maxProperties": _bound(dict, len, _most),
}
