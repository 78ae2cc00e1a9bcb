"""LabelSelector of Kubernetes: ``matchLabels`` and ``matchExpressions``, compiled once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from countersign.policy.logic import Unreadable, block, items, text, texts

__all__ = ["Selector", "compile_selector"]

Selector = Callable[[Mapping[str, str]], bool]

_FIELDS: Final = frozenset({"matchLabels", "matchExpressions"})
_EXPRESSION: Final = frozenset({"key", "operator", "values"})


def compile_selector(value: Any) -> Selector:
    """Return a test on labels; raise ``Unreadable`` for an empty selector or one that this replica cannot read."""
    selector = block(value, _FIELDS)
    tests: list[Selector] = []
    if "matchLabels" in selector:
        tests.append(_labels(selector["matchLabels"]))
    if "matchExpressions" in selector:
        tests.extend(_expression(entry) for entry in items(selector["matchExpressions"]))
    if not tests:
        raise Unreadable
    return lambda labels: all(test(labels) for test in tests)


def _labels(value: Any) -> Selector:
    if not isinstance(value, Mapping) or not value:
        raise Unreadable
    wanted = dict(value)
    if not all(isinstance(key, str) and isinstance(entry, str) for key, entry in wanted.items()):
        raise Unreadable
    return lambda labels: all(labels.get(key) == entry for key, entry in wanted.items())


def _expression(value: Any) -> Selector:
    entry = block(value, _EXPRESSION)
    key, operator = text(entry.get("key")), entry.get("operator")
    if operator in ("Exists", "DoesNotExist"):
        if "values" in entry:
            raise Unreadable
        wanted = operator == "Exists"
        return lambda labels: (key in labels) is wanted
    if operator not in ("In", "NotIn"):
        raise Unreadable
    listed = items(entry.get("values"))
    values = texts([one for one in listed if one != ""]) if any(one != "" for one in listed) else frozenset()
    values |= {""} if "" in listed else frozenset()
    if operator == "In":
        return lambda labels: labels.get(key) in values
    return lambda labels: labels.get(key) not in values
