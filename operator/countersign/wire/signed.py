"""Is this request signed as the profile wants? The checks that legs T and C share (wire.md 3.1 and 3.4).

What a check needs is parsed once, when it is first needed, and refused with the code of its grammar: a parser cannot be
left out as a check can. The steps say in which order a message fails.
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Final

from countersign.clock import COMPARE_CLOCKS
from countersign.errors import Denied
from countersign.wire.encoding import unb64
from countersign.wire.keys import SIGNATURE_BYTES, es256_verifies
from countersign.wire.lazy import lazy
from countersign.wire.message import Message
from countersign.wire.signature import (
    LABEL,
    NONCE,
    TAG,
    content_digest,
    covered_components,
    signature_base,
)
from countersign.wire.signature_fields import (
    PARAMETERS,
    InputMember,
    SignatureMember,
    read_signature,
    read_signature_input,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = [
    "FOREIGN_CREDENTIALS",
    "SignedExam",
    "check_audience",
    "check_components",
    "check_digest_format",
    "check_digest_match",
    "check_digest_missing",
    "check_digest_unexpected",
    "check_encoding",
    "check_expired",
    "check_fields",
    "check_format",
    "check_future",
    "check_grammar",
    "check_label",
    "check_missing",
    "check_parameters",
    "check_signature",
    "check_tag",
    "check_window",
    "refuse_fields",
]

FOREIGN_CREDENTIALS: Final = frozenset({"dpop", "workload-identity-token", "workload-proof-token", "txn-token"})
"""Credentials of other profiles: refused on every leg that is signed (wire.md 3.1.10)."""

_INTEGER: Final = re.compile(r"0|[1-9][0-9]{0,14}")
_STRING: Final = re.compile(r'"[ !#-\[\]-~]*"')
_BYTES: Final = re.compile(r":([A-Za-z0-9+/]{86}==):")
_DIGEST: Final = re.compile(r"sha-256=:[A-Za-z0-9+/]{43}=:")


class SignedExam:
    """One signed request under examination. ``audience`` is what ``wimse-aud`` must be; times are in whole seconds."""

    def __init__(self, message: Message, *, audience: str, now: int, skew: int, window: int, max_body: int) -> None:
        """Keep what is to be examined; nothing is read yet."""
        self.message = message
        self.audience = audience
        self.now = now
        self.skew = skew
        self.window = window
        self.max_body = max_body

    @lazy
    def inputs(self) -> tuple[InputMember, ...]:
        """The members of ``Signature-Input``."""
        members = read_signature_input(self._field("signature-input"))
        if members[0].usual:
            created, expires, nonce, tag, audience = [text for _, text in members[0].parameters]
            self.__dict__.update(
                created=int(created),
                expires=int(expires),
                nonce=nonce[1:-1],
                tag=tag[1:-1],
                signed_audience=audience[1:-1],
            )
        return members

    @lazy
    def signatures(self) -> tuple[SignatureMember, ...]:
        """The members of ``Signature``."""
        return read_signature(self._field("signature"))

    @lazy
    def parameters(self) -> dict[str, str]:
        """The parameters of the signature as they are written."""
        return dict(reversed(self.inputs[0].parameters))

    @lazy
    def created(self) -> int:
        """When the signature was made."""
        return self._integer("created")

    @lazy
    def expires(self) -> int:
        """When the signature ends."""
        return self._integer("expires")

    @lazy
    def nonce(self) -> str:
        """What makes it usable once."""
        return self._string("nonce")

    @lazy
    def tag(self) -> str:
        """The profile that it was made for."""
        return self._string("tag")

    @lazy
    def signed_audience(self) -> str:
        """Whom it was made for."""
        return self._string("wimse-aud")

    @lazy
    def signature(self) -> bytes:
        """The signature's 64 bytes."""
        match = _BYTES.fullmatch(self.signatures[0].text)
        try:
            signature = unb64(match[1]) if match else b""
        except ValueError:
            signature = b""
        if len(signature) != SIGNATURE_BYTES:
            raise Denied("proof.encoding", "a signature is r and s in 64 bytes, in canonical base64")
        return signature

    @property
    def base(self) -> bytes:
        """What was signed: the components that the message itself demands, and the parameters as received."""
        member = self.inputs[0]
        try:
            return signature_base(self.message, member.components, member.text)
        except ValueError as error:
            raise Denied("proof.signature", "a covered value is outside ISO 8859-1") from error

    @property
    def signing_key(self) -> ec.EllipticCurvePublicKey:
        """The key that the verified credential names; never one that the message names beside it."""
        raise NotImplementedError

    def _field(self, name: str) -> str:
        value = self.message.fields.get(name)
        if value is None:
            raise Denied("proof.missing", f"no {name}")
        return value

    def _parameter(self, name: str) -> str:
        try:
            return self.parameters[name]
        except KeyError:
            raise Denied("proof.parameters", f"no {name}") from None

    def _integer(self, name: str) -> int:
        text = self._parameter(name)
        if not _INTEGER.fullmatch(text):
            raise Denied("proof.format", f"{name} is an integer without sign, leading zero or fraction")
        return int(text)

    def _string(self, name: str) -> str:
        text = self._parameter(name)
        if not _STRING.fullmatch(text):
            raise Denied("proof.format", f"{name} is a string")
        return text[1:-1]


def check_fields(exam: SignedExam) -> None:
    """Hold the message itself to wire.md 2.2, whoever built it."""
    got = exam.message
    if got.built and len(got.body) <= exam.max_body:
        return
    exam.message = Message.build(got.method, got.target, got.headers, got.body, max_body=exam.max_body)


def refuse_fields(exam: SignedExam, names: frozenset[str]) -> None:
    """Refuse a request with another form of credential beside its own (3.1.10)."""
    if not names.isdisjoint(exam.message.fields):
        raise Denied("proof.ambiguous", "another credential beside its own")


def check_missing(exam: SignedExam) -> None:
    """Check that both fields are there (3.1.1)."""
    for name in ("signature-input", "signature"):
        if exam.message.fields.get(name) is None:
            raise Denied("proof.missing", f"no {name}")


def check_grammar(exam: SignedExam) -> None:
    """Check that both fields can be read at all (3.1.2)."""
    _ = exam.inputs, exam.signatures


def check_label(exam: SignedExam) -> None:
    """Check that each has exactly one member, of our label (3.1.1)."""
    for members in (exam.inputs, exam.signatures):
        if len(members) != 1 or members[0].label != LABEL:
            raise Denied("proof.label", f"exactly one member, {LABEL}")


def check_parameters(exam: SignedExam) -> None:
    """Check that every parameter is there once and in order; no key or algorithm is the message's to name (3.1.2)."""
    if not exam.inputs[0].usual and tuple([name for name, _ in exam.inputs[0].parameters]) != PARAMETERS:
        raise Denied("proof.parameters", f"exactly {' '.join(PARAMETERS)}")


def check_format(exam: SignedExam) -> None:
    """Check that every parameter has its form (3.1.2)."""
    _ = exam.created, exam.expires, exam.tag, exam.signed_audience
    if not NONCE.fullmatch(exam.nonce):
        raise Denied("proof.format", "a nonce is 22 to 256 characters of base64url")


def check_tag(exam: SignedExam) -> None:
    """Check that the signature was made for this profile (3.1.2)."""
    if exam.tag != TAG:
        raise Denied("proof.tag", f"the tag is {TAG}")


def check_encoding(exam: SignedExam) -> None:
    """Check that the signature is 64 bytes in canonical base64 (3.1.3)."""
    _ = exam.signature


def check_digest_missing(exam: SignedExam) -> None:
    """Check that a body has its digest (3.1.6)."""
    if exam.message.body and exam.message.fields.get("content-digest") is None:
        raise Denied("digest.missing", "a body without Content-Digest")


def check_digest_unexpected(exam: SignedExam) -> None:
    """Check that no body has none (3.1.6)."""
    if not exam.message.body and exam.message.fields.get("content-digest") is not None:
        raise Denied("digest.unexpected", "Content-Digest without a body")


def check_digest_format(exam: SignedExam) -> None:
    """Check that the digest is one SHA-256 (3.1.6)."""
    digest = exam.message.fields.get("content-digest")
    if digest is not None and not _DIGEST.fullmatch(digest):
        raise Denied("digest.format", "Content-Digest is sha-256=:…:")


def check_digest_match(exam: SignedExam) -> None:
    """Check that the digest is that of the bytes received (3.1.6)."""
    digest = exam.message.fields.get("content-digest")
    if digest is None:
        return
    if not hmac.compare_digest(digest.encode("latin-1", "replace"), content_digest(exam.message.body).encode()):
        raise Denied("digest.mismatch", "the body is not the one that was signed")


def check_components(exam: SignedExam) -> None:
    """Check that exactly what the message demands is covered, in order (3.1.4)."""
    if exam.inputs[0].components != covered_components(exam.message):
        raise Denied("proof.components", "the covered components are not those of this message")


def _untimely(code: str, exam: SignedExam) -> Denied:
    """Return the refusal of a signature of another time; ``skew`` is how far its maker's clock seems ahead of ours."""
    off = exam.created - exam.now
    where = "ahead of" if off > 0 else "behind"
    refusal = Denied(code, f"made {abs(off)} s {where} this clock; {COMPARE_CLOCKS}")
    vars(refusal)["skew"] = off
    return refusal


def check_window(exam: SignedExam) -> None:
    """Check that the signature's life is short (3.1.7)."""
    if not 0 < exam.expires - exam.created <= exam.window:
        raise Denied("proof.window", f"a signature lives 1 to {exam.window} s")


def check_future(exam: SignedExam) -> None:
    """Check that it has begun (3.1.7)."""
    if exam.created > exam.now + exam.skew:
        raise _untimely("proof.future", exam)


def check_expired(exam: SignedExam) -> None:
    """Check that it has not ended, without any allowance (3.1.7)."""
    if exam.now >= exam.expires:
        raise _untimely("proof.expired", exam)


def check_audience(exam: SignedExam) -> None:
    """Check that it was made for us, byte for byte (3.1.8)."""
    if exam.signed_audience != exam.audience:
        raise Denied("proof.audience", "the signature is for another audience")


def check_signature(exam: SignedExam) -> None:
    """Check that the key of the verified credential made it (3.1.5)."""
    if not es256_verifies(exam.signing_key, exam.signature, exam.base):
        raise Denied("proof.signature", "the signature is not of this key over this request")
