"""Connections to the real API server, and one API server that tests may kill."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from countersign.devcluster import Plane, find_or_build
from countersign.kube import Kube

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
async def kube(plane: Plane) -> AsyncIterator[Kube]:
    connected = await Kube.connect(plane.admin_kubeconfig)
    yield connected
    await connected.aclose()


@pytest.fixture(scope="session")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A plane of our own: what happens to it happens to nobody else.

    Start its parts from the main thread: a child ends with the thread that started it.
    """
    running = Plane(find_or_build(), tmp_path_factory.mktemp("mortal"))
    running.start()
    try:
        yield running
    finally:
        running.stop()
