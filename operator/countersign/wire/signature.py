"""The request signature: what it covers, the bytes it is over, and making one (wire.md 3.1; RFC 9421, one fixed profile)."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from countersign.wire.encoding import b64
from countersign.wire.keys import SIGNATURE_BYTES
from countersign.wire.message import Message

if TYPE_CHECKING:
    from collections.abc import Iterable

    from countersign.wire.keys import RequestKey

__all__ = [
    "LABEL",
    "NONCE",
    "TAG",
    "content_digest",
    "covered_components",
    "sign_request",
    "signature_base",
]

LABEL: Final = "wimse"
TAG: Final = "wimse-workload-to-workload"
NONCE: Final = re.compile(r"[A-Za-z0-9_-]{22,256}")

_SECONDS: Final = 30
_FIELDS: Final = (
    "content-type",
    "content-digest",
    "authorization",
    "countersign-chain",
    "countersign-session",
    "mcp-protocol-version",
    "mcp-method",
    "mcp-name",
    "mcp-session-id",
)
_PARAM_PREFIX: Final = "mcp-param-"
_MADE_HERE: Final = frozenset({"content-digest", "signature", "signature-input"})
_QUOTABLE: Final = re.compile(r"[ !#-\[\]-~]+")


def covered_components(message: Message) -> tuple[str, ...]:
    """Return what a signature over ``message`` covers, in order: a function of the message alone (wire.md 3.1.4)."""
    present = message.fields
    params = sorted([name for name in present if name.startswith(_PARAM_PREFIX)])
    return ("@method", "@request-target", *[name for name in _FIELDS if name in present], *params)


def signature_base(message: Message, names: Iterable[str], signature_params: str) -> bytes:
    """Return the base of RFC 9421 2.5 for the named components of ``message``; an absent field's value is empty.

    ``signature_params`` is the value of the member of ``Signature-Input``, as received or as it will be sent.

    Raises ValueError for what is not one character a byte.
    """
    fields = {**message.fields, "@method": message.method, "@request-target": message.target}
    lines = [f'"{name}": {fields.get(name, "")}' for name in names]
    lines.append(f'"@signature-params": {signature_params}')
    return "\n".join(lines).encode("latin-1")


def content_digest(body: bytes) -> str:
    """Return the one form of ``Content-Digest``: SHA-256 (RFC 9530)."""
    return f"sha-256=:{b64(sha256(body).digest())}:"


async def sign_request(
    message: Message, key: RequestKey, *, audience: str, nonce: str, created: int, seconds: int = _SECONDS
) -> Message:
    """Return ``message`` with ``Content-Digest`` (if there is a body), ``Signature-Input`` and ``Signature``.

    Every field that is to travel signed must be there already. ``audience`` is the URL of the endpoint on leg T, the
    server's audience on legs G and C; ``nonce`` a nonce of the webhook's for this key, or the call token's ``jti``;
    ``created`` is in seconds since 1970, and the signature is good for ``seconds``.

    Raises ValueError for a nonce or audience that cannot be written down, or a key that does not sign as it should.
    """
    if not NONCE.fullmatch(nonce) or not _QUOTABLE.fullmatch(audience):
        msg = "a nonce or audience that cannot be signed"
        raise ValueError(msg)
    headers = [(name, value) for name, value in message.headers if name not in _MADE_HERE]
    if message.body:
        headers.append(("content-digest", content_digest(message.body)))
    signed = Message(message.method, message.target, tuple(headers), message.body)
    names = covered_components(signed)
    params = "(" + " ".join(f'"{name}"' for name in names) + ")"
    params += f';created={created};expires={created + seconds};nonce="{nonce}";tag="{TAG}";wimse-aud="{audience}"'
    signature = await key.sign(signature_base(signed, names, params))
    if len(signature) != SIGNATURE_BYTES:
        msg = "a request key gives r and s in 64 bytes"
        raise ValueError(msg)
    headers += [("signature-input", f"{LABEL}={params}"), ("signature", f"{LABEL}=:{b64(signature)}:")]
    return Message(message.method, message.target, tuple(headers), message.body)
