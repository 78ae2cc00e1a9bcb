"""A real etcd, kube-apiserver and kube-controller-manager on 127.0.0.1, unprivileged, thrown away afterwards.

TLS everywhere, RBAC and the Node authorizer, NodeRestriction. What is not here: a scheduler and kubelets; whoever needs
a running pod plays the kubelet with a node's client certificate, or takes :mod:`countersign.devcluster.full`.
"""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import time
from http.client import HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from countersign.devcluster.kubeconfig import write_kubeconfig, write_webhook_clients
from countersign.devcluster.pki import LocalCA, Pair, private_pem, public_pem, write_private
from countersign.devcluster.process import Child, start

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from countersign.devcluster.binaries import Binaries

__all__ = ["Plane", "PlaneError", "free_ports"]

_HOST: Final = "127.0.0.1"
_SERVICES: Final = "10.96.0.0/16"
_SERVER_NAMES: Final = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
    "127.0.0.1",
    "10.96.0.1",
)
# Not node-lifecycle and not pod-garbage-collector: nobody renews the nodes' Leases here, and they would evict the pods.
_CONTROLLERS: Final = (
    "clusterrole-aggregation-controller",
    "deployment-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "replicaset-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "validatingadmissionpolicy-status-controller",
)
_TRIES: Final = 3
_SECONDS: Final = 90.0


class PlaneError(Exception):
    """The control plane did not come up; the words are those of the program that failed."""


def free_ports(count: int) -> list[int]:
    """Return ``count`` different TCP ports that were free on 127.0.0.1 a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((_HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Plane:
    """One control plane: its processes, its CAs and the kubeconfigs it hands out.

    ``directory`` holds everything and is emptied first. ``webhook_hosts`` are the webhooks (``HOST:PORT``, or ``*``)
    to which the API server shows a client certificate of :attr:`webhook_client_ca`. With ``outlive`` the processes
    stay when the caller ends. ``flags`` are more flags of the API server.
    """

    host = _HOST  # what the API server listens on

    def __init__(
        self,
        binaries: Binaries,
        directory: Path,
        *,
        webhook_hosts: Sequence[str] = (),
        outlive: bool = False,
        flags: Sequence[str] = (),
    ) -> None:
        """Only remember; :meth:`start` begins."""
        self.binaries = binaries
        self.directory = directory
        self.ca = LocalCA("countersign-dev-ca")
        self.webhook_client_ca = LocalCA("countersign-dev-webhook-client-ca")
        self._etcd_ca = LocalCA("countersign-dev-etcd-ca")
        self._webhook_hosts = list(webhook_hosts)
        self._outlive = outlive
        self.flags = list(flags)
        self._children: dict[str, Child] = {}
        self._ports: list[int] = []

    @property
    def url(self) -> str:
        """The API server's URL."""
        return f"https://{self.host}:{self._ports[2]}"

    @property
    def children(self) -> list[Child]:
        """The running programs."""
        return list(self._children.values())

    @property
    def admin_kubeconfig(self) -> Path:
        """A kubeconfig of a member of ``system:masters``."""
        return self.directory / "admin.kubeconfig"

    def start(self, say: Callable[[str], None] = lambda _line: None) -> None:
        """Start the programs and return when the API server is ready and the default ServiceAccount exists.

        Takes about ten seconds. Raises :class:`PlaneError`; nothing is left running then.
        """
        shutil.rmtree(self.directory, ignore_errors=True)
        (self.directory / "pki").mkdir(parents=True, mode=0o700)
        self._write_pki()
        for attempt in range(1, _TRIES + 1):
            self._ports = free_ports(3)
            try:
                self._start_etcd()
                self.start_apiserver()
                break
            except PlaneError:
                # A port that was free may be taken by now: the one failure worth another try.
                self.stop()
                if attempt == _TRIES:
                    raise
                say("the API server did not start; trying other ports")
        try:
            self._write_kubeconfigs()
            self._start_controllers()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every program, the API server before its store. Safe to call twice."""
        for name in ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"):
            if child := self._children.pop(name, None):
                # Nothing here is worth a graceful end: the data is thrown away, and the API server would wait for watches.
                child.kill()

    def kill_apiserver(self) -> None:
        """Kill the API server as a crash would; :meth:`start_apiserver` brings it back with its data and port."""
        self._children.pop("kube-apiserver").kill()

    def start_apiserver(self) -> None:
        """Start the API server and return when it is ready. Raises :class:`PlaneError`."""
        child = self._run("kube-apiserver", [self.binaries.kube_apiserver, *self._apiserver_flags()])
        self._await("kube-apiserver", child, self._ready)

    def client(self, common_name: str, organizations: Sequence[str] = ()) -> Pair:
        """Issue a client certificate: user ``common_name`` in the groups ``organizations``."""
        return self.ca.issue(common_name, organizations)

    def kubeconfig(self, path: Path, user: Pair | Path, namespace: str = "default") -> Path:
        """Write a kubeconfig for a client certificate or a token file, and return its path."""
        return write_kubeconfig(path, server=self.url, ca=self.ca.pem, user=user, namespace=namespace)

    def kubectl(self, *arguments: str, data: str | None = None, check: bool = True) -> str:
        """Run kubectl as administrator with ``data`` on standard input; return its standard output.

        Raises :class:`PlaneError` with kubectl's words if it fails and ``check`` is true.
        """
        command = [str(self.binaries.kubectl), f"--kubeconfig={self.admin_kubeconfig}", *arguments]
        done = subprocess.run(command, input=data, capture_output=True, text=True, check=False, timeout=120)
        if check and done.returncode:
            raise PlaneError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """Return what ``kubectl get -o json`` answers, parsed."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def _run(self, name: str, command: Sequence[str | Path]) -> Child:
        log = self.directory / "logs" / f"{name}.log"
        self._children[name] = start(name, command, log=log, outlive=self._outlive)
        return self._children[name]

    def _await(self, what: str, child: Child, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + _SECONDS
        while not ready():
            if not child.alive:
                raise PlaneError(f"{child.name} ended:\n{child.tail()}")
            if time.monotonic() > end:
                raise PlaneError(f"{what} was not ready after {_SECONDS:.0f} s:\n{child.tail()}")
            time.sleep(0.1)

    def _ready(self) -> bool:
        context = ssl.create_default_context(cadata=self.ca.pem.decode())
        connection = HTTPSConnection(self.host, self._ports[2], timeout=5, context=context)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200  # noqa: PLR2004 - HTTP's OK
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _has_default_account(self) -> bool:
        return "default" in self.kubectl("get", "serviceaccount", "-n", "default", "-o", "name", check=False)

    def _write_pki(self) -> None:
        pki = self.directory / "pki"
        for name, ca in (("ca", self.ca), ("etcd-ca", self._etcd_ca), ("webhook-client-ca", self.webhook_client_ca)):
            write_private(pki / f"{name}.crt", ca.pem)
        self._etcd_ca.issue("etcd", names=[_HOST]).write(pki, "etcd")
        self._etcd_ca.issue("kube-apiserver").write(pki, "etcd-client")
        self.ca.issue("kube-apiserver", names={*_SERVER_NAMES, self.host}).write(pki, "apiserver")
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(pki / "sa.key", private_pem(key))
        write_private(pki / "sa.pub", public_pem(key))

    def _write_kubeconfigs(self) -> None:
        self.kubeconfig(self.admin_kubeconfig, self.client("countersign-dev-admin", ["system:masters"]))
        manager = self.client("system:kube-controller-manager")
        self.kubeconfig(self.directory / "controller-manager.kubeconfig", manager)

    def _start_etcd(self) -> None:
        pki, own, peer = (
            self.directory / "pki",
            f"https://{_HOST}:{self._ports[0]}",
            f"http://{_HOST}:{self._ports[1]}",
        )
        data = self.directory / "etcd"
        shutil.rmtree(data, ignore_errors=True)
        flags = [f"--data-dir={data}", f"--listen-client-urls={own}", f"--advertise-client-urls={own}"]
        flags += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        flags += [f"--initial-cluster=default={peer}", "--unsafe-no-fsync", "--log-level=error", "--client-cert-auth"]
        flags += [f"--cert-file={pki / 'etcd.crt'}", f"--key-file={pki / 'etcd.key'}"]
        flags += [f"--trusted-ca-file={pki / 'etcd-ca.crt'}"]
        self._run("etcd", [self.binaries.etcd, *flags])

    def _apiserver_flags(self) -> list[str]:
        pki = self.directory / "pki"
        flags = [f"--etcd-servers=https://{_HOST}:{self._ports[0]}", f"--etcd-cafile={pki / 'etcd-ca.crt'}"]
        flags += [f"--etcd-certfile={pki / 'etcd-client.crt'}", f"--etcd-keyfile={pki / 'etcd-client.key'}"]
        flags += [f"--bind-address={self.host}", f"--secure-port={self._ports[2]}", "--profiling=false"]
        flags += [f"--tls-cert-file={pki / 'apiserver.crt'}", f"--tls-private-key-file={pki / 'apiserver.key'}"]
        flags += [f"--client-ca-file={pki / 'ca.crt'}", "--authorization-mode=Node,RBAC"]
        flags += ["--enable-admission-plugins=NodeRestriction", f"--service-cluster-ip-range={_SERVICES}"]
        # As in every real cluster: what may be privileged is for admission to say.
        flags += ["--service-account-issuer=https://kubernetes.default.svc.cluster.local", "--allow-privileged=true"]
        flags += [
            f"--service-account-key-file={pki / 'sa.pub'}",
            f"--service-account-signing-key-file={pki / 'sa.key'}",
        ]
        if self._webhook_hosts:
            pair = self.webhook_client_ca.issue("kube-apiserver")
            file = write_webhook_clients(self.directory, self._webhook_hosts, pair)
            flags.append(f"--admission-control-config-file={file}")
        return [*flags, *self.flags]

    def _start_controllers(self) -> None:
        child = self._run("kube-controller-manager", [self.binaries.kube_controller_manager, *self._manager_flags()])
        self._await("the default ServiceAccount", child, self._has_default_account)

    def _manager_flags(self) -> list[str]:
        return [*self._manager_basics(), "--secure-port=0", f"--controllers={','.join(_CONTROLLERS)}"]

    def _manager_basics(self) -> list[str]:
        pki, kubeconfig = self.directory / "pki", self.directory / "controller-manager.kubeconfig"
        flags = [f"--{kind}kubeconfig={kubeconfig}" for kind in ("", "authentication-", "authorization-")]
        flags += [f"--service-account-private-key-file={pki / 'sa.key'}", f"--root-ca-file={pki / 'ca.crt'}"]
        return [*flags, "--use-service-account-credentials", "--leader-elect=false"]
