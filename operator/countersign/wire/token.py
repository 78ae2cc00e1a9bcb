"""The call token: a JWT for exactly one call, by the issuer key, for the key that asked (wire.md 5).

Here it is made; ``token_exam`` reads it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from countersign.wire.call import DETAILS_TYPE
from countersign.wire.encoding import b64u
from countersign.wire.keys import jwk_of, sign_es256, thumbprint, thumbprint_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["ALG", "ASSURANCES", "KEY_TIERS", "MAX_TOKEN", "TYPE", "TokenClaims", "mint_token"]

KEY_TIERS: Final = ("Software", "DPoP", "TPMSession", "TPM")
"""Lowest first (wire.md 1.8)."""
ASSURANCES: Final = ("Software", "Virtual", "Hardware")
"""Lowest first (wire.md 1.8)."""
MAX_TOKEN: Final = 8192
"""Characters of a token."""

ALG: Final = "ES256"
TYPE: Final = "at+jwt"


class TokenClaims(NamedTuple):
    """What a token says. ``public_key`` is the key that signed leg T; ``args`` and ``policy`` are digests; times in seconds.

    ``jwk`` and ``jkt`` are ``public_key`` written down, for who has done that before.
    ``sub`` is ``user:`` and the task's user, or the agent's own SPIFFE ID; ``client_id`` is always the agent's.
    """

    iss: str
    sub: str
    aud: str
    client_id: str
    iat: int
    exp: int
    jti: str
    txn: str
    public_key: ec.EllipticCurvePublicKey
    protocol: str
    method: str
    tool: str
    args: str
    instance: str
    key_tier: str
    assurance: str
    attested_at: int
    policy: str
    task: str | None = None
    purpose: str | None = None
    jwk: Mapping[str, str] | None = None
    jkt: str | None = None

    @property
    def details(self) -> dict[str, str]:
        """The one object of ``authorization_details``, in token and answer alike."""
        return {
            "type": DETAILS_TYPE,
            "protocol": self.protocol,
            "method": self.method,
            "tool": self.tool,
            "args": self.args,
        }

    @property
    def document(self) -> dict[str, Any]:
        """The claim set."""
        facts: dict[str, Any] = {
            "instance": self.instance,
            "key_tier": self.key_tier,
            "assurance": self.assurance,
            "attested_at": self.attested_at,
            "policy": self.policy,
        }
        if self.task is not None:
            facts["task"] = self.task
        if self.purpose is not None:
            facts["purpose"] = self.purpose
        jwk = self.jwk or jwk_of(self.public_key)
        return {
            "iss": self.iss,
            "sub": self.sub,
            "aud": self.aud,
            "client_id": self.client_id,
            "iat": self.iat,
            "exp": self.exp,
            "jti": self.jti,
            "txn": self.txn,
            "cnf": {"jwk": {**jwk, "alg": ALG}, "jkt": self.jkt or thumbprint_of(jwk)},
            "act": {"sub": self.client_id},
            "authorization_details": [self.details],
            "countersign": facts,
        }


@lru_cache(maxsize=64)
def _header(kid: str) -> str:
    return b64u(orjson.dumps({"alg": ALG, "typ": TYPE, "kid": kid}))


def mint_token(claims: TokenClaims, *, key: ec.EllipticCurvePrivateKey, kid: str | None = None) -> str:
    """Return the token. Only an allowing, recorded decision may get here: the caller's to see to.

    ``kid`` is the thumbprint of ``key``, for who knows it.

    Raises ValueError if the claims are too long for any verifier.
    """
    signed = f"{_header(kid or thumbprint(key.public_key()))}.{b64u(orjson.dumps(claims.document))}"
    token = f"{signed}.{b64u(sign_es256(key, signed.encode('ascii')))}"
    if len(token) > MAX_TOKEN:
        msg = f"a token has at most {MAX_TOKEN} characters"
        raise ValueError(msg)
    return token
