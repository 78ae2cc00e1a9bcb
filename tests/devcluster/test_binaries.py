"""Where the programs of the control plane come from, and in which order."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

import pytest

from countersign.devcluster import binaries, toolchain
from countersign.devcluster.packages import install_command, missing_packages

ETCD = next(program for program in binaries.PROGRAMS if program.name == "etcd")


def program(directory: Path, name: str, says: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an empty cache, nothing of ours on PATH, and a shell."""
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    program(tmp_path / "bin", "sh", "")
    (tmp_path / "bin" / "sh").unlink()
    (tmp_path / "bin" / "sh").symlink_to("/bin/sh")
    return tmp_path


@pytest.mark.usefixtures("machine")
def test_nothing_is_found_on_an_empty_machine() -> None:
    assert [binaries.find(each) for each in binaries.PROGRAMS] == [None] * len(binaries.PROGRAMS)


def test_the_cache_is_used_last_and_the_assets_first(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = program(machine / "cache" / "countersign" / f"etcd-{ETCD.version}", "etcd", "etcd Version: 3.6.8")
    assert binaries.find(ETCD) == cached
    on_path = program(machine / "bin", "etcd", "etcd Version: 3.6.1")
    assert binaries.find(ETCD) == on_path
    asset = program(machine / "assets", "etcd", "anything")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(machine / "assets"))
    assert binaries.find(ETCD) == asset


@pytest.mark.parametrize("says", ["etcd Version: 3.5.21", "nonsense", "etcd Version: 3.60.1"])
def test_another_minor_version_on_the_path_is_passed_over(machine: Path, says: str) -> None:
    program(machine / "bin", "etcd", says)
    assert binaries.find(ETCD) is None


def test_every_program_has_a_module_that_is_pinned_by_hash() -> None:
    for each in (*binaries.PROGRAMS, binaries.OPA):
        module = files("countersign.devcluster") / "tools" / each.module
        assert f" v{each.version}\n" in (module / "go.mod").read_text()
        assert " h1:" in (module / "go.sum").read_text()
        assert each.package in (module / "tools.go").read_text()


def test_a_nodes_program_has_a_module_that_is_pinned_by_hash() -> None:
    for each in binaries.NODE_PROGRAMS:
        module = files("countersign.devcluster") / "tools" / each.module
        if each.own:
            assert (module / "main.go").is_file()
        else:
            assert f" v{each.version}\n" in (module / "go.mod").read_text()
            assert each.package in (module / "tools.go").read_text()
        if "require" in (module / "go.mod").read_text():
            assert " h1:" in (module / "go.sum").read_text()


def test_a_program_of_our_own_is_taken_from_the_cache_alone(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coredns = next(each for each in binaries.NODE_PROGRAMS if each.name == "coredns")
    program(machine / "bin", "coredns", f"CoreDNS-{coredns.version}")
    program(machine / "assets", "coredns", "anything")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(machine / "assets"))
    assert binaries.find(coredns) is None
    cached = program(machine / "cache" / "countersign" / f"coredns-{coredns.version}", "coredns", "anything")
    assert binaries.find(coredns) == cached


def test_an_old_go_is_passed_over_and_a_new_one_taken(machine: Path) -> None:
    old = program(machine / "bin", "go", "go version go1.19.8 linux/amd64")
    assert toolchain.go_version(old) == (1, 19, 8)
    wheel = program(machine / "cache" / "go-1.26.6" / "bin", "go", "go version go1.26.6 linux/amd64")
    assert toolchain.find_go((1, 24, 0), machine / "cache", print) == wheel
    new = program(machine / "bin", "go", "go version go1.27.0 linux/amd64")
    assert toolchain.find_go((1, 24, 0), machine / "cache", print) == new


def test_the_pinned_wheel_is_new_enough_for_every_module() -> None:
    pin = (files("countersign.devcluster") / "tools" / "go.txt").read_text()
    version = tuple(int(part) for part in pin.split("==")[1].split()[0].split("."))
    for each in (*binaries.PROGRAMS, *binaries.NODE_PROGRAMS, binaries.OPA, binaries.KWOK):
        module = Path(str(files("countersign.devcluster") / "tools" / each.module))
        assert toolchain.needed_go(module) <= version


def test_a_missing_package_is_named_with_the_command(machine: Path) -> None:
    missing = missing_packages()
    assert {"swtpm", "swtpm-tools"} <= set(missing)
    assert install_command(["swtpm"]) == "apt-get update && apt-get install -y --no-install-recommends swtpm"
    assert os.environ["PATH"] == str(machine / "bin")
