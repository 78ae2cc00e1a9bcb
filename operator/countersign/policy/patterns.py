"""The keywords of JSON Schema that take regular expressions, by RE2: linear in the text, whatever the pattern (E3).

Python's own engine can be kept busy for minutes by a few characters, and while it is, nothing else is decided. What RE2
cannot read (look-around, back references) is a fault of the schema.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import re2
from jsonschema.exceptions import ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["KEYWORDS", "pattern_fault"]

_LENGTH_MAX: Final = 1024


def pattern_fault(pattern: Any) -> str | None:
    """Say why ``pattern`` cannot be evaluated, or return None."""
    if not isinstance(pattern, str) or len(pattern) > _LENGTH_MAX:
        return f"a pattern has at most {_LENGTH_MAX} characters"
    try:
        _compiled(pattern)
    except (re2.error, UnicodeError):
        return "not a pattern that RE2 can read (no look-around, no back references)"
    return None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


def _found(pattern: str, text: str) -> bool:
    return _compiled(pattern).search(text) is not None


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    del schema
    if validator.is_type(instance, "string") and not _found(pattern, instance):
        yield ValidationError("does not match")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    del schema
    if not validator.is_type(instance, "object"):
        return
    for pattern, inner in patterns.items():
        for name, value in instance.items():
            if _found(pattern, name):
                yield from validator.descend(value, inner, path=name, schema_path=pattern)


def _additional_properties(validator: Any, inner: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    for name in _extras(instance, schema):
        yield from validator.descend(instance[name], inner, path=name)


def _extras(instance: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name in instance:
        if name not in named and not any(_found(pattern, name) for pattern in patterns):
            yield name


KEYWORDS: Final = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
}
"""Keyword to its check, as ``jsonschema`` takes them."""
