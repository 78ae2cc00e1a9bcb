"""The life of an identity (enrolment.md section 4): first certificate, renewal, new attestation, refusals, no answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from support.loopback import INSTANCE, START, write_trust
from support.naps import Naps

from countersign.attest import SoftwareDevice
from countersign.clock import FakeClock
from countersign.errors import CountersignError, Denied, Unavailable
from countersign.signer.enrol import Admission
from countersign.signer.keyring import Keyring
from countersign.signer.metrics import SignerMetrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CA_KEY = ec.generate_private_key(ec.SECP256R1())
HOUR = timedelta(hours=1)


def certificate(key: Any, start: datetime, life: timedelta) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + life)
        .sign(CA_KEY, hashes.SHA256())
    )


@dataclass
class Authority:
    """Admits and certifies at once, unless it is told to fail; the twin of ``Enroller``."""

    clock: FakeClock
    life: timedelta = HOUR
    ak_life: timedelta = timedelta(minutes=10)
    problems: list[CountersignError | None] = field(default_factory=list)
    refusals: list[CountersignError] = field(default_factory=list)
    admitted: list[str] = field(default_factory=list)
    certified: list[str] = field(default_factory=list)
    trusts: list[Any] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    held: asyncio.Event = field(default_factory=asyncio.Event)

    async def admit(self, trust: Any, key: Any) -> Admission:
        self.trusts.append(trust)
        self.admitted.append(key.jkt)
        self.held.set()
        await self.hold.wait()
        if self.problems and (problem := self.problems.pop(0)):
            raise problem
        ak = certificate(CA_KEY.public_key(), self.clock.now(), self.ak_life).public_bytes(Encoding.DER)
        return Admission((ak,), INSTANCE, "c.billing.x", "https://ca.example.com/directory", None, "P256", 3600)

    async def certify(self, trust: Any, key: Any, admission: Admission) -> list[x509.Certificate]:
        del trust, admission
        self.certified.append(key.jkt)
        if self.refusals:
            raise self.refusals.pop(0)
        return [certificate(key.public_key, self.clock.now(), self.life)]


@dataclass
class Ring:
    """A keyring that runs, and all that a test moves around it."""

    clock: FakeClock
    authority: Authority
    naps: Naps
    keyring: Keyring
    metrics: SignerMetrics
    trust_dir: Path
    dice: list[float]
    task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.keyring.run())

    def counted(self, code: str) -> float:
        name = "countersign_signer_enrolments_total"
        return self.metrics.registry.get_sample_value(name, {"code": code}) or 0.0


@pytest.fixture
async def ring(tmp_path: Path) -> AsyncIterator[Ring]:
    clock, metrics, dice = FakeClock(START), SignerMetrics(), [0.5]
    authority, naps, trust_dir = Authority(clock), Naps(clock), write_trust(tmp_path / "trust")
    authority.hold.set()
    keyring = Keyring(
        SoftwareDevice.make(),
        authority,
        trust_dir=trust_dir,
        clock=clock,
        metrics=metrics,
        rng=lambda: dice[0],
        sleep=naps,
    )
    made = Ring(clock, authority, naps, keyring, metrics, trust_dir, dice)
    yield made
    if made.task is not None:
        made.task.cancel()
        await asyncio.gather(made.task, return_exceptions=True)


def test_before_enrolment_there_is_no_identity(ring: Ring) -> None:
    with pytest.raises(Unavailable) as caught:
        ring.keyring.current()
    assert caught.value.code == "attest.unavailable"


@pytest.mark.parametrize(("dice", "minutes"), [(0.0, 34), (0.5, 40), (1.0, 46)])
async def test_a_certificate_is_renewed_at_two_thirds_of_its_life_with_jitter(
    ring: Ring, dice: float, minutes: float
) -> None:
    ring.dice[0] = dice
    ring.start()
    assert await ring.naps.next() == pytest.approx(minutes * 60)
    assert ring.keyring.current().instance == INSTANCE
    assert ring.keyring.problem is None


async def test_a_renewal_keeps_the_key_and_replaces_the_certificate(ring: Ring) -> None:
    ring.start()
    await ring.naps.next()
    first = ring.keyring.current()
    await ring.naps.after()
    second = ring.keyring.current()
    assert second.key is first.key
    assert second.chain != first.chain
    assert second.not_after > first.not_after
    assert set(ring.authority.certified) == {first.key.jkt}
    assert ring.keyring.renewals == ring.counted("ok") == 2


async def test_an_ak_certificate_near_its_end_is_renewed_by_a_new_attestation(ring: Ring) -> None:
    ring.start()
    await ring.naps.next()
    await ring.naps.after()  # after 40 minutes an AK certificate of 10 has ended
    assert len(ring.authority.admitted) == 2


@pytest.mark.parametrize(("left", "admissions"), [(119, 2), (121, 1)])
async def test_an_ak_certificate_with_two_minutes_left_is_used_again(ring: Ring, left: int, admissions: int) -> None:
    ring.authority.ak_life = timedelta(seconds=2400 + left)
    ring.start()
    await ring.naps.next()
    await ring.naps.after()
    assert (len(ring.authority.admitted), len(ring.authority.certified)) == (admissions, 2)


@pytest.mark.parametrize("code", ["attest.device_pending", "attest.token_invalid", "attest.pod_gone", "rate.limited"])
async def test_a_refusal_is_not_asked_again_within_a_minute(ring: Ring, code: str) -> None:
    ring.authority.problems = [Denied(code, "as it is")]
    ring.start()
    assert await ring.naps.next() == pytest.approx(66)
    with pytest.raises(Unavailable) as caught:
        ring.keyring.current()
    assert (caught.value.code, caught.value.detail) == (code, "as it is")
    assert ring.counted(code) == 1
    assert await ring.naps.after() == pytest.approx(2400)
    assert ring.keyring.current().instance == INSTANCE


async def test_a_refusal_of_the_ca_is_not_asked_again_within_a_minute_and_then_from_the_start(ring: Ring) -> None:
    ring.authority.refusals = [Denied("attest.instance_inactive")]
    ring.start()
    assert await ring.naps.next() == pytest.approx(66)
    await ring.naps.after()
    assert len(ring.authority.admitted) == 2


async def test_a_ca_that_does_not_answer_is_asked_again_with_the_same_admission(ring: Ring) -> None:
    ring.authority.refusals = [Unavailable("attest.unavailable")]
    ring.start()
    assert await ring.naps.next() == 1
    await ring.naps.after()
    assert len(ring.authority.admitted) == 1


async def test_no_answer_is_tried_again_after_one_second_and_ever_longer_up_to_a_minute(ring: Ring) -> None:
    ring.authority.problems = [Unavailable("attest.unavailable")] * 9
    ring.start()
    waits = [await ring.naps.next()] + [await ring.naps.after() for _ in range(8)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(("dice", "first"), [(0.0, 0.5), (1.0, 1.5)])
async def test_that_wait_has_jitter(ring: Ring, dice: float, first: float) -> None:
    ring.dice[0] = dice
    ring.authority.problems = [Unavailable("attest.unavailable")]
    ring.start()
    assert await ring.naps.next() == first


async def test_after_a_success_the_wait_begins_small_again(ring: Ring) -> None:
    gone = Unavailable("attest.unavailable")
    ring.authority.problems = [gone, gone, gone, None, gone]
    ring.start()
    waits = [await ring.naps.next()] + [await ring.naps.after() for _ in range(4)]
    assert waits == [1, 2, 4, 2400, 1]


async def test_an_error_of_our_own_is_no_reason_to_stop(ring: Ring) -> None:
    ring.authority.problems = [TypeError("a bug")]  # type: ignore[list-item] - the point of this test
    ring.start()
    assert await ring.naps.next() == 1
    assert ring.keyring.problem is not None
    assert ring.keyring.problem.code == "attest.failed"
    await ring.naps.after()
    assert ring.keyring.problem is None


async def test_a_renewal_that_fails_leaves_the_identity_in_use_until_it_ends(ring: Ring) -> None:
    ring.authority.problems = [None, *[Denied("attest.device_denied")] * 30]
    ring.start()
    await ring.naps.next()
    await ring.naps.after()
    assert ring.keyring.current().instance == INSTANCE
    assert ring.keyring.problem.code == "attest.device_denied"
    for _ in range(20):
        await ring.naps.after()
    with pytest.raises(Unavailable) as caught:
        ring.keyring.current()
    assert caught.value.code == "attest.device_denied"


async def test_e4_an_authority_that_is_away_for_less_than_the_rest_of_a_life_stops_no_call(ring: Ring) -> None:
    """Twenty attempts are about 15 of the 20 minutes that are left at two thirds of an hour."""
    ring.authority.problems = [None, *[Unavailable("attest.unavailable")] * 20]
    ring.start()
    await ring.naps.next()
    for _ in range(21):
        assert ring.keyring.current().instance == INSTANCE
        await ring.naps.after()

    assert ring.keyring.problem is None
    assert ring.keyring.renewals == 2


async def test_e4_an_authority_that_is_away_for_longer_ends_the_identity_and_says_so(ring: Ring) -> None:
    ring.authority.problems = [None, *[Unavailable("attest.unavailable")] * 40]
    ring.start()
    await ring.naps.next()
    end = ring.keyring.current().not_after
    while ring.clock.now() < end:
        await ring.naps.after()

    with pytest.raises(Unavailable) as caught:
        ring.keyring.current()

    assert caught.value.code == "attest.unavailable"
    while ring.authority.problems:
        await ring.naps.after()
    await ring.naps.after()
    assert ring.keyring.current().instance == INSTANCE


@pytest.mark.parametrize("life", [timedelta(seconds=4), timedelta(seconds=1)])
async def test_a_certificate_that_is_not_valid_now_is_not_used_and_not_asked_for_in_a_hurry(
    ring: Ring, life: timedelta
) -> None:
    ring.authority.life = life
    ring.start()
    assert await ring.naps.next() == 1
    assert await ring.naps.after() == 2
    with pytest.raises(Unavailable):
        ring.keyring.current()


async def test_a_certificate_of_seconds_is_not_renewed_more_often_than_every_five(ring: Ring) -> None:
    ring.authority.life = timedelta(seconds=6)
    ring.start()
    assert await ring.naps.next() == 5


async def test_trust_files_are_read_anew_for_each_renewal(ring: Ring) -> None:
    ring.start()
    await ring.naps.next()
    write_trust(ring.trust_dir, authority="https://moved.example.com")
    await ring.naps.after()
    urls = [one.authority_url for one in ring.authority.trusts]
    assert urls == ["https://authority.example.com", "https://moved.example.com"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ca.crt", None),
        ("ca.crt", ""),
        ("authorityURL", "http://authority.example.com"),
        ("authorityURL", "https://"),
        ("authorityURL", "https://user@authority.example.com"),
        ("webhookURL", "https://countersign.example.com?x"),
        ("webhookURL", "https://countersign.example.com:x"),
    ],
)
async def test_trust_files_that_say_nothing_good_are_waited_for(ring: Ring, name: str, text: str | None) -> None:
    good = (ring.trust_dir / name).read_text()
    (ring.trust_dir / name).unlink()
    if text is not None:
        (ring.trust_dir / name).write_text(text)
    ring.start()
    assert await ring.naps.next() == 1
    assert ring.authority.admitted == []
    (ring.trust_dir / name).write_text(good)
    assert await ring.naps.after() == pytest.approx(2400)


async def test_a_stale_attestation_is_made_anew_at_once_with_the_same_key(ring: Ring) -> None:
    ring.start()
    await ring.naps.next()
    key = ring.keyring.current().key
    ring.clock.advance(31)
    await ring.keyring.reattest()
    assert ring.keyring.renewals == 2
    assert len(ring.authority.admitted) == 2
    assert ring.keyring.current().key is key


async def test_many_that_find_it_stale_make_one_attestation(ring: Ring) -> None:
    ring.start()
    await ring.naps.next()
    ring.clock.advance(31)
    await asyncio.gather(*(ring.keyring.reattest() for _ in range(20)))
    assert len(ring.authority.admitted) == 2


async def test_one_that_finds_it_stale_while_it_is_made_anew_waits_for_that_one(ring: Ring) -> None:
    ring.start()
    await ring.naps.next()
    ring.clock.advance(31)
    ring.authority.hold, ring.authority.held = asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(ring.keyring.reattest())
    await ring.authority.held.wait()
    second = asyncio.create_task(ring.keyring.reattest())
    await asyncio.sleep(0)
    ring.authority.hold.set()
    await asyncio.gather(first, second)
    for _ in range(20):
        await asyncio.sleep(0)  # whatever the loop would still do at once
    assert (len(ring.authority.admitted), len(ring.authority.certified)) == (2, 2)


async def test_a_young_attestation_is_not_made_anew(ring: Ring) -> None:
    ring.start()
    await ring.naps.next()
    ring.clock.advance(29)
    await ring.keyring.reattest()
    assert len(ring.authority.admitted) == 1


async def test_a_call_does_not_shorten_the_minute_after_a_refusal(ring: Ring) -> None:
    ring.authority.problems = [None, Denied("attest.device_pending")]
    ring.start()
    await ring.naps.next()
    ring.clock.advance(31)
    await ring.keyring.reattest()
    assert await ring.naps.next() == pytest.approx(66)
    ring.clock.advance(31)
    await ring.keyring.reattest()
    assert len(ring.authority.admitted) == 2


async def test_a_call_waits_for_no_attestation_while_nobody_answers(ring: Ring) -> None:
    ring.authority.ak_life = HOUR
    ring.start()
    await ring.naps.next()
    ring.authority.refusals = [Unavailable("attest.unavailable")]
    await ring.naps.after()
    async with asyncio.timeout(1):
        await ring.keyring.reattest()
    assert (len(ring.authority.admitted), len(ring.authority.certified)) == (1, 2)
