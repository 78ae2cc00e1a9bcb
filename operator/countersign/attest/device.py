"""What is a device that attests, and what is a key in it? The port that ``attest.tpm`` and ``attest.software`` fill.

All byte strings are TPM 2.0 structures as ``enrolment.md`` sends them: ``public`` is a TPMT_PUBLIC, ``attest`` a
TPMS_ATTEST, ``signature`` a TPMT_SIGNATURE, ``creation_data`` a TPMS_CREATION_DATA, all four without a size prefix;
``credential`` and ``secret`` of :meth:`AttestationDevice.activate` keep theirs (TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET).
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from countersign.errors import Denied

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = [
    "Ak",
    "AkKind",
    "AttestationDevice",
    "AttestingKey",
    "Certified",
    "Endorsement",
    "check_signable",
    "jkt_of",
]

AkKind = Literal["P256", "RSA2048"]

_SIGNABLE: Final = b'0"e'


@dataclass(frozen=True)
class Endorsement:
    """One endorsement key of the device: its SPKI (DER) and the certificates (DER) the device holds for it."""

    spki: bytes
    certificates: list[bytes]


@dataclass(frozen=True)
class Ak:
    """A new attestation key and the proof, by TPM2_CertifyCreation of itself, that the device made it."""

    public: bytes
    creation_data: bytes
    attest: bytes
    signature: bytes


@dataclass(frozen=True)
class Certified:
    """The instance key's public area and a TPM2_Certify of it by the AK."""

    public: bytes
    attest: bytes
    signature: bytes


class AttestingKey(Protocol):
    """The instance key: P-256, made in the device, never outside it."""

    @property
    def jkt(self) -> str:
        """RFC 7638 SHA-256 thumbprint of the public key, base64url, 43 characters."""

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half."""

    async def sign(self, data: bytes) -> bytes:
        """Return ES256 over ``data`` as 64 bytes r || s, big-endian.

        Raises:
            Denied: ``proof.format``, if ``data`` is none of the three things an instance key signs (wire.md 1.1).
            Unavailable: ``rate.limited`` when too many wait for the device, ``attest.unavailable`` when it fails.
        """


class AttestationDevice(Protocol):
    """A TPM, or its twin: endorsement keys, at most one AK and at most one instance key at a time."""

    async def endorsements(self) -> Sequence[Endorsement]:
        """Return the endorsement keys in the order of enrolment.md 2: RSA-2048, P-256, P-384."""

    async def create_ak(self, kind: AkKind) -> Ak:
        """Make a new attestation key, which replaces the one before."""

    async def activate(self, credential: bytes, secret: bytes) -> bytes:
        """Return what only this device can read: TPM2_ActivateCredential with the AK and the first endorsed EK."""

    async def create_key(self) -> AttestingKey:
        """Make a new instance key, which replaces the one before."""

    async def certify(self, qualifying: bytes) -> Certified:
        """Certify the instance key with the AK over ``qualifying``, at most 32 bytes."""

    async def aclose(self) -> None:
        """Give the device back: every handle flushed."""


def check_signable(data: bytes) -> None:
    """Refuse to sign anything but a CSR, a signature base or a session statement (wire.md 1.1).

    Raises:
        Denied: ``proof.format``.
    """
    if data[:1] not in {_SIGNABLE[0:1], _SIGNABLE[1:2], _SIGNABLE[2:3]}:
        raise Denied("proof.format", "an instance key signs CSRs, signature bases and session statements only")


def jkt_of(key: ec.EllipticCurvePublicKey) -> str:
    """Return the RFC 7638 SHA-256 thumbprint of a P-256 ``key``, base64url without padding."""
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    member = {"crv": "P-256", "kty": "EC", "x": _b64(point[1:33]), "y": _b64(point[33:65])}
    text = json.dumps(member, sort_keys=True, separators=(",", ":"))
    return _b64(hashlib.sha256(text.encode()).digest())


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
