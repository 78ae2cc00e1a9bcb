"""One Kubernetes node: a bundle of namespaces with containerd, kubelet and kube-proxy of its own. Root only.

Every path inside is the default one and nothing is written to this machine's: the layers lie in the run's folder. SIGKILL
of the bundle's first process is a machine that lost its power.
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from support import host
from support.host import run

from countersign.devcluster import Child, Recorded, start, start_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from countersign.devcluster import FullPlane, NodeBinaries

_INIT = Path(__file__).with_name("node_init.sh")
_LEFT: list[Child] = []  # a Popen object that is let go while its program runs would complain
_LAYERS = ("mount", "net", "uts", "ipc", "pid")


def leave_running(name: str, words: Sequence[str | Path], log: Path) -> Recorded:
    """Start a program that stays when this one ends."""
    child = start(name, words, log=log, outlive=True)
    _LEFT.append(child)
    return child.record


def reap() -> None:
    """Take the exit statuses of what this process left running and somebody has ended since."""
    while _LEFT:
        _LEFT.pop().stop()


@dataclass(frozen=True)
class Node:
    """A node by its name, its address and the folder of its state."""

    name: str
    address: str
    directory: Path

    @property
    def pid(self) -> int:
        """The bundle's first process, as this machine numbers it."""
        return int((self.directory / "pid").read_text())

    @property
    def alive(self) -> bool:
        """True while the bundle's first process runs."""
        try:
            return start_time(self.pid) is not None
        except FileNotFoundError:
            return False

    def shell(self, *words: str | Path, check: bool = True) -> str:
        """Run a program inside the node, as root of the node, and return what it printed."""
        return run(*self._enter(), *words, check=check)

    def process(self, name: str) -> int | None:
        """Return the process called ``name`` of this node, as this machine numbers it."""
        inside = Path(f"/proc/{self.pid}/ns/pid").readlink()
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if (place / "comm").read_text().strip() == name and (place / "ns" / "pid").readlink() == inside:
                    return int(place.name)
            except OSError:
                continue
        return None

    def kill_container(self, identity: str) -> None:
        """Kill every process of a container at once; kubelet starts it again. ``identity`` is as a pod's status has it."""
        name = identity.rpartition("//")[2]
        assert name
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"/{name}\n" in (place / "cgroup").read_text():
                    os.kill(int(place.name), signal.SIGKILL)

    def disk(self, path: str) -> Path:
        """Return where this machine has the node's ``/var/lib/path``, also while the node is dead."""
        return self.directory / "layers" / "var" / "lib" / "upper" / path

    def import_image(self, archive: Path) -> None:
        """Load an image archive into containerd, for kubelet to find."""
        self.shell("ctr", "-n", "k8s.io", "images", "import", archive)

    def kill(self) -> None:
        """End every process and mount of the node at once, as a power cut would."""
        if self.alive:
            os.kill(self.pid, signal.SIGKILL)

    def make(self, plane: FullPlane) -> Recorded:
        """Write the node's settings and boot it for the first time."""
        self.directory.mkdir(parents=True)
        self._write_settings(plane)
        return self.boot()

    def boot(self) -> Recorded:
        """Make namespaces, file system, network and cgroups, and start containerd; what was on its disk is there."""
        (self.directory / "ready").unlink(missing_ok=True)
        host.make_cgroups(self.name)
        words = ["unshare", *(f"--{each}" for each in _LAYERS), "--fork", "--kill-child", "--mount-proc"]
        words += ["--propagation", "slave", str(_INIT), self.name, str(self.directory)]
        log = self.directory / "init.log"
        record = leave_running(self.name, words, log)
        _await((self.directory / "ready").exists, f"node {self.name} has its file system", log.read_text)
        children = Path(f"/proc/{record.pid}/task/{record.pid}/children").read_text().split()
        (self.directory / "pid").write_text(children[0])
        host.plug_in(self.pid, self.name, self.address)
        self.start_containerd()
        return record

    def start_containerd(self) -> None:
        """Start containerd and return when it answers kubelet, which gives up at once if it does not."""
        log = self.directory / "containerd.log"
        before = log.stat().st_size if log.exists() else 0
        self._start("containerd", "containerd", "--config", self.directory / "containerd.toml")
        _await(
            lambda: log.exists() and b"Start streaming server" in log.read_bytes()[before:],
            f"containerd of {self.name} answers",
            lambda: "",
        )

    def start_kubelet(self, binaries: NodeBinaries) -> None:
        """Start kubelet."""
        words = [f"--config={self.directory / 'kubelet.yaml'}", f"--kubeconfig={self.directory / 'kubelet.kubeconfig'}"]
        words += [f"--hostname-override={self.name}", f"--node-ip={self.address}"]
        self._start("kubelet", binaries.kubelet, *words)

    def start_proxy(self, binaries: NodeBinaries) -> None:
        """Start kube-proxy."""
        self._start(
            "kube-proxy",
            binaries.kube_proxy,
            f"--config={self.directory / 'proxy.yaml'}",
            f"--hostname-override={self.name}",
        )

    def write_network(self, pods: str, others: dict[str, str]) -> None:
        """Give the node's pods the addresses ``pods``; ``others`` are the other nodes' addresses by their pods'."""
        network = {
            "cniVersion": "0.4.0",
            "name": "countersign",
            "plugins": [
                {
                    "type": "ptp",
                    "ipMasq": False,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": pods}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                        "dataDir": "/run/cni",  # a node that starts anew has given no address away
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }
        for where, via in others.items():
            self.shell("ip", "route", "replace", where, "via", via)
        host.route(pods, self.address)
        folder = self.directory / "cni"
        (folder / ".new").write_text(json.dumps(network))
        (folder / ".new").replace(folder / "10-countersign.conflist")

    def _enter(self) -> tuple[str, ...]:
        return ("nsenter", "-t", str(self.pid), "-m", "-n", "-u", "-i", "-p", "--")

    def _start(self, name: str, *words: str | Path) -> None:
        leave_running(name, [*self._enter(), *words], self.directory / f"{name}.log")

    def _write_settings(self, plane: FullPlane) -> None:
        (self.directory / "cni").mkdir()
        (self.directory / "resolv.conf").write_text(f"nameserver {host.ADDRESS}\n")
        (self.directory / "ca.crt").write_bytes(plane.ca.pem)
        plane.kubelet_serving(self.name, self.address).write(self.directory, "kubelet")
        plane.kubeconfig(self.directory / "kubelet.kubeconfig", plane.node_client(self.name))
        plane.kubeconfig(self.directory / "proxy.kubeconfig", plane.client("system:kube-proxy"))
        (self.directory / "containerd.toml").write_text(_containerd(self.directory / "cni"))
        (self.directory / "kubelet.yaml").write_text(yaml.safe_dump(_kubelet(self.name, self.directory)))
        (self.directory / "proxy.yaml").write_text(yaml.safe_dump(_proxy(self.directory)))


def _await(condition: Callable[[], bool], what: str, words: Callable[[], str], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"after {seconds:g} s still not: {what}\n{words()}")
        time.sleep(0.05)


def _containerd(cni: Path) -> str:
    return f"""version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "countersign.local/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
"""


def _kubelet(name: str, directory: Path) -> dict[str, object]:
    nearly_none = {"memory.available": "50Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%"}
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/countersign/{name}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(directory / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(directory / "kubelet.crt"),
        "tlsPrivateKeyFile": str(directory / "kubelet.key"),
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
        "resolvConf": str(directory / "resolv.conf"),
        # A developer's disk that is nearly full is no reason to evict.
        "evictionHard": {**nearly_none, "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "nodeStatusUpdateFrequency": "5s",
    }


def _proxy(directory: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(directory / "proxy.kubeconfig")},
        "mode": "iptables",
        "detectLocalMode": "InterfaceNamePrefix",
        "detectLocal": {"interfaceNamePrefix": "veth"},
        "conntrack": {"maxPerCore": 0, "min": 0},
        "oomScoreAdj": 0,
    }
