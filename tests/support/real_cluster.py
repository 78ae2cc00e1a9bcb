"""A whole cluster on this machine: control plane, two nodes, DNS, kept between runs of the end-to-end tests. Root only."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support import host
from support.node import Node, leave_running, reap
from support.oci import write_image

from countersign.devcluster import FullPlane, cache_directory, find_or_build, find_or_build_node, state

if TYPE_CHECKING:
    from collections.abc import Callable

    from countersign.devcluster import NodeBinaries, Recorded

    Say = Callable[[str], None]

RUN = state.NODES
_LEFT: list[FullPlane] = []  # as in node.py: programs that outlive the object that started them
_PATIENCE = 60.0
_ADDRESSES = {"node-a": "10.123.0.11", "node-b": "10.123.0.12"}
_DNS = Path(__file__).with_name("coredns.yaml")
_PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "iproute2": "ip",
}


def _missing() -> list[str]:
    missing = [package for package, program in _PACKAGES.items() if shutil.which(program) is None]
    if not Path("/usr/lib/cni/ptp").exists():
        missing.append("containernetworking-plugins")
    return sorted(missing)


def cannot() -> str | None:
    """Return why this machine can have no nodes, whatever ``make`` installs; ``None`` if it can."""
    if os.geteuid() != 0:
        return "real nodes need root: their namespaces, cgroups and mounts are the kernel's"
    if not host.cgroup_v1():
        return "this machine has cgroup v2 alone, where the nodes were not tried: use kind (kind-config.yaml)"
    if not host.may_make_namespaces():
        return "this root may not make namespaces and mounts, as in a container: real nodes need a machine of their own"
    if _missing() and shutil.which("apt-get") is None:
        return f"these programs' packages are missing, and there is no apt-get: {' '.join(_missing())}"
    return None


def why_not() -> str | None:
    """Return why this machine cannot run nodes now, as one sentence with the command to run; ``None`` if it can."""
    if reason := cannot():
        return reason
    if missing := _missing():
        return f"Debian packages are missing: apt-get install -y --no-install-recommends {' '.join(missing)}"
    return None


@dataclass(frozen=True)
class RealCluster:
    """The cluster that runs: where its files are, and its nodes."""

    directory: Path

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.directory / "plane" / "admin.kubeconfig"

    @property
    def nodes(self) -> list[Node]:
        """Both nodes, alive or not."""
        return [Node(name, address, self.directory / name) for name, address in _ADDRESSES.items()]

    def kubectl(self, *words: str | Path, check: bool = True) -> str:
        """Run kubectl as administrator and return what it printed."""
        return host.run(find_or_build().kubectl, f"--kubeconfig={self.kubeconfig}", *words, check=check)

    def get(self, *words: str) -> Any:
        """Return what ``kubectl get -o json`` answers, parsed."""
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def apply(self, manifests: str) -> None:
        """Apply manifests (YAML or JSON) as administrator."""
        file = self.directory / "apply.yaml"
        file.write_text(manifests)
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", file)

    def ready(self, node: Node) -> bool:
        """Tell whether the cluster takes ``node`` for Ready."""
        conditions = self.get("node", node.name)["status"]["conditions"]
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def tpms(self, node: Node) -> int:
        """Return how many TPMs kubelet could hand out on ``node``."""
        return int(self.get("node", node.name)["status"]["allocatable"].get("countersign.dev/tpm", 0))

    def restart(self, name: str) -> float:
        """Kill a program of the control plane and start it as it was; return the seconds until the API server answers."""
        run = state.read(RUN)
        assert run is not None
        old = next(each for each in run.processes if each.name == name)
        words = Path(f"/proc/{old.pid}/cmdline").read_text().split("\0")[:-1]
        log = self.directory / "plane" / "logs" / f"{name}.log"
        os.kill(old.pid, signal.SIGKILL)
        began = time.monotonic()
        new = old
        while "ok" not in self.kubectl("get", "--raw", "/readyz", check=False):
            if not new.alive:  # also when it found its port still taken by the one that was killed
                new = leave_running(name, words, log)
            if time.monotonic() - began > _PATIENCE:
                raise RuntimeError(f"{name} is not ready {_PATIENCE:.0f} s after its restart")
            time.sleep(0.1)
        self._record(run, old, new)
        return time.monotonic() - began

    def restart_kubelet(self, node: Node) -> None:
        """Kill the kubelet of ``node`` and start it again; its pods go on."""
        kubelet = node.process("kubelet")
        assert kubelet is not None
        os.kill(kubelet, signal.SIGKILL)
        node.start_kubelet(find_or_build_node())

    def reboot(self, node: Node) -> None:
        """Boot a node that was killed, with what its disk had."""
        run = state.read(RUN)
        assert run is not None
        binaries = find_or_build_node()
        self._record(run, next(each for each in run.processes if each.name == node.name), node.boot())
        node.start_kubelet(binaries)
        for other in self.nodes:
            where = str(self.get("node", other.name)["spec"]["podCIDR"])
            if other.name == node.name:
                host.route(where, node.address)
            else:
                node.shell("ip", "route", "replace", where, "via", other.address)
        node.start_proxy(binaries)

    def _record(self, run: state.Run, old: Recorded, new: Recorded) -> None:
        """Keep the new process where the old one stood."""
        state.write(replace(run, processes=tuple(new if each == old else each for each in run.processes)))


def find() -> RealCluster | None:
    """Return the cluster that runs whole, ``None`` if there is none or a part of it is gone."""
    run = state.read(RUN)
    if run is None or not all(each.alive for each in run.processes):
        return None
    cluster = RealCluster(run.directory)
    whole = all(node.alive and node.process("kubelet") and node.process("containerd") for node in cluster.nodes)
    return cluster if whole else None


def down() -> None:
    """End every process of the cluster and undo what it changed on this machine. Safe to run again."""
    if run := state.read(RUN):
        for node in RealCluster(run.directory).nodes:
            node.kill()
        state.stop(run)
    host.clear()
    reap()
    while _LEFT:
        _LEFT.pop().stop()
    shutil.rmtree(state.run_directory(RUN), ignore_errors=True)


def up(say: Say) -> RealCluster:
    """Return the cluster, starting it if it does not run (under a minute once its programs are built)."""
    if cluster := find():
        say("the cluster runs already")
        return cluster
    programs, nodes = find_or_build(say), find_or_build_node(say)
    down()
    began = time.monotonic()
    directory = state.run_directory(RUN)
    cluster = RealCluster(directory)
    host.make_bridge()
    plane = FullPlane(programs, nodes, directory / "plane", host=host.ADDRESS, webhook_hosts=["*"], outlive=True)
    _LEFT.append(plane)
    records: list[Recorded] = []
    try:
        plane.start(say)
        records += [child.record for child in reversed(plane.children)]
        say(f"control plane ready after {time.monotonic() - began:.1f} s")
        _record(plane, records)
        for node in cluster.nodes:
            records.insert(0, node.make(plane))
            _record(plane, records)
        _join(cluster, nodes, say)
        cluster.kubectl("apply", "-f", _DNS)
        cluster.kubectl("rollout", "status", "deployment/coredns", "-n", "kube-system", "--timeout=60s")
    except BaseException:
        say(f"the cluster did not come up; logs stay in {directory}")
        for node in cluster.nodes:
            node.kill()
        plane.stop()
        raise
    say(f"nodes Ready and names answered after {time.monotonic() - began:.1f} s")
    return cluster


def _record(plane: FullPlane, records: list[Recorded]) -> None:
    state.write(state.Run(RUN, state.run_directory(RUN), plane.url, plane.admin_kubeconfig, tuple(records)))


def _join(cluster: RealCluster, binaries: NodeBinaries, say: Say) -> None:
    place = cache_directory() / "image"
    place.mkdir(parents=True, exist_ok=True)
    archives = [
        write_image(binaries.pause, "countersign.local/pause:1", place / "pause.tar"),
        write_image(binaries.coredns, "countersign.local/coredns:1", place / "coredns.tar"),
    ]
    for node in cluster.nodes:
        for archive in archives:
            node.import_image(archive)
        node.start_kubelet(binaries)
    pods = {node.address: _pod_range(cluster, node.name) for node in cluster.nodes}
    for node in cluster.nodes:
        others = {where: via for via, where in pods.items() if via != node.address}
        node.write_network(pods[node.address], others)
        node.start_proxy(binaries)
    host.route_services(cluster.nodes[0].address)
    cluster.kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s")
    say("nodes joined")


def _pod_range(cluster: RealCluster, name: str) -> str:
    """Wait for the addresses that the controller-manager gives the node's pods."""
    words = ("wait", "--for=create", f"node/{name}", "--timeout=60s")
    cluster.kubectl(*words)
    cluster.kubectl("wait", "--for=jsonpath={.spec.podCIDR}", f"node/{name}", "--timeout=30s")
    return str(json.loads(cluster.kubectl("get", "node", name, "-o", "json"))["spec"]["podCIDR"])


def import_images(cluster: RealCluster, archives: dict[str, Path]) -> None:
    """Load the archives, by their images' names, into every node that lacks them; the nodes side by side."""

    def load(node: Node) -> None:
        there = node.shell("ctr", "-n", "k8s.io", "images", "list", "-q").split()
        for name, archive in archives.items():
            if name not in there:
                node.import_image(archive)

    with ThreadPoolExecutor() as pool:
        list(pool.map(load, cluster.nodes))
