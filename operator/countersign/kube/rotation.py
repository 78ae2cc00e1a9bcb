"""When does a CA give way to the next one? What the Secret of a CA of ours is to hold at a moment. Pure.

The members are PEM: ``tls.crt`` and ``tls.key`` sign now, ``next.crt`` and ``next.key`` are published already and sign
later, ``ca.crt`` is what is to be believed: both, and former ones as long as something that they signed may be in use.
``since`` and ``next.since`` say from when the one signs and the other is published. So nobody ever meets a certificate
whose CA he was not told of, and no CA is believed for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "Members",
    "Overlap",
    "adopted",
    "certificates_of",
    "is_due",
    "rotation_asked",
    "succeeded",
    "without_request",
]

Members = dict[str, bytes]

_ROTATE: Final = "countersign.dev/rotate"
_CERT, _KEY, _BUNDLE, _SINCE = "tls.crt", "tls.key", "ca.crt", "since"
_NEXT_CERT, _NEXT_KEY, _NEXT_SINCE = "next.crt", "next.key", "next.since"


@dataclass(frozen=True)
class Overlap:
    """How long a CA is published before it signs, and how long it is believed after it last signed."""

    ahead: timedelta
    kept: timedelta


def rotation_asked(found: Mapping[str, Any]) -> bool:
    """Tell whether a person asked, by the annotation ``countersign.dev/rotate``, that this Secret be rotated now."""
    return _ROTATE in (found["metadata"].get("annotations") or {})


def without_request(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of an object as they are written back once the rotation that was asked for has begun."""
    annotations = {name: value for name, value in (metadata.get("annotations") or {}).items() if name != _ROTATE}
    return {**metadata, "annotations": annotations, "managedFields": None}


def succeeded(
    present: Mapping[str, bytes],
    now: datetime,
    overlap: Overlap,
    make: Callable[[], tuple[bytes, bytes]],
    *,
    forced: bool = False,
    told: bool = True,
) -> Members:
    """Return the members at ``now`` of a CA that can be read; equal to ``present`` if nothing is due.

    ``make`` makes the next certificate and its key. It is made at two thirds of the present one's life, or when it is
    ``forced``; it signs when it has been published for a while and ``told`` says that whoever must know of it does.
    """
    members = dict(present)
    current, following = _certificate(members[_CERT]), _certificate(members.get(_NEXT_CERT, b""))
    if following is None:
        if forced or is_due(current, now):
            members[_NEXT_CERT], members[_NEXT_KEY] = make()
            members[_NEXT_SINCE] = _written(now)
    elif told and _read(members.get(_NEXT_SINCE), following.not_valid_before_utc) + overlap.ahead <= now:
        members[_CERT], members[_KEY] = members.pop(_NEXT_CERT), members.pop(_NEXT_KEY)
        members.pop(_NEXT_SINCE, None)
        members[_SINCE] = _written(now)
    members[_BUNDLE] = _bundle(members, now, overlap)
    return members


def adopted(present: Mapping[str, bytes], certificate: bytes, now: datetime, overlap: Overlap) -> Members:
    """Return the members, keys left out, of a CA that its owner replaces at will and that signs with ``certificate`` now.

    What was believed before stays believed as long as something that it signed may be in use.
    """
    members = {_CERT: certificate, _BUNDLE: present.get(_BUNDLE, b"")}
    signed_before = present.get(_CERT) == certificate and _SINCE in present
    members[_SINCE] = present[_SINCE] if signed_before else _written(now)
    members[_BUNDLE] = _bundle(members, now, overlap)
    return members


def certificates_of(pem: bytes) -> list[x509.Certificate]:
    """Return the certificates of a bundle; none of one that cannot be read."""
    try:
        return x509.load_pem_x509_certificates(pem) if pem else []
    except ValueError:
        return []


def is_due(certificate: x509.Certificate | None, now: datetime) -> bool:
    """Tell whether two thirds of a certificate's life are over."""
    if certificate is None:
        return False
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return now >= certificate.not_valid_before_utc + life * 2 / 3


def _bundle(members: Members, now: datetime, overlap: Overlap) -> bytes:
    """Return whom to believe: the one that signs, the next one, and former ones until nothing of theirs is in use."""
    ours = [*certificates_of(members[_CERT])[:1], *certificates_of(members.get(_NEXT_CERT, b""))]
    former = certificates_of(members.get(_BUNDLE, b""))
    # Whoever is neither of them signed before the present one began; without that time, believed until it ends.
    if _read(members.get(_SINCE), now) + overlap.kept <= now:
        former = [one for one in former if one in ours]
    living = dict.fromkeys(one for one in (*ours, *former) if one.not_valid_after_utc > now)
    return b"".join(one.public_bytes(Encoding.PEM) for one in living)


def _certificate(pem: bytes) -> x509.Certificate | None:
    return next(iter(certificates_of(pem)), None)


def _written(moment: datetime) -> bytes:
    return moment.astimezone(UTC).isoformat(timespec="seconds").encode()


def _read(text: bytes | None, otherwise: datetime) -> datetime:
    """Return a time of ours; ``otherwise`` for one that is not there, or that somebody spoilt."""
    try:
        moment = datetime.fromisoformat((text or b"").decode())
    except ValueError:
        return otherwise
    return moment if moment.tzinfo is not None else otherwise
