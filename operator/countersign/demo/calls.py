"""Scenes with ordinary calls: what policy allows and denies, and what the agent never holds."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any, Final

from countersign.demo.client import credentials_in
from countersign.demo.story import expect
from countersign.demo.theft import captures

if TYPE_CHECKING:
    from countersign.demo.machine import Machine

__all__ = ["allowed", "browser", "code_of", "denied_argument", "listed", "no_credential", "not_named"]

_FORBIDDEN: Final = 403
_LEAST_SEARCHED: Final = 1 << 20


def code_of(answer: dict[str, Any]) -> str:
    """Return the reason code of an agent's answer, or ``allowed``."""
    refused = answer.get("refused")
    if refused is None:
        return "allowed"
    return str((refused.get("data") or {}).get("code") or refused.get("message"))


def _first(machine: Machine) -> Any:
    return machine.agents[machine.quickstart.pods[0]]


def allowed(machine: Machine) -> str:
    """Make the call that a rule allows, from both agents' point of view: an MCP client with one URL."""
    call = machine.quickstart.allowed
    answer = _first(machine).call(call.tool, **call.arguments)
    expect("result" in answer and not answer["is_error"], f"{code_of(answer)}: {answer}")
    return f"{call.tool} → {json.dumps(answer['result'])}"


def listed(machine: Machine) -> str:
    """Ask for the list of tools: those that no rule could ever allow are not in it."""
    names = sorted(_first(machine).tools())
    expect(names == sorted(machine.quickstart.listable), f"listed: {', '.join(names) or 'nothing'}")
    return f"listed: {', '.join(names)}"


def _denied(machine: Machine, tool: str, arguments: dict[str, Any], code: str) -> str:
    answer = _first(machine).call(tool, **arguments)
    message = answer.get("refused", {}).get("message", "")
    expect(code_of(answer) == code, f"{code_of(answer)}: {message or answer}")
    return f"{code}: {message}"


def not_named(machine: Machine) -> str:
    """Call a registered tool that no rule names."""
    call = machine.quickstart.not_named
    return _denied(machine, call.tool, call.arguments, "policy.default_deny")


def denied_argument(machine: Machine) -> str:
    """Call the allowed tool with an argument outside what the rule allows."""
    call = machine.quickstart.denied_argument
    return _denied(machine, call.tool, call.arguments, call.code)


def no_credential(machine: Machine) -> str:
    """Search all that the agent's process holds for every credential of this run, any signed token and any private key."""
    name = machine.quickstart.pods[0]
    agent = machine.agents[name]
    secrets = {f"the pod's token ({pod.name})": pod.token.read_bytes() for pod in machine.pods.values()}
    for number, request in enumerate(captures(machine.captures)):
        secrets[f"call token {number}"] = request.header("authorization").partition(" ")[2].encode()
    found, searched = credentials_in(agent.process.pid, agent.notes.parent, secrets)
    expect(not found, "; ".join(found))
    expect(searched > _LEAST_SEARCHED, f"only {searched} bytes could be searched")
    return f"{len(secrets)} credentials of this run looked for in {searched >> 20} MiB, none found"


def browser(machine: Machine) -> str:
    """Use the proxy as a page in a browser of the pod would: the same request, with an ``Origin``."""
    port, server = machine.quickstart.ports[0], machine.quickstart.server
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"})
    headers = {
        "Content-Type": "application/json",
        "Origin": "https://evil.example",
        "MCP-Protocol-Version": "2025-11-25",
    }
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", f"/{server}", body=body, headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    finally:
        connection.close()
    expect(answer.status == _FORBIDDEN and '"request.origin"' in text, f"{answer.status} {text[:200]}")
    return f"{answer.status} request.origin"
