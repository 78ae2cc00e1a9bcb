"""The whole control plane, for real nodes: every controller, a scheduler, and an API server that speaks to kubelets.

It listens on the address of a bridge that the caller has made, where the nodes can reach it. Everything else is
:class:`~countersign.devcluster.plane.Plane`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from countersign.devcluster.pki import LocalCA, Pair, write_private
from countersign.devcluster.plane import Plane, free_ports

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from countersign.devcluster.binaries import Binaries, NodeBinaries

__all__ = ["PODS", "SERVICES", "FullPlane"]

PODS = "10.244.0.0/16"
SERVICES = "10.96.0.0/16"


class FullPlane(Plane):
    """A control plane to which kubelets can be joined."""

    def __init__(
        self,
        binaries: Binaries,
        nodes: NodeBinaries,
        directory: Path,
        *,
        host: str,
        webhook_hosts: Sequence[str] = (),
        outlive: bool = False,
    ) -> None:
        """Only remember; ``host`` is the address of this machine that the nodes reach."""
        super().__init__(binaries, directory, webhook_hosts=webhook_hosts, outlive=outlive)
        self.host = host
        self._nodes = nodes
        self._front_proxy_ca = LocalCA("countersign-dev-front-proxy-ca")

    def kubelet_serving(self, name: str, address: str) -> Pair:
        """Issue the certificate with which the kubelet of node ``name`` serves at ``address``."""
        return self.ca.issue(f"system:node:{name}", ["system:nodes"], names=[name, address])

    def node_client(self, name: str) -> Pair:
        """Issue the certificate with which the kubelet of node ``name`` speaks to the API server."""
        return self.client(f"system:node:{name}", ["system:nodes"])

    def _write_pki(self) -> None:
        super()._write_pki()
        pki = self.directory / "pki"
        write_private(pki / "ca.key", self.ca.key_pem)
        write_private(pki / "front-proxy-ca.crt", self._front_proxy_ca.pem)
        self._front_proxy_ca.issue("front-proxy-client").write(pki, "front-proxy-client")
        self.client("kube-apiserver-kubelet-client", ["system:masters"]).write(pki, "kubelet-client")

    def _write_kubeconfigs(self) -> None:
        super()._write_kubeconfigs()
        self.kubeconfig(self.directory / "scheduler.kubeconfig", self.client("system:kube-scheduler"))

    def _apiserver_flags(self) -> list[str]:
        pki = self.directory / "pki"
        flags = [f"--advertise-address={self.host}", "--allow-privileged", "--enable-aggregator-routing=true"]
        flags += [f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}"]
        flags += [f"--kubelet-client-key={pki / 'kubelet-client.key'}"]
        flags += [f"--kubelet-certificate-authority={pki / 'ca.crt'}", "--kubelet-preferred-address-types=InternalIP"]
        flags += [f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}"]
        flags += ["--requestheader-allowed-names=front-proxy-client", "--requestheader-username-headers=X-Remote-User"]
        flags += [
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        ]
        flags += [f"--proxy-client-cert-file={pki / 'front-proxy-client.crt'}"]
        flags += [f"--proxy-client-key-file={pki / 'front-proxy-client.key'}"]
        return [*super()._apiserver_flags(), *flags]

    def _manager_flags(self) -> list[str]:
        pki = self.directory / "pki"
        flags = [f"--cluster-signing-cert-file={pki / 'ca.crt'}", f"--cluster-signing-key-file={pki / 'ca.key'}"]
        flags += ["--allocate-node-cidrs", f"--cluster-cidr={PODS}", f"--service-cluster-ip-range={SERVICES}"]
        # Five times sooner than by default does a dead node show.
        flags += ["--node-monitor-grace-period=10s", "--bind-address=127.0.0.1", f"--secure-port={free_ports(1)[0]}"]
        return [*self._manager_basics(), *flags]

    def _start_controllers(self) -> None:
        kubeconfig = self.directory / "scheduler.kubeconfig"
        flags = [f"--{kind}kubeconfig={kubeconfig}" for kind in ("", "authentication-", "authorization-")]
        flags += ["--leader-elect=false", "--bind-address=127.0.0.1", f"--secure-port={free_ports(1)[0]}"]
        self._run("kube-scheduler", [self._nodes.kube_scheduler, *flags])
        super()._start_controllers()
