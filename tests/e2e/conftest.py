"""The cluster that ``make e2e`` has brought up, and the figures that the tests print at the end."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from support import real_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.real_cluster import RealCluster

_FIGURES = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.e2e)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if figures := config.stash[_FIGURES]:
        terminalreporter.section("figures")
        for line in figures:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say a figure; it is printed after the tests."""
    return request.config.stash[_FIGURES].append


@pytest.fixture(scope="session")
def cluster() -> RealCluster:
    """The cluster, with Countersign installed."""
    found = real_cluster.find()
    assert found is not None, "no cluster runs: `make e2e` starts it and then these tests"
    return found


@pytest.fixture
def namespace(cluster: RealCluster) -> Iterator[str]:
    """A fresh namespace that has opted in, and whose signers may have TPMs."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "countersign.dev/injection=enabled", "countersign.dev/tpm=allowed")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
