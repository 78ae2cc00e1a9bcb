"""What a tool server imports: nothing runs unless this very request carries a call token for it, and its proof.

``CountersignVerifier`` is ASGI middleware; put it before the application (``Middleware(CountersignVerifier)``), and each
request is refused with a problem document or handed on with ``scope["state"]["countersign"]``, a :class:`VerifiedCall`.
``countersign.verifier.testing`` makes calls, good and broken, for a tool server's own tests.

This room decides nothing about policy: the token is the decision, for exactly one call. It never hands token, proof or any
field that does not travel to the application, believes nothing of what a token says about where keys are, and accepts no
request that it could not check, whatever the reason.
"""

from countersign.verifier.asgi import STATE, CountersignVerifier
from countersign.verifier.jwks import FileJwks, HttpJwks, Jwks
from countersign.verifier.refusal import Refusal, log_refusal
from countersign.verifier.settings import VerifierSettings
from countersign.verifier.verify import LEG_C_STEPS, LegC, VerifiedCall, verify_call

__all__ = [
    "LEG_C_STEPS",
    "STATE",
    "CountersignVerifier",
    "FileJwks",
    "HttpJwks",
    "Jwks",
    "LegC",
    "Refusal",
    "VerifiedCall",
    "VerifierSettings",
    "log_refusal",
    "verify_call",
]
