"""The bare crypto floor: what no code above the library can go below, measured in the same run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from timing import Case

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ALL_AT_ONCE", "CALL", "DECISION", "EXCHANGE", "VERIFIER", "VERIFY", "cases", "tpm_cases"]

VERIFY = "ECDSA P-256 verify (the yardstick)"
DECISION = "floor of a decision: one verify, one sign"
ALL_AT_ONCE = 3.5
"""Verifies that a proof, a token and another token's issue cost with libraries for them: the floor that was planned with."""
VERIFIER = "floor of the verifier: two verifies"
EXCHANGE = "floor of the exchange: one TPM sign, and a decision's"
CALL = "floor of a signed call: two TPM signs, a decision's, the verifier's"
_ES256 = ec.ECDSA(hashes.SHA256())
_DATA = b"x" * 600


_KEY = ec.generate_private_key(ec.SECP256R1())
_PUBLIC = _KEY.public_key()
_SIGNATURE = _KEY.sign(_DATA, _ES256)


def _verify() -> None:
    _PUBLIC.verify(_SIGNATURE, _DATA, _ES256)


def _sign() -> None:
    _KEY.sign(_DATA, _ES256)


def _decision() -> None:
    _verify()  # the request; its chain was verified before
    _sign()  # the token


def _verifier() -> None:
    _verify()  # the token
    _verify()  # the request


def cases() -> list[Case]:
    """Return the library's own operations, and the sums that each leg cannot do without."""
    return [
        Case(VERIFY, _verify),
        Case("ECDSA P-256 sign", _sign),
        Case(DECISION, _decision),
        Case(VERIFIER, _verifier),
    ]


def tpm_cases(bare: Callable[[], object]) -> list[Case]:
    """Return the sums that have signatures of a TPM in them; ``bare`` makes one."""

    def exchange() -> None:
        bare()
        _decision()

    def call() -> None:
        exchange()
        bare()
        _verifier()

    return [Case(EXCHANGE, exchange, seconds=0.2), Case(CALL, call, seconds=0.2)]
