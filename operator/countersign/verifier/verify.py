"""May this request run a tool here? The numbered checks of wire.md 6, (1) to (21), for MCP.

Each check raises and the next is not reached. Whoever holds a :class:`VerifiedCall` knows: the issuer allowed exactly this
call, the key that asked for it signed this very request, and neither was used before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from countersign.errors import CountersignError, Denied
from countersign.wire import ASSURANCES, KEY_TIERS, TOKEN_STEPS, Step, TokenExam, VerifiedToken, parse_mcp, signed
from countersign.wire.lazy import lazy
from countersign.wire.signed import FOREIGN_CREDENTIALS, SignedExam

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from cryptography.hazmat.primitives.asymmetric import ec

    from countersign.wire import Call, Message, ReplayCache

__all__ = ["LEG_C_STEPS", "LegC", "LegCExam", "VerifiedCall", "verify_call"]

SCHEME: Final = "Countersign "
_PROTOCOL: Final = "MCP"
_OTHER_CREDENTIALS: Final = FOREIGN_CREDENTIALS | {"countersign-chain", "countersign-session"}
_SIGNED_TOKEN: Final = 10
"""From the next step on the token's words are the issuer's."""


@dataclass(frozen=True)
class LegC:
    """What the verifier of one tool server knows. Times are in whole seconds, ``now`` since 1970.

    ``keys`` finds issuer keys by ``kid``. ``path`` and ``input_schemas`` (of each tool, for ``x-mcp-header``) are None
    where they are not known; the signature covers target and headers anyway.
    """

    issuer: str
    audience: str
    now: int
    keys: Callable[[str], Awaitable[ec.EllipticCurvePublicKey | None]]
    replay: ReplayCache
    skew: int = 5
    window: int = 60
    max_body: int = 256 * 1024
    path: str | None = None
    input_schemas: Mapping[str, Any] | None = None
    min_key_tier: str = KEY_TIERS[0]
    min_assurance: str = ASSURANCES[0]
    max_attestation_age: int | None = None


@dataclass(frozen=True)
class VerifiedCall:
    """What the tool may know of its caller: made by :func:`verify_call` alone, and never with the token.

    ``sub`` is ``user:…`` or the agent, ``agent`` its SPIFFE ID, ``instance`` is ``namespace/name``, ``tool`` is empty
    unless a tool is called, ``txn`` is the decision's id in the audit log.
    """

    sub: str
    agent: str
    instance: str
    tool: str
    key_tier: str
    assurance: str
    txn: str


class LegCExam(SignedExam):
    """One request on leg C under examination."""

    def __init__(self, message: Message, leg: LegC) -> None:
        """Keep both; nothing is read yet."""
        super().__init__(
            message, audience=leg.audience, now=leg.now, skew=leg.skew, window=leg.window, max_body=leg.max_body
        )
        self.leg = leg

    @lazy
    def token(self) -> TokenExam:
        """The token under its own examination."""
        value = self.message.get("authorization") or ""
        leg = self.leg
        return TokenExam(
            value.partition(" ")[2],
            issuer=leg.issuer,
            audience=leg.audience,
            now=leg.now,
            skew=leg.skew,
            keys=leg.keys,
        )

    @lazy
    def verified(self) -> VerifiedToken:
        """What the token says."""
        return self.token.verified()

    @property
    def signing_key(self) -> ec.EllipticCurvePublicKey:
        """The key that the token is for."""
        return self.token.confirmed

    @lazy
    def call(self) -> Call:
        """The call that this request is."""
        path = self.leg.path or self.message.target.partition("?")[0]
        request = parse_mcp(self.message, path=path, input_schemas=self.leg.input_schemas)
        return request.call(self.leg.audience)


def _token_missing(exam: LegCExam) -> None:
    if exam.message.get("authorization") is None:
        raise Denied("token.missing", "no Authorization")


def _token_scheme(exam: LegCExam) -> None:
    value = exam.message.get("authorization") or ""
    if not value.startswith(SCHEME) or " " in value.removeprefix(SCHEME):
        raise Denied("token.scheme", "the scheme is Countersign, followed by one space")


def _one_credential(exam: LegCExam) -> None:
    signed.refuse_fields(exam, _OTHER_CREDENTIALS)


def _of_token(step: Step[TokenExam]) -> Step[LegCExam]:
    return Step(step.number, step.codes, lambda exam: step.check(exam.token))


def _nonce(exam: LegCExam) -> None:
    if exam.nonce != exam.verified.jti:
        raise Denied("proof.nonce", "the signature is not for this token")


async def _replay(exam: LegCExam) -> None:
    token = exam.verified
    await exam.leg.replay.insert((token.iss, token.jti), issued=token.iat, expires=token.exp + exam.skew, now=exam.now)


def _protocol(exam: LegCExam) -> None:
    if exam.verified.details["protocol"] != _PROTOCOL:
        raise Denied("call.protocol", f"this server speaks {_PROTOCOL}")


def _parse(exam: LegCExam) -> None:
    _ = exam.call


def _method(exam: LegCExam) -> None:
    if exam.call.method != exam.verified.details["method"]:
        raise Denied("call.method", "the token is for another method")


def _tool(exam: LegCExam) -> None:
    if exam.call.tool != exam.verified.details["tool"]:
        raise Denied("call.tool", "the token is for another tool")


def _args(exam: LegCExam) -> None:
    if exam.call.args != exam.verified.details["args"]:
        raise Denied("call.args", "the token is for other arguments")


def _key_tier(exam: LegCExam) -> None:
    if _rank(KEY_TIERS, exam.verified.key_tier) < KEY_TIERS.index(exam.leg.min_key_tier):
        raise Denied("environment.key_tier_too_low", f"this server wants {exam.leg.min_key_tier}")


def _assurance(exam: LegCExam) -> None:
    if _rank(ASSURANCES, exam.verified.assurance) < ASSURANCES.index(exam.leg.min_assurance):
        raise Denied("environment.assurance_too_low", f"this server wants {exam.leg.min_assurance}")


def _attestation(exam: LegCExam) -> None:
    limit = exam.leg.max_attestation_age
    if limit is not None and exam.now - exam.verified.attested_at > limit:
        raise Denied("environment.attestation_stale", f"this server wants an attestation of the last {limit} s")


def _rank(words: tuple[str, ...], word: str) -> int:
    """Return how high a word stands; below all others if it is not known."""
    return words.index(word) if word in words else -1


def _step(number: int, check: Callable[[LegCExam], Any], *codes: str) -> Step[LegCExam]:
    return Step(number, codes, check)


LEG_C_STEPS: Final[tuple[Step[LegCExam], ...]] = (
    _step(
        1, signed.check_fields, "parse.duplicate_header", "parse.encoding", "parse.size", "parse.syntax", "http.path"
    ),
    _step(2, _token_missing, "token.missing"),
    _step(2, _token_scheme, "token.scheme"),
    _step(2, _one_credential, "proof.ambiguous"),
    _step(3, signed.check_missing, "proof.missing"),
    _step(3, signed.check_grammar, "proof.format"),
    _step(3, signed.check_label, "proof.label"),
    _step(3, signed.check_parameters, "proof.parameters"),
    _step(3, signed.check_format, "proof.format"),
    _step(3, signed.check_tag, "proof.tag"),
    _step(3, signed.check_encoding, "proof.encoding"),
    _step(4, signed.check_digest_missing, "digest.missing"),
    _step(4, signed.check_digest_unexpected, "digest.unexpected"),
    _step(4, signed.check_digest_format, "digest.format"),
    _step(4, signed.check_digest_match, "digest.mismatch"),
    _step(5, signed.check_components, "proof.components"),
    _step(6, signed.check_window, "proof.window"),
    _step(6, signed.check_future, "proof.future"),
    _step(6, signed.check_expired, "proof.expired"),
    _step(6, signed.check_audience, "proof.audience"),
    *(_of_token(step) for step in TOKEN_STEPS),
    _step(17, _nonce, "proof.nonce"),
    _step(18, signed.check_signature, "proof.signature"),
    _step(19, _replay, "replay.store_reset", "proof.replayed", "replay.unavailable"),
    _step(20, _protocol, "call.protocol"),
    _step(
        20,
        _parse,
        "mcp.http_method",
        "mcp.batch",
        "mcp.envelope",
        "mcp.version",
        "mcp.header_missing",
        "mcp.header_mismatch",
        "mcp.method_unknown",
        "mcp.params",
        "http.path",
        "parse.encoding",
    ),
    _step(20, _method, "call.method"),
    _step(20, _tool, "call.tool"),
    _step(20, _args, "call.args"),
    _step(21, _key_tier, "environment.key_tier_too_low"),
    _step(21, _assurance, "environment.assurance_too_low"),
    _step(21, _attestation, "environment.attestation_stale"),
)
"""The checks in their order, by their numbers in wire.md 6."""


async def verify_call(message: Message, leg: LegC, *, steps: Iterable[Step[LegCExam]] = LEG_C_STEPS) -> VerifiedCall:
    """Return who calls, if ``message`` may run at the server of ``leg``.

    Raises
    ------
    CountersignError
        Of the first check that fails. It carries ``txn`` and ``jti`` once the issuer's signature vouches for them.

    """
    exam = LegCExam(message, leg)
    for step in steps:
        try:
            await step.run(exam)
        except CountersignError as error:
            if step.number > _SIGNED_TOKEN:
                vars(error).update(txn=exam.token.text("txn"), jti=exam.token.text("jti"))
            raise
    token = exam.verified
    return VerifiedCall(
        sub=token.sub,
        agent=token.client_id,
        instance=token.instance,
        tool=exam.call.tool,
        key_tier=token.key_tier,
        assurance=token.assurance,
        txn=token.txn,
    )
