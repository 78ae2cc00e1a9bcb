"""Secrets as files: what kubelet does for the operator's Secrets, done here, and again when they change."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from countersign.devcluster import write_private

if TYPE_CHECKING:
    from pathlib import Path

    from countersign.demo.kubectl import Kubectl

__all__ = ["MOUNTED", "mount_secrets"]

MOUNTED: Final = ("countersign-webhook-tls", "countersign-authority-tls", "countersign-token-keys")
"""The Secrets that processes read as files; the CA's key is not among them, and the authority reads its own by API."""


def mount_secrets(kubectl: Kubectl, namespace: str, directory: Path) -> set[str]:
    """Write each Secret of :data:`MOUNTED` to ``directory/NAME/KEY`` (0600) where it differs; return those that exist."""
    found = set()
    for secret in kubectl.get("secrets", "-n", namespace)["items"]:
        name = secret["metadata"]["name"]
        if name not in MOUNTED:
            continue
        found.add(name)
        for key, value in (secret.get("data") or {}).items():
            data, path = base64.b64decode(value), directory / name / key
            if not path.is_file() or path.read_bytes() != data:
                write_private(path, data)
    return found
