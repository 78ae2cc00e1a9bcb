"""Conditions on arguments beyond the vectors: what could be read twice is undecided, and so is what a replica cannot read."""

from __future__ import annotations

from typing import Any

import pytest

from countersign.policy.arguments import compile_argument
from countersign.policy.logic import Unreadable

Truth = bool | None


def condition(arguments: Any, **entry: Any) -> Truth:
    return compile_argument(entry)(arguments)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ch_1", True),
        ("ch_2", False),
        ("", False),
        ("é", True),
        ("e\u0301", None),
        ("ﬁ", None),
        ("ch_1\u200b", None),
        ("\u202ech_1", None),
        ("ch_1\n", None),
        ("ch_1\x7f", None),
        ("\u2028", None),
        ("\ue000", None),
        ("\ud800", None),
        ("\uff43h_1", None),
        (1, None),
        (None, None),
        (["ch_1"], None),
    ],
)
def test_d3_string(value: Any, expected: Truth) -> None:
    assert condition({"a": value}, pointer="/a", type="String", string={"values": ["ch_1", "é"]}) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, True),
        (5.0, True),
        (10, True),
        (11, False),
        (4, False),
        (5.5, None),
        ("5", None),
        (True, None),
        (None, None),
        (2**53, None),
        (-(2**53), None),
        (float(2**60), None),
        (float("inf"), None),
        (float("nan"), None),
    ],
)
def test_integer(value: Any, expected: Truth) -> None:
    assert condition({"a": value}, pointer="/a", type="Integer", integer={"minimum": 5, "maximum": 10}) is expected


@pytest.mark.parametrize(("value", "expected"), [(True, True), (False, False), (1, None), ("true", None), (None, None)])
def test_boolean(value: Any, expected: Truth) -> None:
    assert condition({"a": value}, pointer="/a", type="Boolean", boolean={"value": True}) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/srv/data", True),
        ("/srv/data/x", True),
        ("/srv/data/.hidden/..data", True),
        ("/srv/database", False),
        ("/srv", False),
        ("/", None),
        ("", None),
        ("srv/data", None),
        ("/srv/data/", None),
        ("/srv//data", None),
        ("/srv/./data", None),
        ("/srv/data/..", None),
        ("/srv/data/../etc", None),
        ("/srv/data/%2e%2e", None),
        ("/srv\\data", None),
        ("/srv/data/\u202e", None),
        ("//srv/data", None),
        (7, None),
    ],
)
def test_d3_path(value: Any, expected: Truth) -> None:
    assert condition({"a": value}, pointer="/a", type="Path", path={"under": ["/srv/data"]}) is expected


HOSTS = ["api.example.com", "*.files.example.com", "198.51.100.7"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://api.example.com", True),
        ("https://api.example.com/", True),
        ("https://api.example.com?x=@evil", True),
        ("https://198.51.100.7/", True),
        ("https://x.files.example.com/a%20b", True),
        ("https://files.example.com/", False),
        ("https://xfiles.example.com/", False),
        ("https://api.example.com.evil.org/", False),
        ("https://api.example.com:444/", False),
        ("http://api.example.com/", False),
        ("https://api.example.com./", None),
        ("https://API.example.com/", None),
        ("HTTPS://api.example.com/", None),
        ("https://user@api.example.com/", None),
        ("https://api.example.com@evil.org/", None),
        ("https://api.example.com\\@evil.org/", None),
        ("https://evil.org#@api.example.com", None),
        ("https://api.example.com/#x", None),
        ("https:/api.example.com/", None),
        ("https:api.example.com", None),
        ("//api.example.com/", None),
        ("https:///api.example.com/", None),
        ("https://api.example.com:/", None),
        ("https://api.example.com:0443/", None),
        ("https://api.example.com:99999/", None),
        ("https://[::1]/", None),
        ("https://198.51.100.07/", None),
        ("https://198.51.25607/", None),
        ("https://3325256711/", None),
        ("https://0xc6336407/", None),
        ("https://1.2.3.4.5/", None),
        ("https://256.1.1.1/", None),
        ("https://api.example.com/ x", None),
        (" https://api.example.com/", None),
        ("https://api.example.com/\n", None),
        ("https://äpi.example.com/", None),
        ("https://a..example.com/", None),
        ("https://-a.example.com/", None),
        ("https://a_b.example.com/", None),
        (7, None),
    ],
)
def test_d3_d19_url(value: Any, expected: Truth) -> None:
    assert condition({"a": value}, pointer="/a", type="URL", url={"hosts": HOSTS}) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://api.example.com/v1/x?y=/../z", True),
        ("https://api.example.com/v1", True),
        ("https://api.example.com/v10", False),
        ("https://api.example.com/v1/", None),
        ("https://api.example.com/v1/../v2", None),
        ("https://api.example.com/v1/%2e%2e", None),
        ("https://api.example.com", None),
        ("https://other.example.com/v1/..", False),
    ],
)
def test_d3_url_under(value: str, expected: Truth) -> None:
    entry = {"hosts": ["api.example.com"], "under": ["/v1"]}
    assert condition({"a": value}, pointer="/a", type="URL", url=entry) is expected


WAYS: list[tuple[Any, str, Truth]] = [
    ({"a": {"b": 1}}, "/a/b", True),
    ({"a/b": 1}, "/a~1b", True),
    ({"a~b": 1}, "/a~0b", True),
    ({"a~1b": 1}, "/a~01b", True),
    ({"": 1}, "/", True),
    ({"a": [0, 1]}, "/a/1", True),
    ({}, "/a", False),
    ({}, "/a/b/c", False),
    ({"a": [1]}, "/a/1", False),
    ({"A": 1}, "/a", None),
    ({"\u017f": 1}, "/s", None),
    ({"a": 1}, "/a/b", None),
    ({"a": None}, "/a/b", None),
    ({"a": "text"}, "/a/0", None),
    ({"a": [1]}, "/a/00", None),
    ({"a": [1]}, "/a/-", None),
    ({"a": [1]}, "/a/+0", None),
    ({"a": [1]}, "/a/x", None),
    ({"a": [1]}, "/a/\u0660", None),
]


@pytest.mark.parametrize(("arguments", "pointer", "there"), WAYS)
def test_the_way_to_a_value(arguments: Any, pointer: str, there: Truth) -> None:
    """A value, missing (then `whenMissing` decides, and Absent is true), or blocked (then nothing helps)."""
    absent = None if there is None else not there
    assert condition(arguments, pointer=pointer, type="Absent") is absent
    found = condition(arguments, pointer=pointer, type="Integer", integer={"values": [1]}, whenMissing="DoesNotMatch")
    assert found is there


@pytest.mark.parametrize(
    ("arguments", "every", "some"),
    [
        ({"a": [{"b": 1}, {"b": 1}]}, True, True),
        ({"a": [{"b": 1}, {"b": 2}]}, False, True),
        ({"a": [{"b": 2}, {"b": 2}]}, False, False),
        ({"a": [{"b": 1}, {"b": "x"}]}, None, True),
        ({"a": [{"b": 2}, {"b": "x"}]}, False, None),
        ({"a": [{"b": 1}, {}]}, None, True),
        ({"a": [{"b": 1}, {"B": 1}]}, None, True),
        ({"a": [{"b": 1}, 7]}, None, True),
        ({"a": []}, None, None),
        ({"a": {"0": {"b": 1}}}, None, None),
        ({"a": {"*": {"b": 1}}}, None, None),
        ({"a": None}, None, None),
        ({}, None, None),
    ],
)
def test_quantifiers(arguments: Any, every: Truth, some: Truth) -> None:
    entry = {"pointer": "/a/*/b", "type": "Integer", "integer": {"values": [1]}}
    assert condition(arguments, **entry, quantifier="All") is every
    assert condition(arguments, **entry, quantifier="Any") is some


def test_a_missing_array_is_missing_and_an_empty_one_is_not() -> None:
    entry = {"pointer": "/a/*", "type": "Integer", "integer": {"values": [1]}, "quantifier": "All"}
    assert condition({}, **entry, whenMissing="Matches") is True
    assert condition({"a": []}, **entry, whenMissing="Matches") is None


INTEGER = {"pointer": "/a", "type": "Integer", "integer": {"minimum": 1}}


@pytest.mark.parametrize(
    "entry",
    [
        {**INTEGER, "pointer": ""},
        {**INTEGER, "pointer": "a"},
        {**INTEGER, "pointer": "/a~2"},
        {**INTEGER, "pointer": "/a~"},
        {**INTEGER, "pointer": "/*/*", "quantifier": "All"},
        {**INTEGER, "pointer": "/*"},
        {**INTEGER, "quantifier": "All"},
        {**INTEGER, "pointer": "/*", "quantifier": "None"},
        {**INTEGER, "pointer": None},
        {**INTEGER, "type": "Number"},
        {**INTEGER, "type": "String"},
        {**INTEGER, "type": None},
        {**INTEGER, "string": {"values": ["x"]}},
        {**INTEGER, "whenMissing": "Ignore"},
        {**INTEGER, "whenMissing": None},
        {**INTEGER, "pattern": "x"},
        {**INTEGER, "integer": {}},
        {**INTEGER, "integer": {"minimum": 2, "maximum": 1}},
        {**INTEGER, "integer": {"minimum": 1, "values": [1]}},
        {**INTEGER, "integer": {"minimum": True}},
        {**INTEGER, "integer": {"minimum": 1.5}},
        {**INTEGER, "integer": {"values": []}},
        {**INTEGER, "integer": {"multipleOf": 2}},
        {**INTEGER, "integer": None},
        {"pointer": "/a", "type": "Integer"},
        {"pointer": "/a", "type": "Absent", "whenMissing": "Matches"},
        {"pointer": "/a", "type": "Absent", "string": {"values": ["x"]}},
        {"pointer": "/a", "type": "String", "string": {"values": []}},
        {"pointer": "/a", "type": "String", "string": {"values": [1]}},
        {"pointer": "/a", "type": "Boolean", "boolean": {"value": "true"}},
        {"pointer": "/a", "type": "Path", "path": {"under": ["/a/"]}},
        {"pointer": "/a", "type": "Path", "path": {"under": ["a"]}},
        {"pointer": "/a", "type": "Path", "path": {"under": []}},
        {"pointer": "/a", "type": "URL", "url": {"hosts": []}},
        {"pointer": "/a", "type": "URL", "url": {"schemes": ["https"]}},
        {"pointer": "/a", "type": "URL", "url": {"hosts": ["*"]}},
        {"pointer": "/a", "type": "URL", "url": {"hosts": ["*.com"]}},
        {"pointer": "/a", "type": "URL", "url": {"hosts": ["a.*.com"]}},
        {"pointer": "/a", "type": "URL", "url": {"hosts": ["*.1.2.3.4"]}},
        {"pointer": "/a", "type": "URL", "url": {"hosts": ["A.example.com"]}},
        {"pointer": "/a", "type": "URL", "url": {"hosts": ["a.example.com"], "ports": [0]}},
        {"pointer": "/a", "type": "URL", "url": {"hosts": ["a.example.com"], "ports": [70000]}},
        {"pointer": "/a", "type": "URL", "url": {"hosts": ["a.example.com"], "under": ["/a/"]}},
        {},
        None,
        [],
    ],
)
def test_an_entry_that_a_replica_cannot_read_is_unreadable(entry: Any) -> None:
    with pytest.raises(Unreadable):
        compile_argument(entry)
