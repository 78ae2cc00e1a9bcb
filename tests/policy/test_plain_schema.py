"""The schemas that are compiled: whatever they say of arguments, the library says the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from countersign.policy.plain_schema import LONG, NotPlain, plain_check
from countersign.policy.schema import _STEPS_MAX, _closed, _valid, _validator, compile_schema, schema_fault

_NAMES = st.sampled_from(["a", "b", "charge", "A"])
_WORDS = st.sampled_from(["", "x", "ch_1", "true", "é"])
_NUMBERS = st.integers(-3, 5) | st.sampled_from([0.0, 1.0, 1.5, -0.5])
_TYPES = st.sampled_from(["array", "boolean", "integer", "null", "number", "object", "string"])
_SIZES = st.integers(0, 3)


def _parts(inner: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    return {
        "type": _TYPES | st.lists(_TYPES, min_size=1, max_size=3, unique=True),
        "properties": st.dictionaries(_NAMES, inner, max_size=3),
        "required": st.lists(_NAMES, max_size=2, unique=True),
        "additionalProperties": st.booleans(),
        "enum": st.lists(_WORDS, min_size=1, max_size=3, unique=True),
        "items": inner,
        "description": st.just("words"),
        "x-mcp-header": st.just("Header"),
        **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _NUMBERS),
        **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _SIZES),
    }


def _some(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    parts = _parts(inner)
    names = st.lists(st.sampled_from(sorted(parts)), max_size=4, unique=True)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({name: parts[name] for name in chosen}))


SCHEMAS = st.recursive(st.just(True) | _some(st.just(True)), _some, max_leaves=8).filter(lambda one: one is not True)
VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)
ARGUMENTS = st.dictionaries(_NAMES, VALUES, max_size=4) | VALUES


@given(SCHEMAS, st.lists(ARGUMENTS, min_size=1, max_size=6))
def test_a_compiled_schema_says_what_the_library_says(schema: dict[str, Any], values: list[Any]) -> None:
    assume(schema_fault(schema) is None)
    fits, strict = compile_schema(schema), _validator(_closed(schema))

    for value in values:
        assert fits(value) is _valid(strict, value), value


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "^a"},
        {"enum": ["a", 1]},
        {"const": 1},
        {"anyOf": [{"type": "string"}]},
        {"$ref": "#/$defs/a", "$defs": {"a": True}},
        {"additionalProperties": {"type": "string"}},
        {"properties": {"a": False}},
        {"prefixItems": [True]},
        {"uniqueItems": True},
        {"unheard-of": 1},
    ],
    ids=str,
)
def test_any_other_keyword_is_the_librarys(schema: dict[str, Any]) -> None:
    with pytest.raises(NotPlain):
        plain_check(schema, steps=_STEPS_MAX)
    with pytest.raises(NotPlain):
        plain_check({"properties": {"a": schema}}, steps=_STEPS_MAX)


def test_a_schema_whose_evaluation_could_take_too_long_is_the_librarys() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(3):
        schema = {"items": schema}

    with pytest.raises(NotPlain):
        plain_check(schema, steps=_STEPS_MAX)


def test_a_long_array_is_the_librarys() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}}}}
    fits = compile_schema(schema)

    assert fits({"a": [1] * (LONG + 1)})
    assert not fits({"a": [*[1] * LONG, "x"]})
    assert not fits({"a": [1] * 100_000})  # more steps than any evaluation may take
    with pytest.raises(NotPlain):
        plain_check(_closed(schema), steps=_STEPS_MAX)({"a": [1] * (LONG + 1)})
