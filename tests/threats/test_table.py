"""docs/threats-tests.md: every row is one of docs/threats.md, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIRST = "A1 A4 A6 A7 A8 A9 A10 A12 B1 B2 B3 B4 B5 B6 B9 B10 B11 C1 C2 C3 C4 C5 C8 C9 C11 C12 C13 D1 D2 D4 D5 D7 D8 D9 D11 D12 D13 D14 D16 E1 E2 E6"
"""Rows that may not lose their tests."""
FILES = [f"tests/threats/test_{name}.py" for name in ("threats", "cluster", "tool_servers", "deputies", "full_disk")]
"""Files whose every test is an attack that the table names."""


def rows(page: str) -> dict[str, str]:
    """The table rows of a page by their row number."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    found = [re.match(r"\| ([A-E]\d+) \|(.*)", line) for line in lines]
    return {match[1]: match[2] for match in found if match}


TABLE = rows("threats-tests.md")
NAMED = [(row, name) for row, text in TABLE.items() for name in re.findall(r"`([^`]+::[^`]+)`", text)]


@cache
def functions_of(path: str) -> frozenset[str]:
    """The test functions of a file."""
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize(("row", "name"), NAMED)
def test_the_test_is_there(row: str, name: str) -> None:
    path, _, function = name.partition("::")
    assert function.startswith("test_")
    assert function in functions_of(path), row


def test_every_row_is_one_of_the_threats() -> None:
    assert set(TABLE) <= set(rows("threats.md"))


def test_no_row_is_without_a_test_and_none_of_the_first_is_missing() -> None:
    assert set(FIRST.split()) <= {row for row, _ in NAMED}
    assert set(TABLE) == {row for row, _ in NAMED}


def test_each_attack_of_this_folder_is_in_its_row() -> None:
    for path in FILES:
        for name in functions_of(path):
            if name.startswith("test_"):
                row = name.split("_")[1].upper()
                assert (row, f"{path}::{name}") in NAMED
