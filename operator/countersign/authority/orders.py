"""The life of an order (RFC 8555 section 7.1.6): one transition table, and a status that is derived, never stored.

An order's history is what the store holds: a verdict on its challenge, a certificate, its publication, the clock. Reading
it through the table gives the status; an action that the table does not know in that status is refused.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from countersign.acme import AcmeProblem, Authorization, Challenge, Identifier, Order
from countersign.authority.trust import stamp_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from countersign.authority.tables import CertificateRecord, OrderRecord

__all__ = [
    "CHALLENGE",
    "TRANSITIONS",
    "Action",
    "OrderStatus",
    "advance",
    "authorization_of",
    "challenge_of",
    "order_of",
    "status_of",
]

CHALLENGE: Final = "device-attest-01"


class OrderStatus(StrEnum):
    """The five statuses of an order."""

    PENDING = "pending"
    READY = "ready"
    PROCESSING = "processing"
    VALID = "valid"
    INVALID = "invalid"


class Action(StrEnum):
    """What can happen to an order."""

    PASS = "pass the challenge"  # noqa: S105 - not a password
    FAIL = "fail the challenge"
    FINALIZE = "finalize"
    PUBLISH = "publish the certificate"
    EXPIRE = "expire"


TRANSITIONS: Final[Mapping[tuple[OrderStatus, Action], OrderStatus]] = {
    (OrderStatus.PENDING, Action.PASS): OrderStatus.READY,
    (OrderStatus.PENDING, Action.FAIL): OrderStatus.INVALID,
    (OrderStatus.PENDING, Action.EXPIRE): OrderStatus.INVALID,
    (OrderStatus.READY, Action.FINALIZE): OrderStatus.PROCESSING,
    (OrderStatus.READY, Action.EXPIRE): OrderStatus.INVALID,
    (OrderStatus.PROCESSING, Action.PUBLISH): OrderStatus.VALID,
}
"""Every pair that is missing is refused."""


def advance(status: OrderStatus, action: Action) -> OrderStatus:
    """Return the status after ``action``.

    :raises AcmeProblem: ``orderNotReady``.
    """
    after = TRANSITIONS.get((status, action))
    if after is None:
        raise AcmeProblem("orderNotReady", f"an order that is {status} cannot {action}")
    return after


def status_of(order: OrderRecord, certificate: CertificateRecord | None, now: datetime) -> OrderStatus:
    """Return the status of an order at ``now``."""
    status = OrderStatus.PENDING
    for action in _history(order, certificate, now):
        status = advance(status, action)
    return status


def challenge_of(order: OrderRecord, base: str, now: datetime) -> Challenge:
    """Return the order's one challenge."""
    status = "valid" if order.validated is not None else "invalid" if _failed(order, now) else "pending"
    return Challenge(
        type=CHALLENGE,
        url=f"{base}/challenge/{order.id}",
        status=status,
        token=order.token,
        validated=None if order.validated is None else stamp_seconds(order.validated),
        error=order.error,
    )


def authorization_of(order: OrderRecord, base: str, now: datetime) -> Authorization:
    """Return the order's one authorization."""
    if order.validated is not None:
        status = "valid"
    elif order.error is not None:
        status = "invalid"
    else:
        status = "expired" if order.expires <= now.timestamp() else "pending"
    return Authorization(
        status=status,
        identifier=_identifier(order),
        expires=stamp_seconds(order.expires),
        challenges=[challenge_of(order, base, now)],
    )


def order_of(order: OrderRecord, certificate: CertificateRecord | None, base: str, now: datetime) -> Order:
    """Return the order as the client sees it; the certificate is named only once it is published."""
    status = status_of(order, certificate, now)
    named = certificate is not None and status is OrderStatus.VALID
    return Order(
        status=status.value,
        expires=stamp_seconds(order.expires),
        identifiers=[_identifier(order)],
        authorizations=[f"{base}/authz/{order.id}"],
        finalize=f"{base}/order/{order.id}/finalize",
        certificate=f"{base}/certificate/{certificate.id}" if named and certificate is not None else None,
        error=_error(order, status),
    )


def _history(order: OrderRecord, certificate: CertificateRecord | None, now: datetime) -> Iterator[Action]:
    if order.error is not None:
        yield Action.FAIL
        return
    if order.validated is not None:
        yield Action.PASS
    if certificate is not None:
        yield Action.FINALIZE
        if certificate.published is not None:
            yield Action.PUBLISH
    elif order.expires <= now.timestamp():
        yield Action.EXPIRE


def _failed(order: OrderRecord, now: datetime) -> bool:
    return order.error is not None or order.expires <= now.timestamp()


def _error(order: OrderRecord, status: OrderStatus) -> dict[str, Any] | None:
    if status is not OrderStatus.INVALID:
        return None
    return order.error or AcmeProblem("malformed", "the order expired").document()


def _identifier(order: OrderRecord) -> Identifier:
    return Identifier(type="permanent-identifier", value=order.identifier)
