"""Who used which right: the API server's audit log of what our processes did, with nothing but what the chart gives them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from countersign.devcluster import Plane

SYSTEM: Final = "countersign-system"
PROCESSES: Final = ("operator", "webhook", "authority", "node")
_CHART: Final = Path(__file__).parents[2] / "charts" / "countersign"
_LOG: Final = "--audit-log-path="


def audit_flags(directory: Path) -> list[str]:
    """Flags that make an API server write down each request of our processes, and of nobody else."""
    users = [user_of(process) for process in PROCESSES]
    rules = [{"level": "Metadata", "users": users, "omitStages": ["RequestReceived"]}, {"level": "None"}]
    policy = directory / "audit-policy.yaml"
    policy.write_text(yaml.safe_dump({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}))
    return [f"--audit-policy-file={policy}", f"{_LOG}{directory / 'audit.jsonl'}", "--audit-log-mode=blocking"]


def audit_log(plane: Plane) -> Path:
    """Return where an API server that was started with :func:`audit_flags` writes."""
    [flag] = [flag for flag in plane.flags if flag.startswith(_LOG)]
    return Path(flag.removeprefix(_LOG))


def user_of(process: str) -> str:
    return f"system:serviceaccount:{SYSTEM}:countersign-{process}"


def grant(plane: Plane, process: str, *values: str) -> None:
    """Give the ServiceAccount of a process what the chart gives it, and nothing else."""
    if SYSTEM not in plane.kubectl("get", "namespaces", "-o", "name"):
        plane.kubectl("create", "namespace", SYSTEM)
    words = [word for each in values for word in ("--set", each)]
    chart = [str(_CHART), "--namespace", SYSTEM, "-s", f"templates/{process}/rbac.yaml", *words]
    command = [str(plane.binaries.helm), "template", "countersign", *chart]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    plane.kubectl("apply", "-f", "-", data=rendered)


def token_of(plane: Plane, process: str, file: Path) -> Path:
    """Write a token of the process's ServiceAccount."""
    file.write_text(
        plane.kubectl("create", "token", f"countersign-{process}", "-n", SYSTEM, "--duration=3600s").strip()
    )
    return file


def requests(log: Path) -> Iterator[dict[str, Any]]:
    for line in log.read_text().splitlines():
        event = json.loads(line)
        if "objectRef" in event:
            yield event


def right_of(event: dict[str, Any]) -> tuple[str, str]:
    """The right that a request needed: resource with its subresource, and verb."""
    ref = event["objectRef"]
    return "/".join(filter(None, (ref["resource"], ref.get("subresource")))), event["verb"]


def is_allowed(event: dict[str, Any]) -> bool:
    return bool(event.get("annotations", {}).get("authorization.k8s.io/decision") == "allow")
