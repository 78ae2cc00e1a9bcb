"""A tool's ``inputSchema``: JSON Schema 2020-12, no remote references, names that it does not give refused (crds.md 3.7)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any, Final
from urllib.parse import unquote

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema.validators import extend
from referencing import Registry

from countersign.policy.patterns import KEYWORDS, pattern_fault
from countersign.policy.plain_schema import NotPlain, plain_check

__all__ = ["ArgumentCheck", "compile_schema", "schema_fault"]

ArgumentCheck = Callable[[Any], bool]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
# Where schemas stand inside a schema: as a value, in a list, in an object.
_ONE: Final = frozenset(
    {
        "items",
        "contains",
        "additionalProperties",
        "propertyNames",
        "unevaluatedItems",
        "unevaluatedProperties",
        "not",
        "if",
        "then",
        "else",
    }
)
_LIST: Final = frozenset({"prefixItems", "allOf", "anyOf", "oneOf"})
_MAP: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs"})
# These look at the same object as the schema that they stand in.
_IN_PLACE: Final = frozenset({"allOf", "anyOf", "oneOf", "if", "then", "else", "not", "dependentSchemas"})
_REFERENCES: Final = ("$ref", "$dynamicRef")
# With none of these, refusing more inside can only refuse more outside: one pass is enough.
_NOT_MONOTONE: Final = frozenset({"not", "if", "oneOf", "contains", "dependentSchemas", *_REFERENCES})
_DEPTH_MAX: Final = 64
_STEPS_MAX: Final = 50_000
"""Keywords that one evaluation may ask: references multiply, and while they do nothing else is decided (E3)."""


class _TooMuch(Exception):
    """Ends an evaluation that would take too long."""


class _Steps:
    """What is left of the evaluation that runs now; one at a time, as nothing in it waits."""

    left = 0

    @classmethod
    def spend(cls, steps: int) -> None:
        cls.left -= steps
        if cls.left < 0:
            raise _TooMuch


def _metered(check: Callable[..., Any], cost: Callable[[Any, Any], int]) -> Callable[..., Any]:
    def metered(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        _Steps.spend(cost(value, instance))
        return check(validator, value, instance, schema)

    return metered


def _comparisons(_value: Any, instance: Any) -> int:
    """Count for ``uniqueItems``: what cannot be sorted is compared each with each."""
    if not isinstance(instance, list) or all(isinstance(one, str) for one in instance):
        return 1
    return 1 + len(instance) ** 2 // 2


_COSTS: Final[dict[str, Callable[[Any, Any], int]]] = {
    "uniqueItems": _comparisons,
    "enum": lambda value, _instance: len(value),
    **dict.fromkeys(_REFERENCES, lambda _value, _instance: 20),  # each is looked up anew
}
_Validator: Final = extend(  # type: ignore[no-untyped-call]  # what it returns is used as Any
    Draft202012Validator,
    {
        keyword: _metered(check, _COSTS.get(keyword, lambda _value, _instance: 1))
        for keyword, check in {**Draft202012Validator.VALIDATORS, **KEYWORDS}.items()
    },
)


def schema_fault(schema: Any) -> str | None:
    """Say why ``schema`` cannot be an ``inputSchema`` (path and keyword), or return None."""
    if not isinstance(schema, Mapping):
        return "/: not an object"
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = "/" + "/".join(str(part) for part in error.absolute_path)
        return f"{where}: {error.validator}"
    except Exception:  # noqa: BLE001 - a schema so odd that the checker fails is not one that we evaluate
        return "/: cannot be checked"
    faults = chain(_reference_faults(schema, "", 0), _hidden_dialects(schema, "", 0), _pattern_faults(schema, ""))
    return next(faults, None) or _unevaluated_fault(schema)


def _reference_faults(schema: Any, where: str, depth: int) -> Iterator[str]:
    if depth > _DEPTH_MAX:
        yield f"{where or '/'}: nested too deeply"
        return
    if not isinstance(schema, Mapping):
        return
    if depth and ("$schema" in schema or "$id" in schema):
        yield f"{where}: $schema and $id belong to the top"
    if schema.get("$schema", _DIALECT) != _DIALECT:
        yield f"{where}/$schema: only {_DIALECT}"
    for keyword in _REFERENCES:
        if keyword in schema and not str(schema[keyword]).startswith("#"):
            yield f"{where}/{keyword}: only references into this schema"
    for name, inner in _inner(schema):
        yield from _reference_faults(inner, f"{where}/{name}", depth + 1)


def _hidden_dialects(value: Any, where: str, depth: int) -> Iterator[str]:
    """Refuse ``$schema`` wherever a reference could find it: under it the evaluation's steps would not be counted."""
    if depth > _DEPTH_MAX:
        yield f"{where}: nested too deeply"
    elif isinstance(value, Mapping):
        if depth and isinstance(value.get("$schema"), str):
            yield f"{where}: $schema and $id belong to the top"
        for name, inner in value.items():
            yield from _hidden_dialects(inner, f"{where}/{name}", depth + 1)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _hidden_dialects(inner, f"{where}/{place}", depth + 1)


def _pattern_faults(schema: Any, where: str) -> Iterator[str]:
    """Yield what is wrong with the patterns of ``schema``, whose depth is bounded by now."""
    if not isinstance(schema, Mapping):
        return
    patterns = [("pattern", schema["pattern"])] if "pattern" in schema else []
    patterns += [(f"patternProperties/{pattern}", pattern) for pattern in schema.get("patternProperties", ())]
    for name, pattern in patterns:
        if (fault := pattern_fault(pattern)) is not None:
            yield f"{where}/{name}: {fault}"
    for name, inner in _inner(schema):
        yield from _pattern_faults(inner, f"{where}/{name}")


def _unevaluated_fault(schema: Mapping[str, Any]) -> str | None:
    """Refuse the one combination in which the library would match patterns by Python's own engine."""
    if "patternProperties" not in _keywords(schema):
        return None
    try:
        both = "unevaluatedProperties" in _keywords(_closed(schema))
    except RecursionError:
        return "/: references that lead too far"
    return "/: patternProperties together with allOf, $ref and their like, or unevaluatedProperties" if both else None


def _inner(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for keyword, value in schema.items():
        if keyword in _ONE:
            yield keyword, value
        elif keyword in _LIST and isinstance(value, list):
            yield from ((f"{keyword}/{place}", one) for place, one in enumerate(value))
        elif keyword in _MAP and isinstance(value, Mapping):
            yield from ((f"{keyword}/{name}", one) for name, one in value.items())


def compile_schema(schema: Mapping[str, Any]) -> ArgumentCheck:
    """Return a test of arguments against a schema without fault (:func:`schema_fault`).

    The test is False for anything that the schema refuses, for a name that an object's schema gives no property for unless
    it says ``additionalProperties: true``, and for arguments that cannot be evaluated, or not in a bounded number of steps.
    """
    closed = _closed(schema)
    strict = _validator(closed)
    if _keywords(schema).isdisjoint(_NOT_MONOTONE):
        return _quick(closed, lambda arguments: _valid(strict, arguments))
    # Closing a schema inside `not` or `if` would turn a refusal round, so the schema as written must agree as well.
    plain = _validator(schema)
    return lambda arguments: _valid(plain, arguments) and _valid(strict, arguments)


def _quick(closed: Mapping[str, Any], whole: ArgumentCheck) -> ArgumentCheck:
    """Return the test that says the same as ``whole`` in less time, if there is one."""
    try:
        check = plain_check({name: value for name, value in closed.items() if name != "$schema"}, steps=_STEPS_MAX)
    except NotPlain:
        return whole

    def quick(arguments: Any) -> bool:
        try:
            return isinstance(arguments, dict) and check(arguments)
        except NotPlain:
            return whole(arguments)

    return quick


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema with every object in it closed to names that it does not give."""
    closed = copy.deepcopy(dict(schema))
    _close(closed, schema, {}, same_object=False)
    return closed


def _validator(schema: Mapping[str, Any]) -> Any:
    return _Validator({name: value for name, value in schema.items() if name != "$schema"}, registry=Registry())


def _valid(validator: Any, arguments: Any) -> bool:
    if not isinstance(arguments, dict):
        return False
    _Steps.left = _STEPS_MAX
    try:
        return bool(validator.is_valid(arguments))
    except Exception:  # noqa: BLE001 - an endless reference, too many steps, a pattern that Python cannot read: not valid
        return False


def _keywords(schema: Any) -> set[str]:
    if not isinstance(schema, Mapping):
        return set()
    return set(schema).union(*(_keywords(inner) for _name, inner in _inner(schema)))


def _close(schema: Any, root: Mapping[str, Any], known: dict[str, bool], *, same_object: bool) -> None:
    """Close each object schema, in place; ``same_object``: whoever leads here looks at the same object and closes it."""
    if not isinstance(schema, dict):
        return
    for keyword, value in schema.items():
        for one in _schemas(keyword, value):
            _close(one, root, known, same_object=keyword in _IN_PLACE or keyword == "$defs")
    if schema.get("additionalProperties") is True:
        return
    if "properties" in schema and "additionalProperties" in schema:
        schema["additionalProperties"] = False
    if same_object:
        return
    if _IN_PLACE.isdisjoint(schema) and not any(keyword in schema for keyword in _REFERENCES):
        if "properties" in schema:
            schema["additionalProperties"] = False
    elif _gives_properties(schema, root, known):
        schema["unevaluatedProperties"] = False


def _schemas(keyword: str, value: Any) -> list[Any]:
    """Return the schemas that stand under ``keyword``."""
    if keyword in _MAP and isinstance(value, dict):
        return list(value.values())
    if keyword in _LIST and isinstance(value, list):
        return value
    return [value] if keyword in _ONE else []


def _gives_properties(schema: Any, root: Mapping[str, Any], known: dict[str, bool]) -> bool:
    """Whether this schema, or one in it that looks at the same object, gives ``properties``.

    ``known`` is what was found behind references so far: each is followed once, however many lead there.
    """
    followed: set[str] = set()
    found = _reaches_properties(schema, root, known, followed)
    if not found:
        known.update(dict.fromkeys(followed, False))
    return found


def _reaches_properties(schema: Any, root: Mapping[str, Any], known: dict[str, bool], followed: set[str]) -> bool:
    if not isinstance(schema, Mapping):
        return False
    if "properties" in schema:
        return True
    for keyword in _REFERENCES:
        reference = schema.get(keyword)
        if isinstance(reference, str) and reference not in followed and known.get(reference, True):
            followed.add(reference)
            target = _target(reference, root)
            # What cannot be followed here may give properties.
            if known.get(reference) or target is None or _reaches_properties(target, root, known, followed):
                known[reference] = True
                return True
    return any(
        _reaches_properties(one, root, known, followed)
        for keyword, value in schema.items()
        if keyword in _IN_PLACE
        for one in _schemas(keyword, value)
    )


def _target(reference: str, root: Mapping[str, Any]) -> Any:
    if not reference.startswith("#/"):
        return root if reference == "#" else None
    found: Any = root
    for segment in unquote(reference[2:]).split("/"):
        name = segment.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found
