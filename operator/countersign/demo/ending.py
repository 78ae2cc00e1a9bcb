"""Scenes in which something is taken away: a TPM that is not the right one, the decision point, the right itself."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any, Final

from countersign.demo.calls import code_of
from countersign.demo.layout import neighbours
from countersign.demo.processes import console, leftovers, ready_code, until
from countersign.demo.story import expect
from countersign.demo.theft import captured_call, present

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from countersign.demo.machine import Machine
    from countersign.devcluster import Tpm

__all__ = [
    "audit",
    "decision_point_killed",
    "deny_applied",
    "device_denied",
    "nothing_left",
    "pod_deleted",
    "stolen_token",
    "unknown_tpm",
]

_SECONDS: Final = 2.0
_FAIL_CLOSED: Final = {"decide.unavailable", "decide.failed"}
_REPLAY: Final = {"proof.replayed", "token.expired", "proof.expired", "replay.store_reset"}


def _thief(machine: Machine, tpm: Tpm, code: str) -> str:
    """Run a real signer with the first pod's token and the TPM ``tpm``: it must not get in, and its readiness says why."""
    port = neighbours()
    machine.start_signer("thief", machine.pods[machine.quickstart.pods[0]], tpm, port)
    try:
        until(lambda: code in ready_code(port + 1)[1], 20)
        status, said = ready_code(port + 1)
    finally:
        machine.processes.stop("thief")
    expect(code in said, f"{status} {said}")
    return code


def unknown_tpm(machine: Machine) -> str:
    """Try to enrol with a TPM of the right manufacturer that nobody has approved."""
    return _thief(machine, machine.unknown_tpm, "attest.device_unknown")


def stolen_token(machine: Machine) -> str:
    """Try to enrol with the first pod's token on the other node's approved TPM; the pod's own instance stays."""
    first, second = machine.quickstart.pods
    before = _instances(machine)
    machine.agents[second].stop()
    machine.processes.stop(f"signer-{second}")
    try:
        said = _thief(machine, machine.tpm_of(machine.pods[second].node), "attest.node_mismatch")
        expect(_instances(machine) == before, "the instances changed")
        answer = _call(machine, first)
        expect(code_of(answer) == "allowed", f"the pod's own call afterwards: {code_of(answer)}")
    finally:
        _put_back(machine, second)
    return f"{said}; the pod's instance stays and its call is allowed"


def _put_back(machine: Machine, name: str) -> None:
    """Start the second agent's own signer and the agent again."""
    port = machine.quickstart.ports[1]
    machine.start_signer(f"signer-{name}", machine.pods[name], machine.tpm_of(machine.pods[name].node), port)
    machine.processes.await_ready(f"signer-{name}", port + 1)
    machine.start_agent(name, port)


def _instances(machine: Machine) -> list[tuple[str, str]]:
    found = machine.admin.get("agentinstances", "-n", machine.quickstart.namespace)["items"]
    return sorted((each["metadata"]["uid"], each["status"]["certificate"]["keyThumbprint"]) for each in found)


def _call(machine: Machine, pod: str) -> dict[str, Any]:
    call = machine.quickstart.allowed
    return machine.agents[pod].call(call.tool, **call.arguments)


def decision_point_killed(machine: Machine) -> str:
    """Kill the webhook with SIGKILL, call, start it again, call."""
    first = machine.quickstart.pods[0]
    captured = captured_call(machine)
    machine.processes.kill("webhook")
    down = code_of(_call(machine, first))
    expect(down in _FAIL_CLOSED, f"while it was dead: {down}")
    machine.start("webhook")
    machine.processes.await_ready("webhook", machine.layout.ports.webhook_health)
    up = until(lambda: code_of(_call(machine, first)) == "allowed", 10)
    expect(up is not None, f"after its restart: {code_of(_call(machine, first))}")
    _status, again = present(machine, captured)
    expect(again in _REPLAY, f"the captured request after the restart: {again}")
    checked = _verify(machine.layout.audit("webhook"))
    expect(checked.returncode == 0, f"audit verify: {checked.stdout}{checked.stderr}")
    return f"dead: {down}; restarted: allowed, audit chain unbroken, replay {again}"


def _within(machine: Machine, pod: str, codes: Iterable[str]) -> str:
    """Call until it is refused with one of ``codes``; say which, and after how long."""
    wanted, seen = set(codes), ""
    began = time.monotonic()
    while time.monotonic() - began < _SECONDS:
        seen = code_of(_call(machine, pod))
        if seen in wanted:
            return f"{seen} after {time.monotonic() - began:.2f} s"
    expect(holds=False, observed=f"after {_SECONDS:.0f} s: {seen}")
    return seen


def deny_applied(machine: Machine) -> str:
    """Apply a Deny with kubectl, call, and take it away again."""
    policy = machine.quickstart.deny_policy()
    machine.admin.apply([policy])
    said = _within(machine, machine.quickstart.pods[0], ["policy.denied"])
    machine.admin.run("delete", "toolpolicy", policy["metadata"]["name"], "-n", machine.quickstart.namespace)
    back = until(lambda: code_of(_call(machine, machine.quickstart.pods[0])) == "allowed", 5)
    expect(back is not None, "the call stays denied after the Deny is gone")
    return said


def pod_deleted(machine: Machine) -> str:
    """Delete the first agent's pod; its signer still runs, and its certificate is valid for most of an hour."""
    name = machine.quickstart.pods[0]
    pod = machine.pods[name]
    machine.admin.run("delete", "pod", name, "-n", pod.namespace, "--wait=false")
    said = _within(machine, name, ["instance.ended", "instance.unknown"])
    machine.agents[name].stop()
    machine.processes.stop(f"signer-{name}")
    machine.kubelets[pod.node].remove(name)
    return said


def device_denied(machine: Machine) -> str:
    """Set the second agent's device to Denied."""
    name = machine.quickstart.pods[1]
    expect(code_of(_call(machine, name)) == "allowed", "the second agent's call before")
    device = machine.quickstart.devices[machine.pods[name].node]
    machine.admin.run("patch", "device", device, "--type=merge", "-p", '{"spec":{"state":"Denied"}}')
    return _within(machine, name, ["device.not_approved"])


def _verify(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [str(console()), "audit", "verify", str(directory)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def audit(machine: Machine) -> str:
    """Verify both processes' logs, then a copy of the webhook's with one byte edited."""
    said = []
    for process in ("webhook", "authority"):
        checked = _verify(machine.layout.audit(process))
        expect(checked.returncode == 0, f"{process}: {checked.stdout}{checked.stderr}")
        said.append(f"{process}: {checked.stdout.strip().splitlines()[-1]}")
    copy = machine.layout.directory / "audit" / "edited"
    shutil.copytree(machine.layout.audit("webhook"), copy)
    log = max(copy.iterdir(), key=lambda path: path.stat().st_size)
    lines = log.read_bytes().split(b"\n")
    middle = len(lines) // 2
    at = lines[middle].index(b'"status_code":"') + len(b'"status_code":"')
    lines[middle] = lines[middle][:at] + b"X" + lines[middle][at + 1 :]
    log.write_bytes(b"\n".join(lines))
    edited = _verify(copy)
    expect(edited.returncode != 0, f"the edited byte was not found: {edited.stdout}")
    said.append(f"edited: {(edited.stdout + edited.stderr).strip().splitlines()[-1]}")
    return "; ".join(said)


def nothing_left(machine: Machine) -> str:
    """End everything and look for any process that carries this run's mark."""
    machine.stop()
    left = leftovers(machine.processes.mark)
    expect(not left, f"still running: {left}")
    return "no process of this run is left"
