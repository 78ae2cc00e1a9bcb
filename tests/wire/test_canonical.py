"""RFC 8785 bytes: whichever encoder writes them, they are those of the RFC's own library, and so are the refusals."""

from __future__ import annotations

import enum
import math
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from countersign.canonical import CanonicalizationError, canonical, is_certain


def answer(encode: Any, value: Any) -> bytes | type[Exception]:
    try:
        return bytes(encode(value))
    except Exception as error:  # noqa: BLE001 - which one it is, is what is compared
        return type(error)


_KEYS = st.text(max_size=6) | st.text(st.characters(max_codepoint=127), max_size=6)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**55), 2**55) | st.floats() | st.text() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(_KEYS, inner, max_size=5)
        | st.dictionaries(st.integers(0, 3) | st.booleans(), inner, max_size=1)
    ),
    max_leaves=25,
)


@given(_VALUES)
@example({"\ue000": 1, "\U0001f600": 2})
@example({"é": 1, "z": 2, "Z": 3})
@example("".join(map(chr, range(0x100))))
@example({"a": 2**53, "b": 1})
@example({"a": -(2**53) + 1})
@example(["\ud800"])
@example({"\ud800": 1})
@example([math.nan])
@example({"b": 1e21, "a": [0.0, -0.0, 1.0]})
def test_both_encoders_write_the_same(value: Any) -> None:
    assert answer(canonical, value) == answer(rfc8785.dumps, value)


class Word(enum.StrEnum):
    HELLO = "hello"


class Name(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [
        Word.HELLO,
        {"a": Word.HELLO},
        {Name("a"): 1},
        [Name("b")],
        {b"a": 1},
        {None: 1},
        {1: 2},
        [object()],
        1.5,
        {"a": 1.0},
    ],
)
def test_what_is_not_plain_is_the_librarys(value: Any) -> None:
    assert answer(canonical, value) == answer(rfc8785.dumps, value)


def test_what_is_nested_too_deeply_is_refused_and_not_cut() -> None:
    def nested(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = [value]
        return value

    assert canonical(nested(300)) == b"[" * 300 + b"1" + b"]" * 300
    with pytest.raises(RecursionError):
        canonical(nested(100_000))


def test_no_float_and_no_name_outside_of_ascii_is_certain() -> None:
    assert is_certain({"a": [1, "é", None, True, {"b": ()}]})
    assert not is_certain({"a": [1, 1.0]})
    assert not is_certain({"é": 1})


def test_a_value_without_a_form_is_a_value_error() -> None:
    with pytest.raises(CanonicalizationError):
        canonical({"a": 2**53})


def test_a_value_that_contains_itself_is_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)

    with pytest.raises(RecursionError):
        canonical({"a": ring})
