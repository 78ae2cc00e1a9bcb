"""kubectl as somebody: what a person or a kubelet would type, with its words when it is refused."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Kubectl", "KubectlError"]


class KubectlError(Exception):
    """kubectl was refused; the text is its standard error."""


class Kubectl:
    """kubectl with one kubeconfig."""

    def __init__(self, program: Path, kubeconfig: Path) -> None:
        """Remember who calls."""
        self.program = program
        self.kubeconfig = kubeconfig

    def run(self, *words: str, data: str | None = None) -> str:
        """Run ``kubectl WORDS`` with ``data`` on standard input and return its output.

        Raises :class:`KubectlError`.
        """
        command = [str(self.program), f"--kubeconfig={self.kubeconfig}", *words]
        done = subprocess.run(command, input=data, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise KubectlError(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def get(self, *words: str) -> Any:
        """Return ``kubectl get WORDS -o json``, parsed."""
        return json.loads(self.run("get", *words, "-o", "json"))

    def apply(self, objects: Sequence[dict[str, Any]], *words: str) -> str:
        """Apply ``objects`` in order with strict validation, as ``kubectl apply`` does."""
        bundle = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        return self.run("apply", *words, "-f", "-", data=json.dumps(bundle))

    def wait(self, what: str, *words: str, seconds: int = 30) -> None:
        """Run ``kubectl wait --for=WHAT WORDS``."""
        self.run("wait", f"--for={what}", f"--timeout={seconds}s", *words)
