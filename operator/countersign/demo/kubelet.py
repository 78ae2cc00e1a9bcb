"""The kubelet's part, played with each node's own client certificate, so that the Node authorizer is in the way.

A pod here is an object and a folder: its bound token (0600, renewed), its trust files, and the process that the story
starts for its signer. Everything asked of the API server goes through kubectl as ``system:node:NAME``.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from countersign.demo.kubectl import Kubectl
from countersign.devcluster import write_private

if TYPE_CHECKING:
    from pathlib import Path

    from countersign.devcluster import Pair, Plane

__all__ = ["Kubelet", "PodFolder", "renew_token"]

_TOKEN_SECONDS: Final = 600
_RENEW_SECONDS: Final = 300.0
_AUDIENCE: Final = "countersign.dev"
_DIGEST: Final = "sha256:" + "5a" * 32


@dataclass
class PodFolder:
    """A pod as its node sees it: names, uid, and the folder with the files that would be mounted."""

    namespace: str
    name: str
    uid: str
    service_account: str
    node: str
    directory: Path
    renewed: float = field(default=0.0)

    @property
    def token(self) -> Path:
        """The projected ServiceAccount token."""
        return self.directory / "token"

    @property
    def trust(self) -> Path:
        """The folder in which ``countersign-trust`` is mounted."""
        return self.directory / "trust"


class Kubelet:
    """One node: its certificate, its kubectl and its pods."""

    def __init__(self, plane: Plane, node: str, directory: Path) -> None:
        """Get a client certificate ``system:node:NODE`` for the node called ``node``."""
        self.node = node
        self.directory = directory
        self.pair: Pair = plane.client(f"system:node:{node}", ["system:nodes"])
        self.pair.write(directory, node)
        self.kubectl = Kubectl(plane.binaries.kubectl, plane.kubeconfig(directory / f"{node}.kubeconfig", self.pair))
        self.pods: dict[str, PodFolder] = {}

    def run(self, pod: dict[str, Any]) -> PodFolder:
        """Take the pod up: fetch its token and its trust files, and report it Running and Ready."""
        meta, spec = pod["metadata"], pod["spec"]
        folder = PodFolder(
            meta["namespace"],
            meta["name"],
            meta["uid"],
            spec.get("serviceAccountName", "default"),
            self.node,
            self.directory / f"{meta['namespace']}.{meta['name']}",
        )
        folder.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.renew(folder)
        self._mount_trust(folder)
        # A node may write pods/status but not read it, and `kubectl patch` reads first: so the plain PUT of a kubelet.
        path = f"/api/v1/namespaces/{folder.namespace}/pods/{folder.name}/status"
        self.kubectl.run("replace", "--raw", path, "-f", "-", data=json.dumps({**pod, "status": _status(spec)}))
        self.pods[folder.name] = folder
        return folder

    def renew(self, folder: PodFolder) -> None:
        """Write a fresh token that is bound to the pod into its 0600 file."""
        renew_token(self.kubectl, folder.namespace, folder.name, folder.uid, folder.service_account, folder.token)
        folder.renewed = time.monotonic()

    def renew_due(self) -> None:
        """Renew every token that is half used, and mount trust files that changed."""
        for folder in list(self.pods.values()):
            self._mount_trust(folder)
            if time.monotonic() - folder.renewed > _RENEW_SECONDS:
                self.renew(folder)

    def remove(self, name: str) -> None:
        """Finish the deletion of a pod whose containers have ended: the object goes at once."""
        folder = self.pods.pop(name)
        words = ["delete", "pod", name, "-n", folder.namespace, "--grace-period=0", "--force", "--wait=false"]
        self.kubectl.run(*words, "--ignore-not-found")

    def _mount_trust(self, folder: PodFolder) -> None:
        found = self.kubectl.get("configmap", "countersign-trust", "-n", folder.namespace)
        for name, text in found["data"].items():
            path = folder.trust / name
            if not path.is_file() or path.read_text() != text:
                write_private(path, text.encode())


def renew_token(kubectl: Kubectl, namespace: str, pod: str, uid: str, account: str, path: Path) -> None:
    """Write a fresh token of ServiceAccount ``account``, bound to ``pod``, to ``path`` (0600)."""
    bound = ["--bound-object-kind=Pod", f"--bound-object-name={pod}", f"--bound-object-uid={uid}"]
    words = ["create", "token", account, "-n", namespace, f"--audience={_AUDIENCE}"]
    token = kubectl.run(*words, f"--duration={_TOKEN_SECONDS}s", *bound).strip()
    write_private(path, token.encode())


def _status(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the status of a pod whose containers all run and are ready."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")

    def running(container: dict[str, Any]) -> dict[str, Any]:
        image = container["image"]
        return {
            "name": container["name"],
            "image": image,
            "imageID": f"{image.rpartition(':')[0] or image}@{_DIGEST}",
            "containerID": f"containerd://{container['name']}",
            "ready": True,
            "started": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": now}},
        }

    return {
        "phase": "Running",
        "hostIP": "127.0.0.1",
        "podIP": "127.0.0.1",
        "startTime": now,
        "conditions": [{"type": name, "status": "True", "lastTransitionTime": now} for name in conditions],
        "initContainerStatuses": [running(each) for each in spec.get("initContainers", [])],
        "containerStatuses": [running(each) for each in spec["containers"]],
    }
