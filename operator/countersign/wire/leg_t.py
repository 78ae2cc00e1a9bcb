"""Who signed this request on leg T? The numbered checks of wire.md 3.4, (1) to (14).

Nothing of the body is parsed here, and nothing of what the message claims decides: the chain leads to the key, the key
finds the record, and the record says who calls and from which device.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import repeat
from operator import call, length_hint
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from countersign.errors import CountersignError, Denied
from countersign.wire import chain, signed
from countersign.wire.chain_cache import ChainCache, KnownChain
from countersign.wire.keys import jwk_of, thumbprint_of
from countersign.wire.lazy import lazy
from countersign.wire.nonce import NONCE_SECONDS, NonceCheck
from countersign.wire.signed import FOREIGN_CREDENTIALS, SignedExam
from countersign.wire.steps import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    from countersign.wire.message import Message
    from countersign.wire.replay import ReplayCache

__all__ = ["LEG_T_STEPS", "InstanceView", "LegT", "LegTExam", "VerifiedCaller", "verify_leg_t"]

_OTHER_CREDENTIALS: Final = FOREIGN_CREDENTIALS | {"authorization"}
_CHAIN_STEP: Final = 9
_SIGNATURE_STEP: Final = 11


@dataclass(frozen=True)
class InstanceView:
    """What the cluster says now of the instance behind a key. ``state`` is Active, Revoked or Ended.

    ``record`` is the caller's own and only handed through; nothing here looks at it.
    """

    namespace: str
    name: str
    uid: str
    spiffe_id: str
    state: str
    device_approved: bool
    assurance: str
    record: Any = field(default=None, repr=False)


class LegT(NamedTuple):
    """What the verifier of one endpoint knows. ``audience`` is the endpoint's full URL; times are in whole seconds.

    ``roots`` gives the trust bundle of a trust domain, empty for an unknown one (and the empty one). ``instance`` gives
    the record behind a jkt as it is now, or None. ``chains`` are those that were verified before, if any are kept.
    """

    audience: str
    issuer: str
    now: int
    roots: Callable[[str], Sequence[x509.Certificate]]
    nonces: NonceCheck
    replay: ReplayCache
    instance: Callable[[str], InstanceView | None]
    skew: int = 5
    window: int = 60
    chains: ChainCache | None = None


@dataclass(frozen=True)
class VerifiedCaller:
    """Whoever signed: made by :func:`verify_leg_t` alone. ``key_tier`` is TPM, or Software on a Software device.

    ``jwk`` is ``public_key`` as RFC 7518 has it, ``jkt`` its thumbprint.
    """

    jkt: str
    spiffe_id: str
    key_tier: str
    instance: InstanceView
    public_key: ec.EllipticCurvePublicKey
    jwk: Mapping[str, str]


class LegTExam(SignedExam):
    """One request on leg T under examination."""

    def __init__(self, message: Message, leg: LegT) -> None:
        """Keep both; the body was bounded where it was read."""
        super().__init__(
            message, audience=leg.audience, now=leg.now, skew=leg.skew, window=leg.window, max_body=len(message.body)
        )
        self.leg = leg

    @lazy
    def known(self) -> KnownChain | None:
        """The chain as it was verified before; None where step 9 has to look at it."""
        header = self.message.fields.get("countersign-chain")
        if self.leg.chains is None or header is None:
            return None
        return self.leg.chains.find(header, self.leg.roots, now=self.now, skew=self.skew)

    @lazy
    def chain(self) -> tuple[x509.Certificate, ...]:
        """The certificates sent, leaf first."""
        return chain.parse_chain(self.message.fields.get("countersign-chain") or "")

    @lazy
    def roots(self) -> Sequence[x509.Certificate]:
        """The trust bundle as it was when the chain was looked at: while the replay store is asked it may change."""
        return self.leg.roots(chain.trust_domain_of(self.chain[0]))

    @lazy
    def path(self) -> tuple[x509.Certificate, ...]:
        """The chain with its root, one of those that its trust domain has and that are valid now."""
        return chain.find_path(
            self.chain, [root for root in self.roots if chain.is_valid_at(root, now=self.now, skew=self.skew)]
        )

    @lazy
    def signing_key(self) -> ec.EllipticCurvePublicKey:
        """The leaf's key."""
        return self.known.key if self.known else chain.check_key(self.chain[0])

    @lazy
    def jwk(self) -> Mapping[str, str]:
        """The leaf's key, written down."""
        return self.known.jwk if self.known else jwk_of(self.signing_key)

    @lazy
    def jkt(self) -> str:
        """Its thumbprint, by which the key is known everywhere."""
        return self.known.jkt if self.known else thumbprint_of(self.jwk)

    @lazy
    def names(self) -> Sequence[str]:
        """The leaf's URI names."""
        return self.known.names if self.known else chain.uri_names(self.chain[0])

    @lazy
    def issued(self) -> int:
        """When the webhook made the nonce, for this key."""
        return self.leg.nonces.check(self.nonce, self.jkt, self.now)

    @lazy
    def instance(self) -> InstanceView:
        """The record behind the key."""
        instance = self.leg.instance(self.jkt)
        if instance is None:
            raise Denied("instance.unknown", "no instance has this key")
        return instance


def _one_credential(exam: LegTExam) -> None:
    signed.refuse_fields(exam, _OTHER_CREDENTIALS)


def _chain_missing(exam: LegTExam) -> None:
    if exam.message.fields.get("countersign-chain") is None:
        raise Denied("cert.missing", "no Countersign-Chain")


def _chain_format(exam: LegTExam) -> None:
    _ = exam.known or exam.chain


def _chain(exam: LegTExam) -> None:
    _ = exam.known or exam.path


def _chain_expired(exam: LegTExam) -> None:
    if not exam.known:
        chain.check_times(exam.chain, now=exam.now, skew=exam.skew)


def _chain_usage(exam: LegTExam) -> None:
    if not exam.known:
        chain.check_usage(exam.chain[0])


def _chain_name(exam: LegTExam) -> None:
    if not exam.known:
        chain.check_name(exam.chain[0])


def _chain_key(exam: LegTExam) -> None:
    _ = exam.signing_key


def _session(exam: LegTExam) -> None:
    """Refuse every session statement: the tier TPMSession (3.5) is not built, so no statement has a form that is known."""
    if exam.message.fields.get("countersign-session") is not None:
        raise Denied("session.format", "session keys are not accepted here")


def _nonce(exam: LegTExam) -> None:
    _ = exam.issued


async def _replay(exam: LegTExam) -> None:
    expires = exam.issued + NONCE_SECONDS + exam.skew
    await exam.leg.replay.insert((exam.jkt, exam.nonce), issued=exam.issued, expires=expires, now=exam.now)


def _instance_unknown(exam: LegTExam) -> None:
    _ = exam.instance


def _instance_mismatch(exam: LegTExam) -> None:
    if exam.instance.spiffe_id not in exam.names:
        raise Denied("instance.mismatch", "the certificate names another agent than the instance")


def _device(exam: LegTExam) -> None:
    if not exam.instance.device_approved:
        raise Denied("device.not_approved", "the instance's device is not approved")


def _instance_ended(exam: LegTExam) -> None:
    if exam.instance.state == "Ended":
        raise Denied("instance.ended", "the instance's pod is gone")


def _instance_revoked(exam: LegTExam) -> None:
    if exam.instance.state not in ("Active", "Ended"):
        raise Denied("instance.revoked", "the instance is revoked")


def _step(number: int, check: Callable[[LegTExam], Any], *codes: str) -> Step[LegTExam]:
    return Step(number, codes, check)


LEG_T_STEPS: Final[tuple[Step[LegTExam], ...]] = (
    _step(1, signed.check_fields, "parse.duplicate_header", "parse.encoding", "parse.syntax", "http.path"),
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
    _step(5, _chain_missing, "cert.missing"),
    _step(6, signed.check_components, "proof.components"),
    _step(7, signed.check_window, "proof.window"),
    _step(7, signed.check_future, "proof.future"),
    _step(7, signed.check_expired, "proof.expired"),
    _step(8, signed.check_audience, "proof.audience"),
    _step(_CHAIN_STEP, _chain_format, "cert.format"),
    _step(_CHAIN_STEP, _chain, "cert.chain"),
    _step(_CHAIN_STEP, _chain_expired, "cert.expired"),
    _step(_CHAIN_STEP, _chain_usage, "cert.usage"),
    _step(_CHAIN_STEP, _chain_name, "cert.name"),
    _step(_CHAIN_STEP, _chain_key, "cert.key"),
    _step(10, _session, "session.format"),
    _step(_SIGNATURE_STEP, signed.check_signature, "proof.signature"),
    _step(12, _nonce, "nonce.invalid", "nonce.expired"),
    _step(13, _replay, "replay.store_reset", "proof.replayed", "replay.unavailable"),
    _step(14, _instance_unknown, "instance.unknown"),
    _step(14, _instance_mismatch, "instance.mismatch"),
    _step(14, _device, "device.not_approved"),
    _step(14, _instance_ended, "instance.ended"),
    _step(14, _instance_revoked, "instance.revoked"),
)
"""The checks in their order, by their numbers in wire.md 3.4."""
_CHECKS: Final = tuple(step.check for step in LEG_T_STEPS)


def _jkt_if_known(exam: LegTExam) -> str | None:
    """Return the thumbprint of the leaf's key, good or bad (3.3.2); None where step 9 itself found no key."""
    try:
        return exam.jkt
    except CountersignError:
        return None


def _keep(exam: LegTExam) -> None:
    """Keep a chain that was verified here and now; the caller passed all checks."""
    header = exam.message.fields.get("countersign-chain")
    if exam.leg.chains is None or header is None or exam.known:
        return
    domain = chain.trust_domain_of(exam.chain[0])
    begins, ends = chain.life_of(exam.path)
    known = KnownChain(
        exam.now, domain, exam.roots, begins, ends, tuple(exam.names), exam.signing_key, exam.jwk, exam.jkt
    )
    exam.leg.chains.keep(header, known)


async def verify_leg_t(message: Message, leg: LegT, *, steps: Iterable[Step[LegTExam]] = LEG_T_STEPS) -> VerifiedCaller:
    """Return who signed ``message`` for the endpoint of ``leg``.

    Raises
    ------
    CountersignError
        Of the first check that fails. It carries ``jkt`` once a key is known (from step 9 on), for which the answer may
        bring a nonce, and ``audited`` once the signature is good (after step 11), from when a refusal is recorded.

    """
    exam = LegTExam(message, leg)
    usual = steps is LEG_T_STEPS
    sequence = LEG_T_STEPS if usual else tuple(steps)
    checks = iter(_CHECKS if usual else tuple(step.check for step in sequence))
    try:
        for waiting in map(call, checks, repeat(exam)):
            if waiting is not None:
                await waiting
    except CountersignError as error:
        number = sequence[-1 - length_hint(checks)].number
        jkt = _jkt_if_known(exam) if number >= _CHAIN_STEP else None
        vars(error).update(jkt=jkt, audited=number > _SIGNATURE_STEP)
        raise
    if usual:
        _keep(exam)
    return VerifiedCaller(
        jkt=exam.jkt,
        spiffe_id=exam.instance.spiffe_id,
        key_tier="Software" if exam.instance.assurance == "Software" else "TPM",
        instance=exam.instance,
        public_key=exam.signing_key,
        jwk=exam.jwk,
    )
