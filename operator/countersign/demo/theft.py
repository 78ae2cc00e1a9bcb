"""Scenes with what a thief at the tool server has: the token, the whole request, another TPM."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import dataclass, replace
from hashlib import sha256
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Final

from countersign.attest.tpm import TpmDevice
from countersign.demo.story import expect
from countersign.wire import Message, sign_request

if TYPE_CHECKING:
    from pathlib import Path

    from countersign.demo.machine import Machine

__all__ = [
    "Captured",
    "body_changed",
    "captured_call",
    "other_tpm",
    "present",
    "replayed",
    "token_without_key",
]

_SIGNED: Final = frozenset({"signature", "signature-input"})
_UNAUTHORIZED: Final = 401


@dataclass(frozen=True)
class Captured:
    """A request as it arrived at the tool server."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def without(self, names: frozenset[str]) -> Captured:
        """Return the request without the header fields ``names``."""
        return replace(self, headers=tuple(each for each in self.headers if each[0] not in names))

    def header(self, name: str) -> str:
        """Return the one value of header field ``name``."""
        return next(value for key, value in self.headers if key == name)


def captures(path: Path) -> list[Captured]:
    """Read all that the thief wrote down."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        each = json.loads(line)
        headers = tuple((name, value) for name, value in each["headers"])
        found.append(Captured(each["method"], each["target"], headers, base64.b64decode(each["body"])))
    return found


def captured_call(machine: Machine) -> Captured:
    """Let agent A make an allowed call and return the request as the thief saw it, a moment ago."""
    call = machine.quickstart.allowed
    answer = machine.agents[machine.quickstart.pods[0]].call(call.tool, **call.arguments)
    expect("result" in answer, f"the call to capture was refused: {answer}")
    return [each for each in captures(machine.captures) if json.loads(each.body)["method"] == "tools/call"][-1]


def present(machine: Machine, request: Captured) -> tuple[int, str]:
    """Send ``request`` to the tool server from elsewhere; return status and reason code (or the start of the answer)."""
    connection = HTTPConnection("127.0.0.1", machine.layout.ports.tools, timeout=10)
    try:
        connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers:
            connection.putheader(name, value)
        connection.endheaders(request.body)
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace")
    finally:
        connection.close()
    try:
        code = json.loads(body)["code"]
    except (ValueError, KeyError, TypeError):
        code = body[:100]
    return answer.status, code


def _refused(machine: Machine, request: Captured, code: str) -> str:
    status, seen = present(machine, request)
    expect((status, seen) == (_UNAUTHORIZED, code), f"{status} {seen}")
    return f"{status} {seen}"


def token_without_key(machine: Machine) -> str:
    """Present the captured token, alone."""
    return _refused(machine, captured_call(machine).without(_SIGNED), "proof.missing")


def other_tpm(machine: Machine) -> str:
    """Present the captured token with a perfect signature by a key in another approved TPM."""
    captured = captured_call(machine)
    tpm = machine.tpm_of("node-c")
    signed = asyncio.run(_signed_by(tpm.tcti, captured.without(_SIGNED), machine.quickstart.audience))
    return _refused(machine, signed, "proof.signature")


async def _signed_by(tcti: str, request: Captured, audience: str) -> Captured:
    """Sign ``request`` as its sender did, nonce and all, but with a fresh key in the TPM at ``tcti``."""
    token = request.header("authorization").removeprefix("Countersign ")
    claims = token.split(".")[1]
    jti = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["jti"]
    device = await TpmDevice.open(tcti)
    try:
        await device.create_ak("P256")
        key = await device.create_key()
        # sign_request makes Content-Digest itself.
        bare = request.without(frozenset({"content-digest"}))
        message = Message.build(bare.method, bare.target, bare.headers, bare.body)
        signed = await sign_request(message, key, audience=audience, nonce=jti, created=int(time.time()))
    finally:
        await device.aclose()
    return Captured(signed.method, signed.target, signed.headers, signed.body)


def replayed(machine: Machine) -> str:
    """Send the whole captured request again at once."""
    return _refused(machine, captured_call(machine), "proof.replayed")


def body_changed(machine: Machine) -> str:
    """Change one byte of the body; then repair its digest too."""
    captured = captured_call(machine)
    at = captured.body.index(b'"arguments"') + len(b'"arguments":{"')
    other = b"x" if captured.body[at : at + 1] != b"x" else b"y"
    changed = replace(captured, body=captured.body[:at] + other + captured.body[at + 1 :])
    plain = _refused(machine, changed, "digest.mismatch")
    digest = f"sha-256=:{base64.b64encode(sha256(changed.body).digest()).decode()}:"
    repaired = changed.without(frozenset({"content-digest"}))
    repaired = replace(repaired, headers=(*repaired.headers, ("content-digest", digest)))
    return f"{plain}; with the digest repaired {_refused(machine, repaired, 'proof.signature')}"
