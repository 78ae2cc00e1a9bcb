"""The first scenes: from an empty machine to two agents with a certificate each."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from countersign.demo.kubectl import KubectlError
from countersign.demo.processes import ProcessError, ready_code, until
from countersign.demo.story import Surprise, expect

if TYPE_CHECKING:
    from countersign.demo.machine import Machine

__all__ = ["applied", "enrolled", "established", "injected", "typo"]

_OK: Final = 200
_SIGNER: Final = "countersign-signer"
_READY_KINDS: Final = {
    "identityissuers": "Ready",
    "devicepools": "Ready",
    "agentidentities": "Ready",
    "toolservers": "Accepted",
    "toolpolicies": "Accepted",
}


def established(machine: Machine) -> str:
    """Bring up control plane, TPMs and our processes."""
    machine.start_tpms()
    machine.start_plane()
    machine.install_chart()
    machine.start_processes()
    version = json.loads(machine.admin.run("version", "-o", "json"))["serverVersion"]["gitVersion"]
    kinds = machine.admin.run("api-resources", "--api-group=countersign.dev", "-o", "name").split()
    return f"Kubernetes {version}; {len(kinds)} kinds; operator, authority and webhook ready"


def applied(machine: Machine) -> str:
    """Apply the quickstart and wait until each object says it is in order."""
    machine.admin.apply(machine.quickstart.objects(machine.manufacturer, machine.tpm_of))
    machine.start_tools()
    for kind in _READY_KINDS:
        until(partial(_all_ready, machine, kind), 20, every=0.3)
    problems = [each for kind in _READY_KINDS for each in _unready(machine, kind)]
    expect(not problems, "; ".join(problems))
    return "Ready: issuer, pool, identities; Accepted: tool server, policy"


def _all_ready(machine: Machine, kind: str) -> bool:
    return not _unready(machine, kind)


def _unready(machine: Machine, kind: str) -> list[str]:
    """Say which objects of ``kind`` lack their condition for their present generation, and why."""
    found, wanted = machine.admin.get(kind, "-A")["items"], _READY_KINDS[kind]
    problems = [] if found else [f"no {kind}"]
    for each in found:
        conditions = {one["type"]: one for one in each.get("status", {}).get("conditions", [])}
        seen = conditions.get(wanted, {})
        if seen.get("status") != "True" or seen.get("observedGeneration") != each["metadata"]["generation"]:
            why = f"{seen.get('reason', 'not yet judged')} {seen.get('message', '')}".strip()
            problems.append(f"{kind}/{each['metadata']['name']} {wanted}: {why}")
    return problems


def typo(machine: Machine) -> str:
    """Apply a policy in which ``arguments`` is misspelt: dropped silently, it would allow every argument."""
    policy = machine.quickstart.misspelt_policy()
    try:
        machine.admin.apply([policy])
    except KubectlError as refused:
        # kubectl checks against the published schema itself, or leaves it to the API server: either names the field.
        expect("unknown field" in str(refused) and 'argumnets"' in str(refused), str(refused))
        return str(refused).splitlines()[-1].strip()
    raise Surprise("the policy was accepted")


def injected(machine: Machine) -> str:
    """Create the agents' pods, the first one twice, and a pod that asked for nothing."""
    for pod in machine.quickstart.pod_objects():
        machine.admin.apply([pod])
    first = machine.quickstart.pod_objects()[0]
    before = _pod(machine, first)
    again = machine.admin.apply([first]).strip()
    expect(_pod(machine, first)["spec"] == before["spec"] and again.endswith("unchanged"), f"the second apply: {again}")
    signer = before["spec"]["initContainers"][0]
    expect(signer["name"] == _SIGNER and signer["restartPolicy"] == "Always", f"first init container: {signer['name']}")
    outside = json.loads(json.dumps(first))
    outside["metadata"]["namespace"] = "default"
    outside["spec"].pop("serviceAccountName", None)
    machine.admin.apply([outside])
    touched = _pod(machine, outside)
    expect("initContainers" not in touched["spec"], "the pod outside was touched")
    machine.admin.run("delete", "pod", first["metadata"]["name"], "-n", "default", "--grace-period=0", "--force")
    return f"{_SIGNER} injected as uid {signer['securityContext']['runAsUser']}; again: unchanged; outside: untouched"


def _pod(machine: Machine, pod: dict[str, Any]) -> Any:
    return machine.admin.get("pod", pod["metadata"]["name"], "-n", pod["metadata"]["namespace"])


def enrolled(machine: Machine) -> str:
    """Start a signer beside each agent: it attests its key and obtains its certificate."""
    story = machine.quickstart
    for name, port in zip(story.pods, story.ports, strict=True):
        pod = machine.run_pod(name)
        machine.start_signer(f"signer-{name}", pod, machine.tpm_of(pod.node), port)
    for name, port in zip(story.pods, story.ports, strict=True):
        if until(partial(_answers, port + 1), 30) is None:
            raise ProcessError(f"signer of {name}: {ready_code(port + 1)[1]}")
        machine.start_agent(name, port)
    if until(lambda: len(_ready_instances(machine)) == len(story.pods), 15, every=0.3) is None:
        raise Surprise(machine.admin.run("get", "agentinstances", "-n", story.namespace, "-o", "wide"))
    return machine.admin.run("get", "agentinstances", "-n", story.namespace, "-o", "wide").strip()


def _answers(port: int) -> bool:
    return ready_code(port)[0] == _OK


def _ready_instances(machine: Machine) -> list[str]:
    found = machine.admin.get("agentinstances", "-n", machine.quickstart.namespace)["items"]
    return [
        each["metadata"]["name"]
        for each in found
        if any(one["type"] == "Ready" and one["status"] == "True" for one in each["status"].get("conditions", []))
    ]
