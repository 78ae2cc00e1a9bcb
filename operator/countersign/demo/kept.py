"""``--keep``: what a person or a stranger's client finds after the story, and the small daemon that keeps it fresh.

``python -m countersign.demo.kept demo.json`` plays kubelet on: it mounts Secrets and renews pods' tokens until the API
server has not answered for a minute. ``countersign dev down`` ends it with the rest.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from countersign.demo.kubectl import Kubectl, KubectlError
from countersign.demo.kubelet import PodFolder, renew_token
from countersign.demo.layout import SYSTEM
from countersign.demo.mounts import mount_secrets
from countersign.demo.processes import ProcessError, ready_code, until
from countersign.devcluster import write_private

if TYPE_CHECKING:
    from rich.console import Console

    from countersign.demo.machine import Machine

__all__ = ["keep_running"]

_EVERY: Final = 5.0
_RENEW_SECONDS: Final = 240.0
_GIVE_UP_SECONDS: Final = 60.0
_OK: Final = 200


def keep_running(machine: Machine, name: str, show: Console) -> None:
    """Put the first agent back, add the spare pod, write ``demo.json``, hand over to the daemon, and say what is there."""
    story = machine.quickstart
    first = story.pods[0]
    machine.admin.apply([story.pod_objects()[0]])
    pod = machine.run_pod(first)
    machine.start_signer(f"signer-{first}", pod, machine.tpm_of(pod.node), story.ports[0])
    machine.admin.apply([story.spare_pod()])
    machine.run_pod(story.spare)
    if until(lambda: ready_code(story.ports[0] + 1)[0] == _OK, 30) is None:
        raise ProcessError(f"signer of {first}: {ready_code(story.ports[0] + 1)[1]}")
    path = machine.layout.directory / "demo.json"
    write_private(path, json.dumps(describe(machine), indent=1).encode())
    machine.hand_over(path)
    machine.record(name)
    _tell(machine, path, show)


def describe(machine: Machine) -> dict[str, Any]:
    """Return what ``demo.json`` says: URLs, CA, nodes, TPMs, pods and the spare; every file by its path."""
    layout, story = machine.layout, machine.quickstart
    nodes = {
        node: {
            "tcti": machine.tpm_of(node).tcti,
            "certificate": str(kubelet.directory / f"{node}.crt"),
            "key": str(kubelet.directory / f"{node}.key"),
            "kubeconfig": str(kubelet.kubectl.kubeconfig),
        }
        for node, kubelet in machine.kubelets.items()
    }
    pods = [_pod(pod, machine.tpm_of(pod.node).tcti) for pod in machine.pods.values() if pod.name != story.spare]
    for pod in pods:
        pod["signer"] = f"http://127.0.0.1:{story.ports[story.pods.index(pod['name'])]}"
    return {
        "directory": str(layout.directory),
        "kubeconfig": str(machine.plane.admin_kubeconfig),
        "kubectl": str(machine.plane.binaries.kubectl),
        "system_namespace": SYSTEM,
        "namespace": story.namespace,
        "ca": str(layout.serving_ca),
        "urls": {
            "apiserver": machine.plane.url,
            "webhook": layout.issuer,
            "jwks": f"{layout.issuer}/.well-known/jwks.json",
            "authority": layout.authority_url,
            "tools": layout.tools_url,
        },
        "issuer": layout.issuer,
        "audience": story.audience,
        "server": story.server,
        "token_audience": "countersign.dev",
        "api_ca": str(machine.plane.directory / "pki" / "ca.crt"),
        "nodes": nodes,
        "tctis": {name: tpm.tcti for name, tpm in machine.tpms.items()},
        "unknown_tcti": machine.unknown_tpm.tcti,
        "pods": pods,
        "spare": _pod(machine.pods[story.spare], machine.tpm_of(machine.pods[story.spare].node).tcti),
        "audit": {process: str(layout.audit(process)) for process in ("webhook", "authority")},
        "logs": str(layout.directory / "logs"),
    }


def _pod(pod: PodFolder, tcti: str) -> dict[str, Any]:
    return {
        "namespace": pod.namespace,
        "name": pod.name,
        "uid": pod.uid,
        "service_account": pod.service_account,
        "node": pod.node,
        "token_file": str(pod.token),
        "trust_dir": str(pod.trust),
        "tcti": tcti,
    }


def _tell(machine: Machine, path: Path, show: Console) -> None:
    story, kubectl = machine.quickstart, machine.plane.binaries.kubectl
    body = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_charge","arguments":{"charge":"ch_1"}}}'
    headers = (
        "Content-Type: application/json",
        "Accept: application/json, text/event-stream",
        "MCP-Protocol-Version: 2025-11-25",
    )
    call = " ".join([f"curl -s http://127.0.0.1:{story.ports[0]}/{story.server}", *(f"-H '{one}'" for one in headers)])
    lines = [
        "",
        "It runs on. Everything about it: " + str(path),
        f"  authority {machine.layout.authority_url} · webhook {machine.layout.issuer} · tool server {machine.layout.tools_url}",
        "Try:",
        f"  export KUBECONFIG={machine.plane.admin_kubeconfig}",
        f"  {kubectl} get countersign -A",
        f"  {kubectl} get agentinstances -n {story.namespace} -o wide",
        f"  curl -s http://127.0.0.1:{story.ports[0]}/-/servers",
        f"  {call} -d '{body}'",
        f"  countersign audit query {machine.layout.audit('webhook')}",
        "Stop it:",
        "  countersign dev down",
    ]
    for line in lines:
        show.print(line, soft_wrap=True, markup=False)


def main(path: Path) -> None:
    """Mount and renew until the API server is gone."""
    found = json.loads(path.read_text(encoding="utf-8"))
    program = Path(found["kubectl"])
    admin = Kubectl(program, Path(found["kubeconfig"]))
    mounts = Path(found["directory"]) / "mounts"
    renewed = contact = time.monotonic()
    while time.monotonic() - contact < _GIVE_UP_SECONDS:
        time.sleep(_EVERY)
        try:
            mount_secrets(admin, SYSTEM, mounts)
            contact = time.monotonic()
            if contact - renewed > _RENEW_SECONDS:
                renewed = contact
                for pod in [*found["pods"], found["spare"]]:
                    _renew(pod, Kubectl(program, Path(found["nodes"][pod["node"]]["kubeconfig"])))
        except (KubectlError, OSError) as error:
            sys.stderr.write(f"{error}\n")


def _renew(pod: dict[str, Any], kubectl: Kubectl) -> None:
    """Renew one pod's token; a pod that somebody deleted has none, and that is not the others' concern."""
    try:
        renew_token(kubectl, pod["namespace"], pod["name"], pod["uid"], pod["service_account"], Path(pod["token_file"]))
    except KubectlError as error:
        sys.stderr.write(f"{pod['name']}: {error}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
