"""``countersign dev``: up, status, kubeconfig, down; twice each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from countersign.devcluster import Recorded, binaries, start_time

pytestmark = pytest.mark.plane


@pytest.fixture
def dev(tmp_path: Path) -> Any:
    """Run the command with a cache of its own that has the programs of the real one."""
    own = tmp_path / "countersign"
    own.mkdir()
    for each in binaries.PROGRAMS:
        place = own / f"{each.module}-{each.version}"
        place.mkdir(exist_ok=True)
        found = binaries.find(each)
        assert found is not None
        (place / each.name).symlink_to(found)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).with_name("countersign"), "dev", *arguments],
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    yield run
    run("down")


def test_up_status_kubeconfig_and_down_may_each_be_repeated(dev: Any) -> None:
    assert dev("status").returncode == 1
    assert dev("kubeconfig").returncode == 1
    up = dev("up")
    assert up.returncode == 0, up.stderr
    first = json.loads(dev("status", "-o", "json").stdout)["runs"][0]
    assert first["running"] is True
    assert dev("up").stdout == up.stdout
    assert json.loads(dev("status", "-o", "json").stdout)["runs"][0] == first

    # After a crash of one program, `up` clears the rest away and starts anew.
    Recorded(**{key: first["processes"][0][key] for key in ("name", "pid", "started")}).stop()
    assert dev("up").returncode == 0
    second = json.loads(dev("status", "-o", "json").stdout)["runs"][0]
    assert [start_time(each["pid"]) for each in first["processes"]] == [None] * 3

    kubeconfig = dev("kubeconfig").stdout.strip()
    who = subprocess.run(
        [
            binaries.find(binaries.PROGRAMS[3]) or "kubectl",
            "--kubeconfig",
            kubeconfig,
            "get",
            "namespaces",
            "-o",
            "name",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "namespace/default" in who.stdout
    assert dev("down").returncode == 0
    assert [start_time(each["pid"]) for each in second["processes"]] == [None] * 3
    assert dev("down").returncode == 0


def test_down_leaves_the_nodes_of_e2e_to_their_own_command(dev: Any, tmp_path: Path) -> None:
    place = tmp_path / "countersign" / "run" / "e2e"
    place.mkdir(parents=True)
    ours = {"name": "test", "pid": os.getpid(), "started": start_time(os.getpid())}
    record = {"name": "e2e", "url": "https://127.0.0.1:1", "kubeconfig": "k", "processes": [ours]}
    (place / "state.json").write_text(json.dumps(record))
    assert dev("down").stdout == "left e2e: make e2e-down takes its nodes away\n"
    assert (place / "state.json").exists()
