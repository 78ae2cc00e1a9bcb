"""The signed requests of ``tests/data/wire``, read into what the verifiers take."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from support.wire_vectors import load

from countersign.errors import Denied
from countersign.wire import InstanceView, LegT, MemoryReplayCache, Message, raw_signature, read_jwk, thumbprint


def private_key(name: str) -> ec.EllipticCurvePrivateKey:
    """A key of ``keys.json``; for signing only, the published half is read by our own reader."""
    jwk = load("keys")["keys"][name]["jwk"]
    secret = int.from_bytes(base64.urlsafe_b64decode(jwk["d"] + "="), "big")
    return ec.derive_private_key(secret, ec.SECP256R1())


class VectorKey:
    """A key of ``keys.json`` that signs as an instance key does."""

    def __init__(self, name: str) -> None:
        self.private = private_key(name)
        self.public_key = self.private.public_key()
        self.jkt = thumbprint(self.public_key)
        self.signed: list[bytes] = []

    async def sign(self, data: bytes) -> bytes:
        self.signed.append(data)
        return raw_signature(self.private.sign(data, ec.ECDSA(SHA256())))


def certificate(name: str) -> x509.Certificate:
    return x509.load_der_x509_certificate(base64.b64decode(load("keys")["certificates"][name]))


async def issuer_key(kid: str) -> ec.EllipticCurvePublicKey | None:
    """Find a key in the JWKS of ``tokens.json``."""
    found = [jwk for jwk in load("tokens")["jwks"]["keys"] if jwk["kid"] == kid]
    return read_jwk(found[0]) if found else None


@dataclass(frozen=True)
class Case:
    name: str
    code: str | None
    context: dict[str, Any]
    raw: dict[str, Any]
    signature_base: bytes
    result: dict[str, Any]
    key: str

    def message(self) -> Message:
        """The request as received: nothing is trimmed, checked or joined yet."""
        raw = self.raw
        body = base64.b64decode(raw.get("body") or "")
        headers = tuple((name.lower(), value) for name, value in raw["headers"])
        return Message(raw["method"], raw["target"], headers, body)

    def replay(self) -> MemoryReplayCache:
        return MemoryReplayCache(epoch=self.context["store_start"] - 1)

    async def leg_t(self) -> LegT:
        context = self.context
        replay = self.replay()
        for jkt, nonce in context["seen"]:
            now = context["now"]
            await replay.insert((jkt, nonce), issued=now, expires=now + 65, now=now)
        return LegT(
            audience=context["audience"],
            issuer=context["issuer"],
            now=context["now"],
            roots=lambda _domain: [certificate(name) for name in context["roots"]],
            nonces=VectorNonces(context["nonces"]),
            replay=replay,
            instance=lambda jkt: _instance(context["instances"].get(jkt)),
        )


@dataclass(frozen=True)
class VectorNonces:
    """What ``context.nonces`` says of a nonce."""

    known: dict[str, str]

    def check(self, nonce: str, jkt: str, now: int) -> int:
        del jkt
        verdict = self.known.get(nonce)
        if verdict == "expired":
            raise Denied("nonce.expired")
        if verdict != "ok":
            raise Denied("nonce.invalid")
        return now


def _instance(entry: dict[str, str] | None) -> InstanceView | None:
    if entry is None:
        return None
    return InstanceView(
        namespace="billing",
        name="refund-agent-7f9c4",
        uid="uid-1",
        spiffe_id=entry["spiffe"],
        state=entry["state"],
        device_approved=entry.get("device", "Approved") == "Approved",
        assurance=entry.get("assurance", "Hardware"),
    )


def cases(leg: str) -> list[Case]:
    """The cases of one leg, but those with a session statement or of protocol HTTP, which are refused (issue 3)."""
    file = load("signatures")
    found = []
    for case in file["cases"]:
        context = {**file["contexts"][case["context"]["leg"]], **case["context"]}
        if context["leg"] != leg or context["protocol"] == "HTTP":
            continue
        raw = _filled(case["request"], file["strings"])
        found.append(
            Case(
                name=case["name"],
                code=case.get("code"),
                context=context,
                raw=raw,
                signature_base=_filled(case.get("signature_base", ""), file["strings"]).encode("latin-1"),
                result=case.get("result") or {},
                key=case.get("key", ""),
            )
        )
    return found


def with_session(case: Case) -> bool:
    return any(name.lower() == "countersign-session" for name, _ in case.raw["headers"])


def _filled(value: Any, strings: dict[str, str]) -> Any:
    if isinstance(value, str):
        for name, text in strings.items():
            value = value.replace(f"${{{name}}}", text)
        return value
    if isinstance(value, list):
        return [_filled(one, strings) for one in value]
    if isinstance(value, dict):
        return {name: _filled(one, strings) for name, one in value.items()}
    return value
