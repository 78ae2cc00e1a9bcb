"""Serving certificates over years: nobody ever meets one whose CA he was not told of."""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store
from support.cluster import NOW

from countersign.clock import FakeClock
from countersign.controller.serving import Members, bundle_of, ca_members, serving_members
from countersign.devcluster import LocalCA

NAMES = ("localhost", "127.0.0.1")


def leaf(members: Members) -> x509.Certificate:
    return x509.load_pem_x509_certificate(members["tls.crt"])


def accepts(bundle: bytes, members: Members, at: datetime) -> None:
    """Verify as a client would that was told ``bundle``."""
    store = Store(x509.load_pem_x509_certificates(bundle))
    served = x509.load_pem_x509_certificates(members["tls.crt"])
    verifier = PolicyBuilder().store(store).time(at).build_server_verifier(x509.DNSName("localhost"))
    verifier.verify(served[0], served[1:])


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


def test_a_fresh_certificate_has_the_names_and_is_for_servers_only(clock: FakeClock) -> None:
    ca = ca_members({}, clock.now())
    found = leaf(serving_members({}, ca, NAMES, clock.now()))

    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1")]
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    accepts(ca["ca.crt"], serving_members({}, ca, NAMES, clock.now()), clock.now())


def test_nothing_is_due_on_a_second_look(clock: FakeClock) -> None:
    ca = ca_members({}, clock.now())
    serving = serving_members({}, ca, NAMES, clock.now())
    clock.advance(timedelta(days=30))

    assert ca_members(ca, clock.now()) == ca
    assert serving_members(serving, ca, NAMES, clock.now()) == serving


def test_a_certificate_is_renewed_at_two_thirds_of_its_life(clock: FakeClock) -> None:
    ca = ca_members({}, clock.now())
    serving = serving_members({}, ca, NAMES, clock.now())
    clock.advance(timedelta(days=40))

    renewed = serving_members(serving, ca, NAMES, clock.now())

    assert leaf(renewed).not_valid_after_utc > leaf(serving).not_valid_after_utc
    assert renewed["ca.crt"] == serving["ca.crt"]


@pytest.mark.parametrize(
    "present",
    [
        {"tls.crt": b"nonsense", "tls.key": b"nonsense", "ca.crt": b""},
        {"tls.crt": b""},
    ],
)
def test_what_cannot_be_read_is_made_anew(clock: FakeClock, present: Members) -> None:
    ca = ca_members(present, clock.now())

    accepts(ca["ca.crt"], serving_members(present, ca, NAMES, clock.now()), clock.now())


def test_other_names_want_another_certificate(clock: FakeClock) -> None:
    ca = ca_members({}, clock.now())
    serving = serving_members({}, ca, ["elsewhere"], clock.now())

    accepts(ca["ca.crt"], serving_members(serving, ca, NAMES, clock.now()), clock.now())


def test_a_key_that_does_not_belong_to_its_certificate_is_replaced(clock: FakeClock) -> None:
    ca = ca_members({}, clock.now())
    serving = serving_members({}, ca, NAMES, clock.now())
    other = serving_members({}, ca, NAMES, clock.now())

    fixed = serving_members({**serving, "tls.key": other["tls.key"]}, ca, NAMES, clock.now())

    assert fixed["tls.crt"] != serving["tls.crt"]


def test_a_certificate_of_a_stranger_is_replaced(clock: FakeClock) -> None:
    ours, theirs = ca_members({}, clock.now()), ca_members({}, clock.now())
    serving = serving_members({}, theirs, NAMES, clock.now())

    accepts(ours["ca.crt"], serving_members(serving, ours, NAMES, clock.now()), clock.now())


def test_a_new_ca_is_published_ten_minutes_before_it_signs(clock: FakeClock) -> None:
    ca = ca_members({}, clock.now())
    clock.advance(timedelta(days=244))
    announced = ca_members(ca, clock.now())
    clock.advance(timedelta(minutes=9, seconds=59))
    waiting = ca_members(announced, clock.now())
    clock.advance(timedelta(seconds=1))
    promoted = ca_members(waiting, clock.now())

    assert announced["tls.crt"] == ca["tls.crt"] == waiting["tls.crt"]
    assert announced["ca.crt"].count(b"BEGIN") == 2
    assert promoted["tls.crt"] == announced["next.crt"]
    assert "next.key" not in promoted
    assert promoted["ca.crt"].count(b"BEGIN") == 2


def test_e5_for_years_every_client_told_ten_minutes_ago_accepts_what_is_served_now(clock: FakeClock) -> None:
    ca: Members = {}
    serving: Members = {}
    told: list[tuple[datetime, bytes]] = []
    for step in range(3 * 365 * 2):
        ca = ca_members(ca, clock.now())
        serving = serving_members(serving, ca, NAMES, clock.now())
        if step and step % 7 == 0:
            accepts(told[-1][1], serving, clock.now())
        told.append((clock.now(), bundle_of(serving)))
        clock.advance(timedelta(hours=12))

    assert bundle_of(serving).count(b"BEGIN") <= 3


def test_an_ended_ca_is_no_longer_told(clock: FakeClock) -> None:
    first = ca_members({}, clock.now())
    clock.advance(timedelta(days=366))

    assert first["tls.crt"] not in ca_members(first, clock.now())["ca.crt"]


def test_a_given_ca_below_a_root_goes_along(clock: FakeClock) -> None:
    clock = FakeClock(datetime.now(NOW.tzinfo))
    root, below = LocalCA("root"), ca_members({}, clock.now())
    given = {**below, "ca.crt": root.pem}

    served = serving_members({}, given, NAMES, clock.now())

    assert served["tls.crt"].count(b"BEGIN") == 2
    assert served["ca.crt"] == root.pem
    assert serving_members(served, given, NAMES, clock.now()) == served


def test_a_ca_that_cannot_be_read_signs_nothing(clock: FakeClock) -> None:
    with pytest.raises(ValueError, match="serving CA"):
        serving_members({}, {"tls.crt": b"x", "tls.key": b"y"}, NAMES, clock.now())
