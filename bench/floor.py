"""The bare crypto floor: what no code above the library can go below, measured in the same run."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from timing import Case

__all__ = ["VERIFY", "cases"]

VERIFY = "ECDSA P-256 verify (the yardstick)"
_ES256 = ec.ECDSA(hashes.SHA256())
_DATA = b"x" * 600


def cases() -> list[Case]:
    """Return the library's own operations, and the sums that each leg cannot do without."""
    key = ec.generate_private_key(ec.SECP256R1())
    public, signature = key.public_key(), key.sign(_DATA, _ES256)

    def verify() -> None:
        public.verify(signature, _DATA, _ES256)

    def sign() -> None:
        key.sign(_DATA, _ES256)

    def leg_t() -> None:
        verify()  # the leaf under its CA
        verify()  # the request
        sign()  # the token

    def leg_c() -> None:
        verify()  # the token
        verify()  # the request

    return [
        Case(VERIFY, verify),
        Case("ECDSA P-256 sign", sign),
        Case("floor of a decision: two verifies, one sign", leg_t),
        Case("floor of the verifier: two verifies", leg_c),
    ]
