"""The life of an order: a status that is derived from what happened, and a table in which every other pair is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import product

import pytest

from countersign.acme import AcmeProblem
from countersign.authority.orders import (
    TRANSITIONS,
    Action,
    OrderStatus,
    advance,
    authorization_of,
    challenge_of,
    order_of,
    status_of,
)
from countersign.authority.tables import CertificateRecord, OrderRecord

ORDER = OrderRecord("o1", "a1", "default", "c.ns.n", "ns", "n", "uid-1", "token", 100, 3700)
PASSED = replace(ORDER, validated=200, spki=b"k", ak_serial="01")
FAILED = replace(ORDER, error={"type": "urn:ietf:params:acme:error:badAttestationStatement"})
SIGNED = CertificateRecord("c1", "o1", "a1", "default", "0a", "jkt", "PEM", "ns", "n", "uid-1", 100, 3700)
PUBLISHED = replace(SIGNED, published=300)
BASE = "https://authority.test/acme/default"


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@pytest.mark.parametrize(
    ("order", "certificate", "now", "order_status", "authorization", "challenge"),
    [
        (ORDER, None, 300, "pending", "pending", "pending"),
        (PASSED, None, 300, "ready", "valid", "valid"),
        (PASSED, SIGNED, 300, "processing", "valid", "valid"),
        (PASSED, PUBLISHED, 300, "valid", "valid", "valid"),
        (FAILED, None, 300, "invalid", "invalid", "invalid"),
        (ORDER, None, 3700, "invalid", "expired", "invalid"),
        (PASSED, None, 3700, "invalid", "valid", "valid"),
        (PASSED, PUBLISHED, 9999, "valid", "valid", "valid"),
        (PASSED, SIGNED, 9999, "processing", "valid", "valid"),
    ],
)
def test_what_happened_says_the_status(
    order: OrderRecord,
    certificate: CertificateRecord | None,
    now: int,
    order_status: str,
    authorization: str,
    challenge: str,
) -> None:
    document = order_of(order, certificate, BASE, at(now))
    assert document.status == order_status
    assert authorization_of(order, BASE, at(now)).status == authorization
    assert challenge_of(order, BASE, at(now)).status == challenge
    assert (document.certificate is not None) == (order_status == "valid")
    assert (document.error is not None) == (order_status == "invalid")


@pytest.mark.parametrize(("status", "action"), sorted(set(product(OrderStatus, Action)) - set(TRANSITIONS)))
def test_every_other_pair_is_refused(status: OrderStatus, action: Action) -> None:
    with pytest.raises(AcmeProblem) as caught:
        advance(status, action)
    assert caught.value.name == "orderNotReady"


def test_a_history_that_cannot_be_is_no_status() -> None:
    with pytest.raises(AcmeProblem):
        status_of(ORDER, SIGNED, at(300))
