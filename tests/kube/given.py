"""Pods and identities that the tests of injection start from."""

from __future__ import annotations

from typing import Any

from countersign.kube.injection import InjectionSettings

SETTINGS = InjectionSettings(image="countersign:test", version="0.1.0")
OPTED_IN = {"countersign.dev/injection": "enabled"}


def identity(name: str = "refund-agent", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "countersign.dev/v1alpha1",
        "kind": "AgentIdentity",
        "metadata": {"name": name, "namespace": "billing", "uid": f"uid-{name}"},
        "spec": {"serviceAccountName": "refund-agent", **spec},
    }


def pod(labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "refund-1", "namespace": "billing", "labels": labels or {"app": "refund-agent"}},
        "spec": {
            "serviceAccountName": "refund-agent",
            "containers": [{"name": "agent", "image": "agent@sha256:aa"}],
            **spec,
        },
    }
