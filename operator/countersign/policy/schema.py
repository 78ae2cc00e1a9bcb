"""A tool's ``inputSchema``: JSON Schema 2020-12, no remote references, names that it does not give refused (crds.md 3.7)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry

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
    return next(_reference_faults(schema, "", 0), None)


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
    it says ``additionalProperties: true``, and for arguments that cannot be evaluated.
    """
    closed = copy.deepcopy(dict(schema))
    _close(closed, schema, same_object=False)
    strict = _validator(closed)
    if _keywords(schema).isdisjoint(_NOT_MONOTONE):
        return lambda arguments: _valid(strict, arguments)
    # Closing a schema inside `not` or `if` would turn a refusal round, so the schema as written must agree as well.
    plain = _validator(schema)
    return lambda arguments: _valid(plain, arguments) and _valid(strict, arguments)


def _validator(schema: Mapping[str, Any]) -> Draft202012Validator:
    return Draft202012Validator(schema, registry=Registry())


def _valid(validator: Draft202012Validator, arguments: Any) -> bool:
    if not isinstance(arguments, dict):
        return False
    try:
        return validator.is_valid(arguments)
    except Exception:  # noqa: BLE001 - an endless reference, a pattern that Python cannot read: not valid
        return False


def _keywords(schema: Any) -> set[str]:
    if not isinstance(schema, Mapping):
        return set()
    return set(schema).union(*(_keywords(inner) for _name, inner in _inner(schema)))


def _close(schema: Any, root: Mapping[str, Any], *, same_object: bool) -> None:
    """Close each object schema, in place; ``same_object``: whoever leads here looks at the same object and closes it."""
    if not isinstance(schema, dict):
        return
    for keyword, value in schema.items():
        for one in _schemas(keyword, value):
            _close(one, root, same_object=keyword in _IN_PLACE or keyword == "$defs")
    if schema.get("additionalProperties") is True:
        return
    if "properties" in schema and "additionalProperties" in schema:
        schema["additionalProperties"] = False
    if same_object:
        return
    if _IN_PLACE.isdisjoint(schema) and not any(keyword in schema for keyword in _REFERENCES):
        if "properties" in schema:
            schema["additionalProperties"] = False
    elif _gives_properties(schema, root, frozenset()):
        schema["unevaluatedProperties"] = False


def _schemas(keyword: str, value: Any) -> list[Any]:
    """Return the schemas that stand under ``keyword``."""
    if keyword in _MAP and isinstance(value, dict):
        return list(value.values())
    if keyword in _LIST and isinstance(value, list):
        return value
    return [value] if keyword in _ONE else []


def _gives_properties(schema: Any, root: Mapping[str, Any], followed: frozenset[str]) -> bool:
    """Whether this schema, or one in it that looks at the same object, gives ``properties``."""
    if not isinstance(schema, Mapping):
        return False
    if "properties" in schema:
        return True
    for keyword in _REFERENCES:
        reference = schema.get(keyword)
        if isinstance(reference, str) and reference not in followed:
            target = _target(reference, root)
            # What cannot be followed here may give properties.
            if target is None or _gives_properties(target, root, followed | {reference}):
                return True
    return any(
        _gives_properties(one, root, followed)
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
