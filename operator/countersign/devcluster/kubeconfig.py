"""Kubeconfig files: for a client certificate, or for a token kept in a file and read again when it changes."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import yaml

from countersign.devcluster.pki import Pair, write_private

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write_kubeconfig", "write_webhook_clients"]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def write_kubeconfig(path: Path, *, server: str, ca: bytes, user: Pair | Path, namespace: str = "default") -> Path:
    """Write a kubeconfig (0600) for ``server``; ``user`` is a client certificate or the path of a token file."""
    credentials: dict[str, Any] = (
        {"client-certificate-data": _text(user.certificate), "client-key-data": _text(user.key)}
        if isinstance(user, Pair)
        else {"tokenFile": str(user)}
    )
    name = "countersign-dev"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": _text(ca)}}],
        "users": [{"name": name, "user": credentials}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}],
        "current-context": name,
    }
    return write_private(path, yaml.safe_dump(document, sort_keys=False).encode())


def write_webhook_clients(directory: Path, hosts: list[str], pair: Pair) -> Path:
    """Write an AdmissionConfiguration with which the API server shows ``pair`` to the webhooks at ``hosts``.

    ``hosts`` are ``HOST:PORT`` as in the webhook's URL; ``*`` stands for every webhook. Returns the file for
    ``--admission-control-config-file``.
    """
    credentials = {"client-certificate-data": _text(pair.certificate), "client-key-data": _text(pair.key)}
    users = {
        "apiVersion": "v1",
        "kind": "Config",
        "users": [{"name": host, "user": credentials} for host in hosts],
    }
    clients = write_private(directory / "webhook-clients.kubeconfig", yaml.safe_dump(users).encode())
    settings = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "WebhookAdmissionConfiguration",
        "kubeConfigFile": str(clients),
    }
    document = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AdmissionConfiguration",
        "plugins": [
            {"name": name, "configuration": settings}
            for name in ("MutatingAdmissionWebhook", "ValidatingAdmissionWebhook")
        ],
    }
    return write_private(directory / "admission.yaml", yaml.safe_dump(document).encode())
