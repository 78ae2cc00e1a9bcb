"""Open Policy Agent beside the front door: the same policies as Rego, the same instances as data, the same calls as questions.

It runs as its users run it, on one core, with what makes it fastest: rules that its index finds, data in the form that it
evaluates, no access log, no version check. ``whole.rego`` and ``proof.rego`` say what it is asked to do.
"""

from __future__ import annotations

import hashlib
import json
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deciding import ISSUER, SPIFFE_ID, details
from inside import AUDIENCE, policies_of, policy, question
from rego import helpers, module_of

from countersign.devcluster import OPA, free_ports, start
from countersign.wire import jwk_of, thumbprint
from countersign.wire.encoding import b64u

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec
    from deciding import Member

    from countersign.devcluster import Child
    from countersign.policy import Question

__all__ = ["PLAIN", "PROOF", "VERSION", "WHOLE", "edited", "facts", "known", "launch", "listens", "posted", "signed"]

VERSION = OPA.version
WHOLE, PROOF, PLAIN = "/v1/data/bench/whole/answer", "/v1/data/bench/proof/decision", "/v1/data/bench/decision"
_HERE = Path(__file__).parent
_LIFE = 30
_MINE = "mine"


def known(members: list[Member], root: str, key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    """Return what OPA must know of issuer, instances, device, pods and servers; ``key`` signs its tokens."""
    numbers = key.private_numbers()
    private = {**jwk_of(key.public_key()), "d": b64u(numbers.private_value.to_bytes(32, "big"))}
    device = {"state": "Approved", "assurance": "Hardware", "attested_ns": time.time_ns() - 300 * 10**9}
    return {
        "root": root,
        "issuer": ISSUER,
        "endpoint": f"{ISSUER}/token",
        "key": json.dumps(private),
        "token_header": json.dumps({"alg": "ES256", "typ": "at+jwt", "kid": thumbprint(key.public_key())}),
        "servers": {AUDIENCE: "billing/stripe"},
        "devices": {"worker-1": device},
        "pods": {f"pod-{number}": True for number, _ in enumerate(members)},
        "instances": {_digest(one): _instance(number, one) for number, one in enumerate(members)},
    }


def launch(
    opa: Path, directory: Path, facts: dict[str, Any], policies: int, *, core: int, logged: bool
) -> tuple[Child, int]:
    """Start a server on ``core`` with the certificate of ``directory``; return it and its port. It may not listen yet.

    ``logged``: each decision goes to the console, which is a file here.
    """
    port = free_ports(1)[0]
    directory.joinpath("known.json").write_text(json.dumps({"known": facts}), "utf-8")
    *others, mine = policies_of(policies)
    texts = {"rules": module_of(others), _MINE: module_of([mine]), "helpers": helpers()}
    for name, text in texts.items():
        directory.joinpath(f"{name}.rego").write_text(text, "utf-8")
    files = ["known.json", *(f"{name}.rego" for name in texts), *_HERE.glob("*.rego")]
    tls = [
        "--tls-cert-file",
        directory / "tls.crt",
        "--tls-private-key-file",
        directory / "tls.key",
        "--min-tls-version=1.3",
    ]
    quick = ["--optimize-store-for-read-speed", "--skip-version-check", "--log-level=error"]
    command = ["taskset", "-c", str(core), opa, "run", "--server", f"--addr=https://127.0.0.1:{port}", *tls, *quick]
    command += ["--set", f"decision_logs.console={str(logged).lower()}", *files]
    log = directory / ("decisions.log" if logged else "opa.log")
    return start(f"opa {policies}", command, log=log, env={"GOMAXPROCS": "1"}, cwd=directory), port


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def edited(maximum: int) -> bytes:
    """Return the HTTP request that changes the bound of the policy about the call; the answer comes when it bites."""
    body = module_of([policy(None, maximum)]).encode()
    return (
        f"PUT /v1/policies/{_MINE}.rego HTTP/1.1\r\nhost: bench\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    )


async def signed(member: Member, call: dict[str, Any] | None = None) -> dict[str, str]:
    """Return the input of ``whole`` and ``proof``: a JWS over the call that a signer would sign for the front door."""
    now = int(time.time())
    claims = {
        "aud": f"{ISSUER}/token",
        "iat": now,
        "exp": now + _LIFE,
        "nonce": b64u(time.time_ns().to_bytes(16, "big")),
    }
    claims["call"] = {**(details() if call is None else call), "resource": AUDIENCE}
    parts = (b64u(json.dumps(part).encode()) for part in ({"alg": "ES256", "typ": "JWT"}, claims))
    text = ".".join(parts)
    signature = b64u(await member.key.sign(text.encode()))
    return {"proof": f"{text}.{signature}", "chain": member.certificate, "instance": _digest(member)}


def facts(asked: Question | None = None) -> dict[str, Any]:
    """Return the input of the plain question: what the front door would have found out about the caller."""
    asked = asked or question(datetime.now(UTC))
    caller = asked.caller
    return {
        "namespace": caller.agent.namespace,
        "agent": caller.agent.name,
        "key_tier": caller.key_tier,
        "attestation_age": (asked.now - caller.device.attestation_time).total_seconds(),
        "server": asked.server,
        "tool": asked.tool,
        "arguments": asked.arguments,
    }


def posted(path: str, given: dict[str, Any]) -> bytes:
    """Return the HTTP request that asks ``path`` about the input ``given``."""
    body = json.dumps({"input": given}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _digest(member: Member) -> str:
    return hashlib.sha256(member.certificate.encode()).hexdigest()


def _instance(number: int, member: Member) -> dict[str, Any]:
    return {
        "name": f"billing/refund-agent-{number}",
        "namespace": "billing",
        "agent": "refund-agent",
        "spiffe_id": SPIFFE_ID,
        "state": "Active",
        "key_tier": "TPM",
        "device": "worker-1",
        "pod": f"pod-{number}",
        "key": member.certificate,
        "cnf": {"jwk": jwk_of(member.key.public_key), "jkt": member.key.jkt},
    }
