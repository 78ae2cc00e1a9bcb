"""A person's question to a log that lies elsewhere (wire.md 9.1): a JWS by a key of which the API server says whose it is.

No credential of the person travels: the key lives as long as the question, and the CertificateSigningRequest that holds its
public half names the person, because the API server writes that name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from countersign.audit.compact import ALG, read_compact, sign_compact, verify_compact
from countersign.audit.query import Filters

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["MOST_RECORDS", "READER_SIGNER", "Question", "Statement", "read_question", "sign_question"]

READER_SIGNER: Final = "countersign.dev/audit-reader"
"""``signerName`` of the request that names the reader. Nobody signs for it: the statement is the request itself."""
MOST_RECORDS: Final = 1000
_TYPE: Final = "countersign-audit-question+jwt"
_TEXTS: Final = ("agent", "user", "tool", "device", "decision", "code", "answer")
_TIMES: Final = ("since", "until")
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LONGEST: Final = 2048
_LAST: Final = 2**53
"""No clock shows more seconds, and no larger number can be compared with one that does."""


@dataclass(frozen=True)
class Question:
    """What is asked of the log of the webhook at ``aud``.

    ``reader`` names the CertificateSigningRequest; ``iat`` is in seconds since 1970; ``namespace`` None means all, which takes
    the right to all; ``limit`` is how many records, the newest.
    """

    aud: str
    reader: str
    iat: int
    namespace: str | None
    filters: Filters
    limit: int


@dataclass(frozen=True)
class Statement:
    """A question as it came: it says something only after :meth:`verify`."""

    question: Question
    _signature: bytes
    _signed: bytes

    def verify(self, key: ec.EllipticCurvePublicKey) -> Question:
        """Return the question if ``key`` signed it. Raises ValueError."""
        verify_compact(key, self._signature, self._signed)
        return self.question


def sign_question(question: Question, key: ec.EllipticCurvePrivateKey) -> str:
    """Return the JWS of a question."""
    filters: dict[str, Any] = {name: getattr(question.filters, name) for name in _TEXTS}
    filters |= {name: _stamp(getattr(question.filters, name)) for name in _TIMES}
    claims = {
        "aud": question.aud,
        "reader": question.reader,
        "iat": question.iat,
        "namespace": question.namespace,
        "filters": {name: value for name, value in filters.items() if value is not None},
        "limit": question.limit,
    }
    return sign_compact({"typ": _TYPE}, claims, key)


def read_question(text: str) -> Statement:
    """Parse a question strictly: every member is known and of its type. Raises ValueError; the signature is not looked at."""
    try:
        header, claims, signature, signed = read_compact(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if header != {"alg": ALG, "typ": _TYPE}:
        raise ValueError("not a question")
    if claims.keys() != {"aud", "reader", "iat", "namespace", "filters", "limit"}:
        raise ValueError("a question has aud, reader, iat, namespace, filters and limit")
    aud, reader, iat, namespace, limit = (claims[name] for name in ("aud", "reader", "iat", "namespace", "limit"))
    if not isinstance(aud, str) or not isinstance(reader, str) or not _NAME.fullmatch(reader):
        raise ValueError("aud and reader are names")
    if type(iat) is not int or not 0 <= iat <= _LAST or type(limit) is not int or not 1 <= limit <= MOST_RECORDS:
        raise ValueError(f"iat and limit are numbers, limit 1 to {MOST_RECORDS}")
    if namespace is not None and not (isinstance(namespace, str) and _NAMESPACE.fullmatch(namespace)):
        raise ValueError("namespace is a name or null")
    return Statement(Question(aud, reader, iat, namespace, _filters(claims["filters"]), limit), signature, signed)


def _filters(found: Any) -> Filters:
    if not isinstance(found, dict) or not found.keys() <= {*_TEXTS, *_TIMES}:
        raise ValueError("a filter that is not known")
    if not all(isinstance(value, str) and 0 < len(value) <= _LONGEST for value in found.values()):
        raise ValueError("a filter is a text")
    if found.get("answer", "deny") not in ("allow", "deny"):
        raise ValueError("answer is allow or deny")
    given: dict[str, Any] = {name: found[name] for name in _TEXTS if name in found}
    given |= {name: _time(found[name]) for name in _TIMES if name in found}
    return Filters(**given)


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time has an offset")
    return time


def _stamp(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat().replace("+00:00", "Z")
