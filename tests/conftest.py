"""Fixtures that every room may use, and the one option of this suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.plane import crds, namespace, plane

if TYPE_CHECKING:
    import pytest

__all__ = ["crds", "namespace", "plane"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write what is made now over the golden files")
