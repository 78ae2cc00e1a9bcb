"""``POST /token`` (wire.md 4): one call in, one token for exactly that call out, or the reason why not."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, ClassVar, Final

from countersign.errors import Denied, Unavailable
from countersign.wire import TokenClaims, mint_token
from countersign_webhook.decide.form import parse_token_request
from countersign_webhook.decide.http import NO_STORE, Answer
from countersign_webhook.decide.judge import judge
from countersign_webhook.decide.signed import SignedEndpoint

if TYPE_CHECKING:
    from countersign.wire import Message
    from countersign_webhook.decide.case import Case
    from countersign_webhook.decide.judge import Verdict
    from countersign_webhook.keys import TokenKey

__all__ = ["TokenEndpoint"]

_ISSUED: Final = "urn:ietf:params:oauth:token-type:access_token"
_JTI_BYTES: Final = 16


class TokenEndpoint(SignedEndpoint):
    """Decides calls."""

    path: ClassVar[str] = "/token"
    method: ClassVar[str] = "POST"

    async def answer(self, case: Case, message: Message) -> Answer:
        """Read the form, decide, record, and only then make the token."""
        case.request = parse_token_request(message)
        verdict = self._judged(case)
        decision = case.decision = verdict.decision
        if not decision.allowed:
            raise Denied(decision.code, decision.reason or "")
        key = self.context.keys.signing(case.seconds)
        case.jti = secrets.token_urlsafe(_JTI_BYTES)
        await self.context.recorder.allowed(case, self.context.book.servers)
        return self._granted(case, verdict, key)

    def _judged(self, case: Case) -> Verdict:
        context = self.context
        if case.request is None or case.caller is None or case.facts is None:
            raise Unavailable("decide.failed", "a step before the decision is missing")
        case.rule_set = context.book.rules.digest
        return judge(
            case.request,
            case.facts,
            case.caller.key_tier,
            now=case.now,
            cluster=context.settings.cluster,
            rules=context.book.rules,
            servers=context.book.servers,
        )

    def _granted(self, case: Case, verdict: Verdict, key: TokenKey) -> Answer:
        """Make the token of a recorded, allowing decision; nothing else calls this."""
        if not (verdict.decision.allowed and case.recorded):
            raise Unavailable("decide.failed", "no token without a recorded yes")
        life = self.context.settings.token.life_seconds
        claims = token_claims(case, issuer=self.context.settings.issuer, life=life)
        body: dict[str, Any] = {
            "access_token": mint_token(claims, key=key.private_key, kid=key.kid),
            "issued_token_type": _ISSUED,
            "token_type": "Countersign",
            "expires_in": life,
            "authorization_details": [claims.details],
            "decision": case.id,
        }
        if verdict.tools is not None:
            body["tools"] = list(verdict.tools)
        return Answer.of_json(body, NO_STORE)


def token_claims(case: Case, *, issuer: str, life: int) -> TokenClaims:
    """Return the claims of wire.md 5 for an allowed case: names and digests, no argument and no hardware identifier."""
    if case.caller is None or case.facts is None or case.request is None or case.jti is None:
        raise Unavailable("decide.failed", "a step before the token is missing")
    attested = case.facts.device.attestation_time
    if attested is None or case.rule_set is None:
        raise Unavailable("decide.failed", "no token without evidence and rules")
    instance, call = case.caller.instance, case.request.call
    return TokenClaims(
        iss=issuer,
        sub=case.caller.spiffe_id,
        aud=call.audience,
        client_id=case.caller.spiffe_id,
        iat=case.seconds,
        exp=case.seconds + life,
        jti=case.jti,
        txn=case.id,
        public_key=case.caller.public_key,
        protocol=call.protocol,
        method=call.method,
        tool=call.tool,
        args=call.args,
        instance=f"{instance.namespace}/{instance.name}",
        key_tier=case.caller.key_tier,
        assurance=instance.assurance,
        attested_at=int(attested.timestamp()),
        policy=case.rule_set,
        jwk=case.caller.jwk,
        jkt=case.caller.jkt,
    )
