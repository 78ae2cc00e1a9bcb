"""Find the programs of a control plane and of a node, or build them from their Go modules (pinned by hash in ``tools/``).

Order: ``$KUBEBUILDER_ASSETS``, ``PATH`` (only the minor version that is pinned), ``~/.cache/countersign/NAME-VERSION/``,
a build. Nothing comes from a container registry or a download page.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from countersign.devcluster.toolchain import find_go, needed_go

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "KWOK",
    "NODE_PROGRAMS",
    "OPA",
    "PROGRAMS",
    "Binaries",
    "NodeBinaries",
    "Program",
    "cache_directory",
    "find",
    "find_or_build",
    "find_or_build_kwok",
    "find_or_build_node",
    "find_or_build_opa",
]

_KUBERNETES = "1.34.4"
_STAMP = "k8s.io/component-base/version.git"


@dataclass(frozen=True)
class Program:
    """One program: its tool module and version, the Go package, how it says its version, and how long a build takes."""

    name: str
    module: str
    version: str
    package: str
    ask: tuple[str, ...]
    minutes: float
    own: bool = False  # the main package is ours, in the tool module: nothing that lies elsewhere is the same

    @property
    def minor(self) -> str:
        """The part of the version that a program found elsewhere must have, such as ``1.34``."""
        return self.version.rpartition(".")[0]


PROGRAMS = (
    Program("etcd", "etcd", "3.6.8", "go.etcd.io/etcd/server/v3", ("--version",), 0.5),
    Program("kube-apiserver", "kubernetes", _KUBERNETES, "k8s.io/kubernetes/cmd/kube-apiserver", ("--version",), 5),
    Program(
        "kube-controller-manager",
        "kubernetes",
        _KUBERNETES,
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        ("--version",),
        1,
    ),
    Program("kubectl", "kubernetes", _KUBERNETES, "k8s.io/kubernetes/cmd/kubectl", ("version", "--client"), 1),
    Program("helm", "helm", "3.22.0", "helm.sh/helm/v3/cmd/helm", ("version", "--short"), 2),
)
# What real nodes need beside it; containerd and runc are Debian's.
NODE_PROGRAMS = (
    *(
        Program(name, "kubernetes", _KUBERNETES, f"k8s.io/kubernetes/cmd/{name}", ("--version",), minutes)
        for name, minutes in (("kubelet", 1), ("kube-scheduler", 1), ("kube-proxy", 0.5))
    ),
    Program("coredns", "coredns", "1.13.1", ".", ("-version",), 2, own=True),
    Program("pause", "pause", "1.0.0", ".", (), 0.1, own=True),
)
# Plays the kubelets of thousands of nodes: for the benchmark alone.
KWOK = Program("kwok", "kwok", "0.8.0", "sigs.k8s.io/kwok/cmd/kwok", ("--version",), 1.5)
# What the benchmark puts beside the front door; nothing else wants it.
OPA = Program("opa", "opa", "1.22.4", "github.com/open-policy-agent/opa", ("version",), 1.5)


@dataclass(frozen=True)
class Binaries:
    """Where each program of a control plane lies."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kubectl: Path
    helm: Path


@dataclass(frozen=True)
class NodeBinaries:
    """Where each program of a cluster with real nodes lies, beside those of its control plane."""

    kubelet: Path
    kube_scheduler: Path
    kube_proxy: Path
    coredns: Path
    pause: Path


def cache_directory() -> Path:
    """Return ``~/.cache/countersign``, or the same below ``$XDG_CACHE_HOME``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "countersign"


def _version(path: Path, program: Program) -> str | None:
    """Return what the program at ``path`` says is its version, ``None`` if it does not run or says none."""
    try:
        done = subprocess.run([path, *program.ask], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\bv?(\d+\.\d+\.\d+)", done.stdout)
    return found[1] if found else None


def _fits(path: Path, program: Program) -> bool:
    version = _version(path, program)
    return version is not None and version.rpartition(".")[0] == program.minor


def find(program: Program) -> Path | None:
    """Return where ``program`` lies already, ``None`` if it must be built."""
    cached = cache_directory() / f"{program.module}-{program.version}" / program.name
    if program.own:
        return cached if os.access(cached, os.X_OK) else None
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and os.access(Path(assets) / program.name, os.X_OK):
        return Path(assets) / program.name
    on_path = shutil.which(program.name)
    if on_path and _fits(Path(on_path), program):
        return Path(on_path)
    return cached if os.access(cached, os.X_OK) else None


def _flags(program: Program) -> str:
    """Return the linker's flags: small files, and for Kubernetes the version, else it calls itself v0.0.0-master."""
    flags = ["-s", "-w"]
    if program.module == "kubernetes":
        major, minor, _ = program.version.split(".")
        stamps = {"Version": f"v{program.version}", "Major": major, "Minor": minor}
        flags += [f"-X {_STAMP}{key}={value}" for key, value in stamps.items()]
    elif program.module == "helm":
        flags += [f"-X helm.sh/helm/v3/internal/version.version=v{program.version}"]
    return " ".join(flags)


def _build(program: Program, say: Callable[[str], None]) -> Path:
    """Build ``program`` into the cache; the finished file appears under its name in one step."""
    place = cache_directory() / f"{program.module}-{program.version}"
    place.mkdir(parents=True, exist_ok=True)
    with (
        as_file(files("countersign.devcluster") / "tools" / program.module) as module,
        tempfile.TemporaryDirectory(dir=place, prefix=".build-") as work,
    ):
        go = find_go(needed_go(module), cache_directory(), say)
        say(f"building {program.name} {program.version} (about {program.minutes:g} min on 2 cores, once)")
        output = Path(work) / program.name
        # CGO_ENABLED=0: no C compiler is asked for. -mod=readonly: go.sum decides every byte that is compiled.
        env = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
        done = subprocess.run(
            [go, "build", "-trimpath", "-ldflags", _flags(program), "-o", output, program.package],
            cwd=module,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"go build {program.package} failed:\n{done.stderr[-2000:]}")
        output.replace(place / program.name)
    return place / program.name


@contextmanager
def _one_at_a_time(say: Callable[[str], None]) -> Iterator[None]:
    """Hold the cache's lock: two builders would only halve each other's speed."""
    cache_directory().mkdir(parents=True, exist_ok=True)
    with (cache_directory() / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def find_or_build(say: Callable[[str], None] = lambda _line: None) -> Binaries:
    """Return the control plane's programs, building what is missing; ``say`` gets one line before what takes long.

    Raises ``RuntimeError`` with the compiler's words when a build fails.
    """
    return Binaries(**_find_or_build(PROGRAMS, say))


def find_or_build_node(say: Callable[[str], None] = lambda _line: None) -> NodeBinaries:
    """Return a node's programs; the rest as for :func:`find_or_build`."""
    return NodeBinaries(**_find_or_build(NODE_PROGRAMS, say))


def find_or_build_opa(say: Callable[[str], None] = lambda _line: None) -> Path:
    """Return Open Policy Agent, which the benchmark alone starts; the rest as for :func:`find_or_build`."""
    return _find_or_build((OPA,), say)[OPA.name]


def find_or_build_kwok(say: Callable[[str], None] = lambda _line: None) -> Path:
    """Return where kwok lies; the rest as for :func:`find_or_build`."""
    return _find_or_build((KWOK,), say)[KWOK.name]


def _find_or_build(programs: tuple[Program, ...], say: Callable[[str], None]) -> dict[str, Path]:
    places = {program.name: find(program) for program in programs}
    if not all(places.values()):
        with _one_at_a_time(say):
            places = {program.name: find(program) or _build(program, say) for program in programs}
    return {name.replace("-", "_"): Path(str(place)) for name, place in places.items()}
