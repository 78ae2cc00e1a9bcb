"""RFC 8785 bytes: what digests and audit records are of.

The RFC's own library is the rule. A compiled encoder writes what has the same bytes by both for certain, which is nearly
everything that is written here: it differs in floats, and in the order of names outside ASCII.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
import rfc8785

__all__ = ["CanonicalizationError", "canonical", "canonical_of_certain", "is_certain"]

CanonicalizationError = rfc8785.CanonicalizationError
"""A ValueError: a value that JSON, or binary64, does not hold."""

_SCALARS: Final = frozenset({str, int, bool, type(None)})
_CONTAINERS_MAX: Final = 20_000
"""With more than that, as in a value that contains itself, nothing is certain."""
_OPTIONS: Final = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER | orjson.OPT_PASSTHROUGH_DATETIME


def canonical(value: Any) -> bytes:
    """Return the RFC 8785 bytes of ``value``.

    Raises
    ------
    CanonicalizationError
        For a value without such a form; RecursionError for one that is nested too deeply.

    """
    return _written(value, certain=is_certain(value))


def canonical_of_certain(value: Any) -> bytes:
    """Return the same of a value of whose parts somebody knows what :func:`is_certain` says."""
    return _written(value, certain=True)


def _written(value: Any, *, certain: bool) -> bytes:
    if certain:
        try:
            return orjson.dumps(value, option=_OPTIONS)
        except orjson.JSONEncodeError:
            pass  # too deep, an integer of more than 53 bits, half a surrogate pair: the library says what it is
    data: bytes = rfc8785.dumps(value)
    return data


def is_certain(value: Any) -> bool:
    """Tell whether both write the same: exact types only, no float, and names in ASCII, which both sort alike."""
    if type(value) in _SCALARS:
        return True
    if type(value) is dict and _SCALARS.issuperset(map(type, value.values())):
        return _plain_names(value)
    pending = [value]
    for _ in range(_CONTAINERS_MAX):
        container = pending.pop()
        kind = type(container)
        if kind is dict:
            if not _plain_names(container):
                return False
            container = container.values()
        elif kind is not list and kind is not tuple:
            return False
        if not _SCALARS.issuperset(map(type, container)):
            pending += [one for one in container if type(one) not in _SCALARS]
        if not pending:
            return True
    return False


def _plain_names(value: dict[Any, Any]) -> bool:
    try:
        return "".join(value).isascii()
    except TypeError:
        return False
