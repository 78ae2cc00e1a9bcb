"""The parts that injection puts into a pod (crds.md 4.1), as the dicts that a pod holds. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

__all__ = [
    "SIGNER",
    "SIGNER_UID",
    "TOKEN",
    "TPM",
    "TRUST",
    "InjectionSettings",
    "port_of",
    "signer_container",
    "volumes",
]

SIGNER: Final = "countersign-signer"
SIGNER_UID: Final = 64174
TPM: Final = "countersign.dev/tpm"
TOKEN: Final = "countersign-token"  # noqa: S105 - a volume's name
TRUST: Final = "countersign-trust"
_PORT: Final = 7080
_TOKEN_SECONDS: Final = 600
_TOKEN_DIR: Final = "/var/run/countersign/token"  # noqa: S105 - a path
_TRUST_DIR: Final = "/var/run/countersign/trust"


@dataclass(frozen=True)
class InjectionSettings:
    """What is the same for every pod of a cluster.

    ``image`` is the signer's; ``version`` goes into the annotation. ``former_images`` are those of releases whose pods still
    run: they stay good until the pods are made again, or an upgrade would shut every running agent out.
    """

    image: str
    version: str
    token_audience: str = "countersign.dev"  # noqa: S105 - an audience
    former_images: tuple[str, ...] = ()


def port_of(identity: dict[str, Any]) -> int:
    """Return the loopback port of the signer; health and metrics are on the next one."""
    return int((identity["spec"].get("signer") or {}).get("port", _PORT))


def signer_container(identity: dict[str, Any], settings: InjectionSettings) -> dict[str, Any]:
    """Return the signer: a native sidecar that starts before everything else and may do nothing else."""
    port = port_of(identity)
    variables = {
        "COUNTERSIGN_SIGNER_TRUST_DIR": _TRUST_DIR,
        "COUNTERSIGN_SIGNER_TOKEN_FILE": f"{_TOKEN_DIR}/token",
        "COUNTERSIGN_SIGNER_PORT": str(port),
    }
    return {
        "name": SIGNER,
        "image": settings.image,
        "command": ["countersign", "signer"],
        "restartPolicy": "Always",
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "resources": _resources(identity),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsGroup": SIGNER_UID,
            "runAsNonRoot": True,
            "runAsUser": SIGNER_UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        # The agent starts when the signer has its certificate; a device that is not approved yet keeps it waiting.
        "startupProbe": {
            "httpGet": {"path": "/readyz", "port": port + 1},
            "periodSeconds": 1,
            "timeoutSeconds": 2,
            "failureThreshold": 300,
        },
        "volumeMounts": [
            {"name": TOKEN, "mountPath": _TOKEN_DIR, "readOnly": True},
            {"name": TRUST, "mountPath": _TRUST_DIR, "readOnly": True},
        ],
    }


def volumes(settings: InjectionSettings) -> list[dict[str, Any]]:
    """Return the two volumes, which are mounted in the signer alone."""
    token = {"audience": settings.token_audience, "expirationSeconds": _TOKEN_SECONDS, "path": "token"}
    return [
        {"name": TOKEN, "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": TRUST, "configMap": {"name": TRUST}},
    ]


def _resources(identity: dict[str, Any]) -> dict[str, Any]:
    """Return the identity's resources and one TPM, unless the identity admits Software.

    The TPM stands under limits and requests, because Kubernetes wants both equal and would fill in the other.
    """
    spec = identity["spec"]
    found = {kind: dict(amounts) for kind, amounts in ((spec.get("signer") or {}).get("resources") or {}).items()}
    if spec.get("minAssurance", "Hardware") != "Software":
        for kind in ("limits", "requests"):
            found[kind] = {**found.get(kind, {}), TPM: "1"}
    return found
