"""One real control plane for the whole test session, and a namespace of its own for each test that asks."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.rights import audit_flags

from countersign.devcluster import Plane, find_or_build

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A real API server; the kinds are established if they are generated. Webhooks at any address get its certificate."""
    flags = audit_flags(tmp_path_factory.mktemp("rights"))
    running = Plane(find_or_build(), tmp_path_factory.mktemp("plane"), webhook_hosts=["*"], flags=flags)
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def crds(plane: Plane) -> Plane:
    """The same plane with every kind of ``crds/`` established."""
    folder = ROOT / "crds"
    plane.kubectl("apply", "--server-side", "-f", str(folder))
    plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(folder))
    return plane


@pytest.fixture
def namespace(plane: Plane) -> str:
    """A fresh namespace. It is left behind: the plane is thrown away with the session."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    plane.kubectl("create", "namespace", name)
    return name
