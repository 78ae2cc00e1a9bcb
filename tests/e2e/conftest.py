"""The cluster that ``make e2e`` has brought up, or one for the short form in ``make test``; and the figures that tests print."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from support import e2e, real_cluster

from countersign.devcluster import state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.real_cluster import RealCluster

_FIGURES = pytest.StashKey[list[str]]()
_BRINGING_UP = 600


def _ours(item: pytest.Item) -> bool:
    return "e2e" in item.path.parts


@pytest.hookimpl(tryfirst=True)  # before marks are selected by
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _ours(item):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(_BRINGING_UP))
    items.sort(key=_ours)  # last: a cluster that runs beside them would make all others slower


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
def cluster(request: pytest.FixtureRequest) -> Iterator[RealCluster]:
    """The cluster, with Countersign installed; one that is not there yet is brought up and taken away again."""
    if reason := real_cluster.cannot():
        pytest.skip(reason)
    found = real_cluster.find()
    if found is not None:
        yield found
        return
    assert real_cluster.why_not() is None, real_cluster.why_not()
    terminal = request.config.get_terminal_writer()

    def say(line: str) -> None:
        terminal.line()
        terminal.write(f"==> {line}")

    with state.single(real_cluster.RUN):
        try:
            yield e2e.up(say)
        finally:
            real_cluster.down()


@pytest.fixture
def namespace(cluster: RealCluster) -> Iterator[str]:
    """A fresh namespace that has opted in, and whose signers may have TPMs."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "countersign.dev/injection=enabled", "countersign.dev/tpm=allowed")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
