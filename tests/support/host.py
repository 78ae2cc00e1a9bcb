"""What real nodes need of this machine: a bridge, veths, routes, cgroups. Root only; ``clear`` undoes all of it."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

from countersign.devcluster.full import SERVICES

BRIDGE = "csbr0"
ADDRESS = "10.123.0.1"
_CGROUPS = Path("/sys/fs/cgroup")
_HIERARCHIES = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd", "unified")
_OURS = "countersign"


def run(*words: str | Path, check: bool = True, seconds: float = 120) -> str:
    """Run a program and return what it printed; its words are in the error."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, timeout=seconds)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def cgroup_v1() -> bool:
    """True where every controller has a hierarchy of its own: the only kind that was tried."""
    return (_CGROUPS / "memory" / "memory.limit_in_bytes").exists() or (_CGROUPS / "cpuset" / "cpuset.cpus").exists()


def may_make_namespaces() -> bool:
    """True where this root may make what a node is made of."""
    words = ["unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--mount-proc", "true"]
    return subprocess.run(words, capture_output=True, check=False, timeout=30).returncode == 0


def make_bridge() -> None:
    """Make the bridge on which the API server listens. Raises if it is there: another run's, or a crash's."""
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "address", "add", f"{ADDRESS}/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")


def plug_in(pid: int, name: str, address: str) -> None:
    """Give the network namespace of ``pid`` an ``eth0`` with ``address`` on the bridge."""
    outer = f"cs{name}"[:15]
    run("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    run("ip", "link", "set", outer, "master", BRIDGE, "up")
    inside = ("nsenter", "-t", str(pid), "-n", "--")
    run(*inside, "ip", "link", "set", "lo", "up")
    run(*inside, "ip", "address", "add", f"{address}/24", "dev", "eth0")
    run(*inside, "ip", "link", "set", "eth0", "up")
    run(*inside, "ip", "route", "add", "default", "via", ADDRESS)
    run(*inside, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")


def route(where: str, via: str) -> None:
    """Send what this machine sends to ``where`` to the node at ``via``."""
    run("ip", "route", "replace", where, "via", via, "dev", BRIDGE)


def route_services(via: str) -> None:
    """Let the node at ``via`` resolve the addresses of Services for this machine."""
    route(SERVICES, via)


def make_cgroups(name: str) -> None:
    """Make ``/countersign/NAME`` in every hierarchy, before kubelet looks for it."""
    for hierarchy in _HIERARCHIES:
        top = _CGROUPS / hierarchy
        if not top.is_dir() or hierarchy == "unified":
            continue
        for level in (top / _OURS, top / _OURS / name):
            level.mkdir(exist_ok=True)
            for file in ("cpuset.cpus", "cpuset.mems") if hierarchy == "cpuset" else ():
                (level / file).write_text((level.parent / file).read_text())


def clear() -> None:
    """Remove bridge, veths, routes and cgroups; nothing happens for what is not there."""
    run("ip", "link", "delete", BRIDGE, check=False)
    for hierarchy in _HIERARCHIES:
        for cgroup in sorted((_CGROUPS / hierarchy / _OURS).glob("**/"), key=lambda path: -len(path.parts)):
            with suppress(OSError):
                cgroup.rmdir()
