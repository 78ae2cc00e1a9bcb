"""The signer's pure parts: the CSR it signs, when it renews, and what it leaves of a list of tools."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from countersign.attest import SoftwareDevice, verify_csr
from countersign.signer.answers import filter_json, filter_sse
from countersign.signer.csr import build_csr
from countersign.signer.keyring import outage_delay, refused_delay, renewal_delay

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LIST = {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "read"}, {"name": "drop"}, {"nothing": 1}]}}


async def test_the_csr_names_nothing_and_is_signed_by_the_key() -> None:
    device = SoftwareDevice.make()
    key = await device.create_key()
    der = await build_csr(key)
    csr = x509.load_der_x509_csr(der)
    spki = key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    verify_csr(der, attested_spki=spki, identifier="c.n.i")
    assert list(csr.subject) == []
    assert list(csr.extensions) == []


@pytest.mark.parametrize(("jitter", "seconds"), [(-1, 2040), (0, 2400), (1, 2760)])
def test_renewal_is_due_at_two_thirds_of_life_give_or_take_a_tenth(jitter: float, seconds: float) -> None:
    assert renewal_delay(NOW, NOW + timedelta(hours=1), NOW, jitter=jitter) == pytest.approx(seconds)


def test_an_overdue_renewal_is_due_now() -> None:
    assert renewal_delay(NOW, NOW + timedelta(hours=1), NOW + timedelta(hours=2), jitter=0) == 0


SIGNERS = 1000


def busiest(times: list[float], seconds: float) -> int:
    """The most that happens within ``seconds``."""
    times, most, first = sorted(times), 0, 0
    for last, time in enumerate(times):
        while time - times[first] > seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def test_e4_a_thousand_signers_that_enrolled_in_one_second_do_not_renew_in_one() -> None:
    rng = random.Random(4)
    renewals: list[float] = []
    for _ in range(SIGNERS):
        at = rng.random()
        for _ in range(24):
            issued = NOW + timedelta(seconds=at)
            at += renewal_delay(issued, issued + timedelta(hours=1), issued, jitter=rng.random() * 2 - 1)
            renewals.append(at)
    # Evenly over the twelve minutes of jitter it would be 1.4 a second, and 83 a minute.
    assert busiest(renewals, 1) <= 12
    assert busiest(renewals, 60) <= 130


def test_e4_a_thousand_signers_do_not_meet_an_authority_that_is_back_all_at_once() -> None:
    rng = random.Random(4)
    tries: list[float] = []
    for _ in range(SIGNERS):
        at = 0.0  # all of them found it away in the same moment
        for attempt in range(40):
            at += outage_delay(attempt, jitter=rng.random())
            tries.append(at)
    # Each asks every minute or so: 17 a second, from the first ten minutes on.
    assert busiest([one for one in tries if 600 < one < 1200], 1) <= 45


def test_e4_a_thousand_signers_that_were_refused_together_do_not_come_back_together() -> None:
    rng = random.Random(4)
    times = [refused_delay(jitter=rng.random()) for _ in range(SIGNERS)]
    assert min(times) >= 60
    assert busiest(times, 1) <= 130


def test_a_list_keeps_only_what_the_front_door_named() -> None:
    kept = json.loads(filter_json(json.dumps(LIST).encode(), frozenset({"read"}), {}))
    assert kept["result"]["tools"] == [{"name": "read"}]


def test_an_absent_list_of_names_hides_everything() -> None:
    assert json.loads(filter_json(json.dumps(LIST).encode(), frozenset(), {}))["result"]["tools"] == []


def test_an_entry_whose_definition_is_not_the_pinned_one_is_dropped() -> None:
    kept = json.loads(filter_json(json.dumps(LIST).encode(), frozenset({"read"}), {"read": "sha256:" + "0" * 64}))
    assert kept["result"]["tools"] == []


def test_a_list_in_an_event_stream_is_filtered_too() -> None:
    stream = f"event: message\r\nid: 7\r\ndata: {json.dumps(LIST)}\r\n\r\n".encode()
    lines = filter_sse(stream, frozenset({"drop"}), {}).decode().split("\n")
    assert lines[:2] == ["event: message", "id: 7"]
    assert json.loads(lines[2].removeprefix("data: "))["result"]["tools"] == [{"name": "drop"}]


@pytest.mark.parametrize("body", [b"[]", b'{"result":[]}', b'{"result":{}}', b"nonsense"])
def test_a_list_that_cannot_be_read_is_not_passed_on(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"lists no tools|no JSON-RPC message|Expecting value"):
        filter_json(body, frozenset({"read"}), {})
