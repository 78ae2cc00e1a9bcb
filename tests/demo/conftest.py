"""The whole demo, run as a user runs it, in a cache folder of its own: a demo that somebody kept is not disturbed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.demo import Kept, Ran, run

from countersign.devcluster import find_or_build

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with an empty cache folder in which the programs of the control plane are found all the same."""
    programs = tmp_path_factory.mktemp("programs")
    binaries = find_or_build()
    for name in ("etcd", "kube_apiserver", "kube_controller_manager", "kubectl", "helm"):
        (programs / name.replace("_", "-")).symlink_to(getattr(binaries, name))
    cache = tmp_path_factory.mktemp("c")
    return {**os.environ, "KUBEBUILDER_ASSETS": str(programs), "XDG_CACHE_HOME": str(cache)}


@pytest.fixture(scope="session")
def told(own_cache: dict[str, str]) -> Ran:
    """``countersign demo -o json``, once for the session."""
    return run("demo", "-o", "json", env=own_cache)


@pytest.fixture(scope="session")
def kept(own_cache: dict[str, str], told: Ran) -> Iterator[Kept]:
    """``countersign demo --keep``, after the other run because both use the agents' ports; ended by ``dev down``."""
    assert told.status in {0, 1}
    ran = run("demo", "--keep", env=own_cache)
    try:
        path = Path(own_cache["XDG_CACHE_HOME"]) / "countersign" / "run" / "demo" / "demo.json"
        yield Kept(ran, json.loads(path.read_text()), own_cache)
    finally:
        run("dev", "down", env=own_cache)
