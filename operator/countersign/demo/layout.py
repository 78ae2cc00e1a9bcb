"""Where a run keeps its things, which ports it uses, and the settings files that the processes are given."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from countersign.devcluster import free_ports, write_private

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["IMAGE", "SYSTEM", "Layout", "Ports", "is_free", "neighbours", "project_root", "require_ports"]

SYSTEM: Final = "countersign-system"
IMAGE: Final = "localhost/countersign:demo"
_VERSION: Final = "demo"
_HOST: Final = "127.0.0.1"
_CLUSTER: Final = "demo"


def project_root() -> Path:
    """Return the folder that holds ``charts`` and ``examples``. Raises ``FileNotFoundError`` with what to do."""
    for place in (Path(__file__).parents[3], Path.cwd()):
        if (place / "charts" / "countersign").is_dir() and (place / "examples" / "quickstart").is_dir():
            return place
    raise FileNotFoundError("charts/countersign and examples/quickstart: run the demo in a clone of the project")


@dataclass(frozen=True)
class Ports:
    """TCP ports on 127.0.0.1, free a moment ago."""

    calls: int
    admission: int
    authority: int
    operator_health: int
    webhook_health: int
    authority_health: int
    tools: int

    @classmethod
    def free(cls) -> Ports:
        """Choose ports that nobody listens on."""
        return cls(*free_ports(7))


def neighbours() -> int:
    """Return a port that is free a moment ago like the one after it: what one more signer needs, with its health."""
    while True:
        port = free_ports(1)[0]
        if is_free(port + 1):
            return port


def require_ports(ports: Iterable[int]) -> None:
    """Raise ``OSError`` that names the first of ``ports``, and the one after each, on which somebody listens."""
    for port in (one for first in ports for one in (first, first + 1)):
        if not is_free(port):
            raise OSError(f"port {port} of 127.0.0.1 is in use: stop what listens there (ss -ltnp sport = :{port})")


def is_free(port: int) -> bool:
    """Tell whether 127.0.0.1:``port`` can be listened on now."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((_HOST, port))
        except (OSError, OverflowError):
            return False
        return True


@dataclass(frozen=True)
class Layout:
    """The folders and addresses of one run."""

    directory: Path
    ports: Ports

    @property
    def issuer(self) -> str:
        """The webhook's URL for calls, which is the issuer's name."""
        return f"https://{_HOST}:{self.ports.calls}"

    @property
    def admission_url(self) -> str:
        """The webhook's URL for the API server."""
        return f"https://{_HOST}:{self.ports.admission}"

    @property
    def authority_url(self) -> str:
        """The authority's base URL."""
        return f"https://{_HOST}:{self.ports.authority}"

    @property
    def tools_url(self) -> str:
        """The tool server's endpoint."""
        return f"http://{_HOST}:{self.ports.tools}/mcp"

    @property
    def mounts(self) -> Path:
        """The Secrets as files."""
        return self.directory / "mounts"

    @property
    def serving_ca(self) -> Path:
        """The CA (PEM) of the serving certificates."""
        return self.mounts / "countersign-webhook-tls" / "ca.crt"

    def audit(self, process: str) -> Path:
        """Where ``process`` keeps its audit log."""
        return self.directory / "audit" / process

    def kubeconfig(self, account: str) -> Path:
        """Return the kubeconfig of the chart's ServiceAccount ``account``."""
        return self.directory / "accounts" / f"{account}.kubeconfig"

    def write_settings(
        self, audiences: list[dict[str, Any]], webhook_client_ca: Path, more: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Path]:
        """Write each process's settings file, with what ``more`` says of it, and return them by process."""
        names = [_HOST, "localhost"]
        injection = {"image": IMAGE, "version": _VERSION}
        common = {"namespace": SYSTEM, "cluster": _CLUSTER}
        documents: dict[str, dict[str, Any]] = {
            "operator": {
                **common,
                "webhook_url": self.issuer,
                "authority_url": self.authority_url,
                "webhook_names": names,
                "authority_names": names,
                "injection": injection,
                "health": {"host": _HOST, "port": self.ports.operator_health},
            },
            "webhook": {
                **common,
                "issuer": self.issuer,
                "admission": {
                    "host": _HOST,
                    "port": self.ports.admission,
                    **self._tls("webhook"),
                    "client_ca": str(webhook_client_ca),
                },
                "calls": {"host": _HOST, "port": self.ports.calls, **self._tls("webhook")},
                "health": {"host": _HOST, "port": self.ports.webhook_health},
                "token_keys": str(self.mounts / "countersign-token-keys"),
                "audit": {"directory": str(self.audit("webhook"))},
                "audiences": audiences,
                "injection": injection,
            },
            "authority": {
                **common,
                "url": self.authority_url,
                "listen": {"host": _HOST, "port": self.ports.authority, **self._tls("authority")},
                "health": {"host": _HOST, "port": self.ports.authority_health},
                "database_url": f"sqlite+aiosqlite:///{self.directory / 'authority.db'}",
                "audit": {"directory": str(self.audit("authority"))},
                "injection": injection,
            },
        }
        files = {}
        for process, document in documents.items():
            self.audit(process).mkdir(parents=True, exist_ok=True, mode=0o700)
            account = {"kubeconfig": str(self.kubeconfig(f"countersign-{process}"))}
            text = yaml.safe_dump({**account, **document, **more.get(process, {})})
            files[process] = write_private(self.directory / "settings" / f"{process}.yaml", text.encode())
        return files

    def _tls(self, process: str) -> dict[str, str]:
        place = self.mounts / f"countersign-{process}-tls"
        return {"tls_cert": str(place / "tls.crt"), "tls_key": str(place / "tls.key")}
