"""The strict parser: every vector, every limit from both sides, and what holds for any bytes at all."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wire_vectors import body_of, cases

from countersign.errors import Invalid
from countersign.wire import canonical, digest_of, parse_json, parse_value
from countersign.wire.strict_json import _UNSURE, _quickly, _Reader


def code_of(data: bytes, **limits: int) -> str:
    with pytest.raises(Invalid) as caught:
        parse_json(data, **limits)
    return caught.value.code


@pytest.mark.parametrize("case", cases("arguments", accept=True))
def test_accepted(case: dict[str, Any]) -> None:
    value = parse_json(body_of(case))

    assert digest_of(canonical(value)) == case["args"]
    if "canonical" in case:
        assert canonical(value) == base64.b64decode(case["canonical"])


@pytest.mark.parametrize("case", cases("arguments", accept=False))
def test_refused(case: dict[str, Any]) -> None:
    assert code_of(body_of(case)) == case["code"]


def test_the_vectors_are_all_there() -> None:
    assert (len(cases("arguments", accept=True)), len(cases("arguments", accept=False))) == (32, 79)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"a":-01}', "syntax"),
        ('{"a":-0.}', "syntax"),
        ('{"a":1.e5}', "syntax"),
        ('{"a":1e}', "syntax"),
        ('{"a":1e+}', "syntax"),
        ('{"a":1_000}', "syntax"),
        ('{"a":\u0661}', "syntax"),
        ('{"a":truely}', "syntax"),
        ('{"a":nul', "syntax"),
        ('{"a":"\\u00g0"}', "syntax"),
        ('{"a":"\\u 123"}', "syntax"),
        ('{"a":"\\', "syntax"),
        ('{"a"', "syntax"),
        ('{"a":1,"b"}', "syntax"),
        ('{,"a":1}', "syntax"),
        ('{"a":[,1]}', "syntax"),
        ('{"a":[}', "syntax"),
        ("{", "syntax"),
        ("[", "syntax"),
        (" ", "syntax"),
        ("\u2028{}", "syntax"),
        ("{}\u00a0", "trailing"),
        ("{}{}", "trailing"),
        ("1 2", "trailing"),
        ("true", "type"),
        ("-0", "negative_zero"),
        ('{"a":-0E-0}', "negative_zero"),
        ('{"\\u0000":1}', "nul"),
        ('{"a":"\\udbff\\ue000"}', "surrogate"),
        ('{"a":"\\udc00\\ud800"}', "surrogate"),
        ('{"a":"\\uD800\\n"}', "surrogate"),
        ('{"a":9007199254740991.4}', "number_range"),
        ('{"a":1e' + "9" * 60 + "}", "number_range"),
        ('{"a":-1e309}', "number_range"),
        ('{"a":1e-' + "9" * 60 + "}", "number_precision"),
        ('{"a":0.30000000000000001}', "number_precision"),
        ('{"a":' + "1" * 65 + "}", "number_length"),
        ('{"stra\u00dfe":1,"STRASSE":2}', "duplicate"),
    ],
)
def test_more_refusals(text: str, code: str) -> None:
    assert code_of(text.encode()) == f"parse.{code}"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"a":1,"a":-0}', "duplicate"),
        ('{"a":-0,"a":1}', "negative_zero"),
        ('{"a":"\\u0000\\ud800"}', "nul"),
        ('{"a":"\\ud800\\u0000"}', "surrogate"),
        ('{"a":1e400,}', "number_range"),
        ('{"a":,1e400}', "syntax"),
        ('{"a":1} {"a":-0}', "trailing"),
    ],
)
def test_the_first_failure_from_the_left_wins(text: str, code: str) -> None:
    assert code_of(text.encode()) == f"parse.{code}"


def test_size_bom_and_utf8_come_before_everything_else() -> None:
    assert code_of(b"\xef\xbb\xbf\xff", max_bytes=3) == "parse.size"
    assert code_of(b"\xef\xbb\xbf\xff") == "parse.bom"
    assert code_of(b'{"a":1,"a":2,\xff') == "parse.utf8"
    assert code_of(b"\x00\x00\xfe\xff") == "parse.bom"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("0.0", 0),
        ("0e99999999999999999999", 0),
        ("1" + "0" * 15, 10**15),
        ("1." + "0" * 62, 1),
        ("100e-2", 1),
        ("1E+2", 100),
        ("-1.5e-7", -1.5e-7),
        ("4503599627370495.5", 4503599627370495.5),
        ("-9007199254740991", -(2**53) + 1),
    ],
)
def test_numbers(text: str, value: float) -> None:
    found = parse_value(text.encode())

    assert found == value
    assert type(found) is type(value)


def test_the_limits_from_inside() -> None:
    deep = b"[" * 32 + b"]" * 32
    many = b"[" + b"0," * 9999 + b"0]"
    assert parse_value(deep) is not None
    assert len(parse_value(many)) == 10_000
    assert parse_json(b"{}", max_bytes=2) == {}
    with pytest.raises(Invalid, match=r"parse\.depth"):
        parse_value(b"[" + deep + b"]")
    with pytest.raises(Invalid, match=r"parse\.members"):
        parse_value(b"[" + many + b"]")


def test_members_count_over_all_levels() -> None:
    data = b"[" + b",".join(b'{"a":0}' for _ in range(5001)) + b"]"

    with pytest.raises(Invalid, match=r"parse\.members"):
        parse_value(data)


def test_a_detail_never_repeats_the_text() -> None:
    with pytest.raises(Invalid) as caught:
        parse_json(b'{"password":"hunter2",}')

    assert "hunter2" not in str(caught.value)
    assert "password" not in str(caught.value)


# What holds for any input

_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
_NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-(2.0**53) + 1, 2.0**53 - 1, allow_nan=False).filter(
    lambda value: value != 0 or math.copysign(1, value) > 0
)
_VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=20,
)


def _names_are_distinct(value: Any) -> bool:
    if isinstance(value, dict):
        return len({name.casefold() for name in value}) == len(value) and all(map(_names_are_distinct, value.values()))
    return not isinstance(value, list) or all(map(_names_are_distinct, value))


_OBJECTS = st.dictionaries(_TEXT, _VALUES, max_size=5).filter(_names_are_distinct)


@given(_OBJECTS, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_whatever_json_writes_is_read_back(value: dict[str, Any], ascii_only: bool, indent: int | str | None) -> None:  # noqa: FBT001
    data = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()

    found = parse_json(data)

    assert found == value == json.loads(data)
    assert digest_of(canonical(parse_json(canonical(found)))) == digest_of(canonical(found))


@given(_OBJECTS, st.data())
def test_a_truncated_text_is_refused(value: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(value, ensure_ascii=False).encode()
    cut = data.draw(st.integers(0, len(text) - 1))

    with pytest.raises(Invalid, match=r"^parse\."):
        parse_json(text[:cut])


_ESCAPED = [
    "\\n",
    "\\/",
    "\\u00e9",
    "\\ud83d",
    "\\ude00",
    "\\uD83D\\uDE00",
    "\\u0000",
    "\\u12",
    "\\x",
    "\\",
    "\t",
    "a",
    "\u20ac",
]


@given(st.lists(st.sampled_from(_ESCAPED), max_size=8).map("".join))
def test_a_string_is_read_alike_whole_and_by_piece(text: str) -> None:
    """The standard library decodes plainly good strings; whatever it cannot be trusted with is read by our own words."""
    data = f'"{text}"'

    def read(function: Any, *where: Any) -> Any:
        try:
            return function(*where)
        except Invalid as error:
            return error.code, error.detail

    by_piece = read(_Reader(data)._string_by_piece, 1)
    assert read(_Reader(data)._string, 1) == by_piece
    if isinstance(by_piece[0], str) and not by_piece[0].startswith("parse."):
        assert by_piece[0] == json.loads(data[: by_piece[1]])


_PIECES = ["{", "}", "[", "]", ",", ":", '"', "\\", "\\u", "d800", "dc00", "0000", "a", "A", "1", "-", "0", ".", "e"]
_NOISE = st.lists(st.sampled_from([*_PIECES, " ", "\n", "true", "null", '"a"', '"A"', "\u0130"]), max_size=30)


@given(_NOISE.map(lambda pieces: "".join(pieces).encode()) | st.binary(max_size=40))
def test_what_is_accepted_means_the_same_to_the_standard_library(data: bytes) -> None:
    try:
        value = parse_value(data)
    except Invalid as error:
        assert error.code.startswith("parse.")  # noqa: PT017 - either outcome is right
    else:
        assert value == json.loads(data)
        assert parse_value(canonical(value)) == value


_PIECES = st.sampled_from(
    [
        *(
            '{"',
            '":',
            '"',
            ",",
            "{",
            "}",
            "[",
            "]",
            " ",
            "\n",
            "null",
            "true",
            "-",
            "0",
            "1",
            "10",
            "1.5",
            "1.0",
            "-0",
            "1e3",
        ),
        *(
            "NaN",
            "Infinity",
            "-Infinity",
            "a",
            "A",
            "\u017f",
            "s",
            "S",
            "\u0661",
            "\ufeff",
            "\t",
            "\x00",
            "\x7f",
            "\\",
            "\\n",
        ),
        *(
            "9007199254740993",
            "0.30000000000000001",
            "1" * 65,
            "01",
            "1.",
            ".5",
            "+1",
            "{}",
            "[]",
            '"a":1',
            '"A":1',
            '{"a":1}',
        ),
    ]
)


@given(_OBJECTS.map(lambda value: json.dumps(value, ensure_ascii=False)) | st.lists(_PIECES, max_size=12).map("".join))
def test_what_is_read_quickly_is_what_the_reader_reads(text: str) -> None:
    found = _quickly(text)
    if found is _UNSURE:
        return

    value, at = _Reader(text).value(len(text) - len(text.lstrip(" \t\n\r")), 32)

    assert text[at:].strip(" \t\n\r") == ""
    assert (value, repr(value)) == (found, repr(found))


@pytest.mark.parametrize("case", cases("arguments", accept=False))
def test_nothing_that_is_refused_is_read_quickly(case: dict[str, Any]) -> None:
    try:
        text = body_of(case).decode()
    except UnicodeDecodeError:
        return
    found = _quickly(text)
    assert found is _UNSURE or not isinstance(found, dict) or text.startswith("\ufeff") or case["code"] == "parse.size"


def test_most_texts_are_read_quickly() -> None:
    assert (
        _quickly('[{"type":"countersign_call","arguments":{"charge":"ch_1","amount":1200,"share":0.5}}]') is not _UNSURE
    )
