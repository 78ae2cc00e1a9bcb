"""Reading a call token: steps 7 to 16 of wire.md 6, each with its code.

A verifier may not use a claim before it has a :class:`VerifiedToken`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from countersign.clock import COMPARE_CLOCKS
from countersign.errors import Denied, Invalid
from countersign.wire.call import DETAILS_TYPE
from countersign.wire.chain import SPIFFE_ID
from countersign.wire.encoding import unb64u
from countersign.wire.keys import es256_verifies, read_jwk, thumbprint
from countersign.wire.lazy import lazy
from countersign.wire.steps import Step
from countersign.wire.strict_json import parse_json
from countersign.wire.token import ALG, ASSURANCES, KEY_TIERS, MAX_TOKEN, TYPE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from cryptography.hazmat.primitives.asymmetric import ec

    KeyFinder = Callable[[str], Awaitable[ec.EllipticCurvePublicKey | None]]

__all__ = ["TOKEN_STEPS", "TokenExam", "VerifiedToken", "verify_token"]

_HEADER: Final = frozenset({"alg", "typ", "kid"})
_JWK: Final = frozenset({"kty", "crv", "x", "y", "alg"})
_DETAILS: Final = frozenset({"type", "protocol", "method", "tool", "args"})
_LONGEST_LIFE: Final = 60
_MAX_ACTORS: Final = 4
_JTI: Final = re.compile(r"[A-Za-z0-9_-]{22}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_USER: Final = "user:"


@dataclass(frozen=True)
class VerifiedToken:
    """A token that passed every check, for one audience and time. Made by :func:`verify_token` and the verifier alone."""

    iss: str
    sub: str
    client_id: str
    iat: int
    exp: int
    jti: str
    txn: str
    public_key: ec.EllipticCurvePublicKey
    details: Mapping[str, str]
    instance: str
    key_tier: str
    assurance: str
    attested_at: int


class TokenExam:
    """One token under examination. ``keys`` finds an issuer key by its ``kid``.

    ``issuer`` and ``audience`` are our own configuration, never the token's word.
    """

    def __init__(self, token: str, *, issuer: str, audience: str, now: int, skew: int, keys: KeyFinder) -> None:
        """Keep what is to be examined; nothing is read yet."""
        self.token = token
        self.issuer = issuer
        self.audience = audience
        self.now = now
        self.skew = skew
        self.keys = keys
        self.issuer_key: ec.EllipticCurvePublicKey | None = None

    @lazy
    def parts(self) -> tuple[bytes, bytes, bytes]:
        """Header, claims and signature, decoded."""
        texts = self.token.split(".") if len(self.token) <= MAX_TOKEN else []
        try:
            header, claims, signature = (unb64u(text) for text in texts)
        except ValueError as error:
            raise Denied("token.format", "three parts in canonical base64url") from error
        return header, claims, signature

    @lazy
    def header(self) -> dict[str, Any]:
        """The JOSE header."""
        return _read(self.parts[0])

    @lazy
    def claims(self) -> dict[str, Any]:
        """The claim set."""
        return _read(self.parts[1])

    @lazy
    def confirmed(self) -> ec.EllipticCurvePublicKey:
        """The key that must sign the request."""
        jwk = self.member("cnf").get("jwk")
        try:
            if not isinstance(jwk, dict) or not jwk.keys() <= _JWK:
                raise Denied("token.confirmation", "cnf has a public key and its thumbprint")
            return read_jwk(jwk)
        except ValueError as error:
            raise Denied("token.confirmation", "cnf.jwk is no public P-256 key") from error

    @lazy
    def details(self) -> dict[str, str]:
        """The one call that the token is for."""
        entries = self.claims.get("authorization_details")
        entry = entries[0] if isinstance(entries, list) and len(entries) == 1 else None
        if not isinstance(entry, dict) or not all(isinstance(entry.get(name), str) for name in _DETAILS):
            raise Denied("token.details", "authorization_details is one call")
        return entry

    def text(self, name: str, within: str | None = None) -> str:
        """Return a string claim."""
        value = (self.claims if within is None else self.member(within)).get(name)
        if not isinstance(value, str) or not value:
            raise Denied("token.claims", f"{name} is a string")
        return value

    def number(self, name: str, within: str | None = None) -> int:
        """Return an integer claim."""
        value = (self.claims if within is None else self.member(within)).get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise Denied("token.claims", f"{name} is a number of seconds")
        return value

    def member(self, name: str) -> dict[str, Any]:
        """Return a claim that is an object."""
        value = self.claims.get(name)
        if not isinstance(value, dict):
            raise Denied("token.claims", f"{name} is an object")
        return value

    def verified(self) -> VerifiedToken:
        """Return what the token says, once every step has passed."""
        return VerifiedToken(
            iss=self.text("iss"),
            sub=self.text("sub"),
            client_id=self.text("client_id"),
            iat=self.number("iat"),
            exp=self.number("exp"),
            jti=self.text("jti"),
            txn=self.text("txn"),
            public_key=self.confirmed,
            details=self.details,
            instance=self.text("instance", "countersign"),
            key_tier=self.text("key_tier", "countersign"),
            assurance=self.text("assurance", "countersign"),
            attested_at=self.number("attested_at", "countersign"),
        )


def _read(data: bytes) -> dict[str, Any]:
    try:
        return parse_json(data, max_bytes=MAX_TOKEN)
    except Invalid as error:
        raise Denied("token.format", f"not one JSON object ({error.code})") from error


def _form(exam: TokenExam) -> None:
    _ = exam.parts, exam.header


def _alg(exam: TokenExam) -> None:
    if exam.header.get("alg") != ALG:
        raise Denied("token.alg", f"alg is {ALG}")


def _type(exam: TokenExam) -> None:
    if exam.header.get("typ") != TYPE:
        raise Denied("token.type", f"typ is {TYPE}")


def _header(exam: TokenExam) -> None:
    if exam.header.keys() != _HEADER:
        raise Denied("token.header", "exactly alg, typ and kid")


async def _kid(exam: TokenExam) -> None:
    kid = exam.header.get("kid")
    exam.issuer_key = await exam.keys(kid) if isinstance(kid, str) else None
    if exam.issuer_key is None:
        raise Denied("token.kid", "no issuer key of this name is known")


def _signature(exam: TokenExam) -> None:
    signed = exam.token.rpartition(".")[0].encode("ascii", "replace")
    if exam.issuer_key is None or not es256_verifies(exam.issuer_key, exam.parts[2], signed):
        raise Denied("token.signature", "not signed by the issuer key")


def _claim_set(exam: TokenExam) -> None:
    _ = exam.claims


def _claims(exam: TokenExam) -> None:
    """Every claim is there with its type; ``aud`` and ``authorization_details`` have codes of their own."""
    for name in ("iss", "sub", "client_id", "txn"):
        exam.text(name)
    for name in ("iat", "exp"):
        exam.number(name)
    for name in ("cnf", "act", "countersign"):
        exam.member(name)
    if not _JTI.fullmatch(exam.text("jti")):
        raise Denied("token.claims", "jti is 22 characters of base64url")
    for name in ("instance", "key_tier", "assurance", "policy"):
        exam.text(name, "countersign")
    exam.number("attested_at", "countersign")
    for name in ("task", "purpose"):
        if name in exam.member("countersign"):
            exam.text(name, "countersign")


def _issuer(exam: TokenExam) -> None:
    if exam.text("iss") != exam.issuer:
        raise Denied("token.issuer", "the token is of another issuer")


def _audience(exam: TokenExam) -> None:
    if exam.claims.get("aud") != exam.audience:
        raise Denied("token.audience", "the token is for another server")


def _future(exam: TokenExam) -> None:
    if exam.number("iat") > exam.now + exam.skew:
        raise Denied("token.future", f"iat is ahead of this clock; {COMPARE_CLOCKS}")


def _life(exam: TokenExam) -> None:
    if not 0 < exam.number("exp") - exam.number("iat") <= _LONGEST_LIFE:
        raise Denied("token.life", f"a token lives 1 to {_LONGEST_LIFE} s")


def _expired(exam: TokenExam) -> None:
    if exam.now >= exam.number("exp"):
        raise Denied("token.expired", f"ended before now by this clock; {COMPARE_CLOCKS}")


def _confirmation(exam: TokenExam) -> None:
    confirmation = exam.member("cnf")
    if confirmation.get("jkt") != thumbprint(exam.confirmed) or confirmation["jwk"].get("alg") != ALG:
        raise Denied("token.confirmation", "cnf.jkt is not the thumbprint of cnf.jwk, or its alg is another")


def _actor(exam: TokenExam) -> None:
    agent, subject = exam.text("client_id"), exam.text("sub")
    if not SPIFFE_ID.fullmatch(agent) or exam.member("act").get("sub") != agent:
        raise Denied("token.actor", "client_id and act.sub are the agent")
    if subject != agent and not (subject.startswith(_USER) and len(subject) > len(_USER)):
        raise Denied("token.actor", "sub is a user, or the agent itself")
    actor, depth = exam.claims.get("act"), 0
    while actor is not None:
        depth += 1
        if depth > _MAX_ACTORS or not isinstance(actor, dict) or not isinstance(actor.get("sub"), str):
            raise Denied("token.actor", f"at most {_MAX_ACTORS} actors, each with its name")
        actor = actor.get("act")


def _call(exam: TokenExam) -> None:
    details = exam.details
    if details.keys() != _DETAILS or details["type"] != DETAILS_TYPE or details["protocol"] not in ("MCP", "HTTP"):
        raise Denied("token.details", "authorization_details is one call of ours")
    if not details["method"] or not _DIGEST.fullmatch(details["args"]):
        raise Denied("token.details", "a call has a method and the digest of its arguments")


def _facts(exam: TokenExam) -> None:
    tier, assurance = exam.text("key_tier", "countersign"), exam.text("assurance", "countersign")
    if tier not in KEY_TIERS or assurance not in ASSURANCES:
        raise Denied("token.facts", "key_tier or assurance is a word that is not known")
    if assurance == ASSURANCES[0] and tier != KEY_TIERS[0]:
        raise Denied("token.facts", "no key is better than its device")


def _step(number: int, check: Callable[[TokenExam], Any], *codes: str) -> Step[TokenExam]:
    return Step(number, codes, check)


TOKEN_STEPS: Final[tuple[Step[TokenExam], ...]] = (
    _step(7, _form, "token.format"),
    _step(8, _alg, "token.alg"),
    _step(8, _type, "token.type"),
    _step(8, _header, "token.header"),
    _step(8, _kid, "token.kid"),
    _step(9, _signature, "token.signature"),
    _step(10, _claim_set, "token.format"),
    _step(10, _claims, "token.claims"),
    _step(11, _issuer, "token.issuer"),
    _step(12, _audience, "token.audience"),
    _step(13, _future, "token.future"),
    _step(13, _life, "token.life"),
    _step(13, _expired, "token.expired"),
    _step(14, _confirmation, "token.confirmation"),
    _step(15, _actor, "token.actor"),
    _step(16, _call, "token.details"),
    _step(16, _facts, "token.facts"),
)
"""The checks in their order, by their numbers in wire.md 6."""


async def verify_token(exam: TokenExam, *, steps: Iterable[Step[TokenExam]] = TOKEN_STEPS) -> VerifiedToken:
    """Return what a token says; the request that brings it is still to be checked.

    Raises Denied ``token.*`` of the first check that fails, and what ``keys`` raises.
    """
    for step in steps:
        await step.run(exam)
    return exam.verified()
