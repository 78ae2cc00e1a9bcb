"""Chains verified before: what is not done again, and everything that is still asked at each request."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from support.signed_vectors import Case, cases, with_session
from support.world import DOMAIN, SPIFFE_ID, Ca, SoftwareKey

from countersign.errors import CountersignError, Denied
from countersign.wire import (
    LEG_T_STEPS,
    ChainCache,
    InstanceView,
    LegT,
    MemoryReplayCache,
    Message,
    Nonces,
    chain_header,
    sign_request,
    verify_leg_t,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509

URL = "https://countersign.example.com/token"
NONCES = Nonces(b"k" * 32)
START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Issuer:
    """One agent under a CA, and a verifier that counts how often it is asked for what."""

    def __init__(self, chains: ChainCache | None) -> None:
        self.ca, self.key, self.chains = Ca(start=START), SoftwareKey(), chains
        self.roots: Sequence[x509.Certificate] = [self.ca.certificate]
        self.now = START
        self.leaf = self.ca.leaf(self.key.public_key)
        self.view: InstanceView | None = InstanceView(
            "billing", "refund-agent-1", "uid-1", SPIFFE_ID, "Active", device_approved=True, assurance="Hardware"
        )
        self.replay = MemoryReplayCache
        self.asked: list[str] = []

    @property
    def seconds(self) -> int:
        return int(self.now.timestamp())

    async def ask(self, *, steps: Any = LEG_T_STEPS, leaf: x509.Certificate | None = None) -> Any:
        headers = (("countersign-chain", chain_header([leaf or self.leaf])), ("content-type", "text/plain"))
        nonce = NONCES.make(self.key.jkt, self.seconds)
        message = await sign_request(
            Message("POST", "/token", headers, b"a=b"), self.key, audience=URL, nonce=nonce, created=self.seconds
        )
        leg = LegT(
            audience=URL,
            issuer="https://countersign.example.com",
            now=self.seconds,
            roots=self._roots,
            nonces=NONCES,
            replay=self.replay(epoch=self.seconds - 10),
            instance=self._instance,
            chains=self.chains,
        )
        return await verify_leg_t(message, leg, steps=steps)

    async def refusal(self, **more: Any) -> str:
        with pytest.raises(CountersignError) as refused:
            await self.ask(**more)
        return refused.value.code

    def _roots(self, domain: str) -> Sequence[x509.Certificate]:
        self.asked.append(domain)
        return self.roots if domain == DOMAIN else ()

    def _instance(self, jkt: str) -> InstanceView | None:
        self.asked.append(jkt)
        return self.view


async def test_a_chain_known_says_what_it_said_when_it_was_verified() -> None:
    issuer = Issuer(ChainCache())

    first, again = await issuer.ask(), await issuer.ask()

    assert replace(again, public_key=first.public_key) == first
    assert len(issuer.chains or ()) == 1


async def test_roots_and_holder_are_asked_each_time() -> None:
    issuer = Issuer(ChainCache())
    await issuer.ask()
    issuer.asked.clear()

    await issuer.ask()

    assert issuer.asked == [DOMAIN, issuer.key.jkt]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"state": "Revoked"}, "instance.revoked"),
        ({"state": "Ended"}, "instance.ended"),
        ({"device_approved": False}, "device.not_approved"),
        ({"spiffe_id": SPIFFE_ID + "-2"}, "instance.mismatch"),
        (None, "instance.unknown"),
    ],
)
async def test_what_the_cluster_says_of_the_holder_is_never_kept(changes: dict[str, Any] | None, code: str) -> None:
    issuer = Issuer(ChainCache())
    await issuer.ask()
    issuer.view = None if changes is None or issuer.view is None else replace(issuer.view, **changes)

    assert await issuer.refusal() == code


def known(issuer: Issuer, leaf: x509.Certificate | None = None) -> bool:
    """Whether the chain would not be verified again."""
    header = chain_header([leaf or issuer.leaf])
    found = issuer.chains and issuer.chains.find(header, lambda _domain: issuer.roots, now=issuer.seconds, skew=5)
    return found is not None


@pytest.mark.parametrize(("seconds", "good"), [(0, True), (59, True), (60, False), (-5, True), (-6, False)])
async def test_a_chain_is_known_for_a_minute(seconds: int, good: bool) -> None:  # noqa: FBT001
    issuer = Issuer(ChainCache())
    await issuer.ask()

    issuer.now += timedelta(seconds=seconds)

    assert known(issuer) is good
    await issuer.ask()
    assert known(issuer)


async def test_a_chain_known_ends_with_its_first_certificate() -> None:
    issuer = Issuer(ChainCache())
    last = issuer.leaf.not_valid_after_utc
    issuer.now = last - timedelta(seconds=1)
    await issuer.ask()
    assert known(issuer)

    issuer.now = last

    assert await issuer.refusal() in ("cert.expired", "cert.chain")  # the root of this CA ends with its leaves
    assert len(issuer.chains or ()) == 0


async def test_a_leaf_that_ends_before_its_root_is_expired() -> None:
    issuer = Issuer(ChainCache())
    issuer.ca.start -= HOUR
    leaf = issuer.ca.leaf(issuer.key.public_key)
    issuer.now = leaf.not_valid_after_utc - timedelta(seconds=1)
    await issuer.ask(leaf=leaf)
    issuer.now = leaf.not_valid_after_utc

    assert await issuer.refusal(leaf=leaf) == "cert.expired"


async def test_a_clock_set_back_finds_no_chain_from_the_future() -> None:
    issuer = Issuer(ChainCache())
    issuer.now = issuer.leaf.not_valid_before_utc
    await issuer.ask()
    issuer.now -= timedelta(seconds=6)

    assert await issuer.refusal() in ("cert.expired", "cert.chain")


async def test_a_chain_known_is_not_believed_under_another_bundle() -> None:
    issuer = Issuer(ChainCache())
    await issuer.ask()

    issuer.roots = [Ca("Other", start=START).certificate]
    assert await issuer.refusal() == "cert.chain"
    issuer.roots = ()
    assert await issuer.refusal() == "cert.chain"
    issuer.roots = [Ca("Other", start=START).certificate, issuer.ca.certificate]
    await issuer.ask()


async def test_a_bundle_that_changes_while_the_replay_store_is_asked_is_not_the_one_of_the_chain() -> None:
    issuer = Issuer(ChainCache())

    class Slow(MemoryReplayCache):
        async def insert(self, key: tuple[str, str], *, issued: int, expires: int, now: int) -> None:
            issuer.roots = [Ca("Other", start=START).certificate]
            await super().insert(key, issued=issued, expires=expires, now=now)

    issuer.replay = Slow
    await issuer.ask()

    assert await issuer.refusal() == "cert.chain"


async def test_no_more_chains_are_kept_than_there_is_place_for() -> None:
    issuer = Issuer(ChainCache(most=2))
    leaves = [issuer.ca.leaf(issuer.key.public_key) for _ in range(3)]
    for leaf in (leaves[0], leaves[1], leaves[0], leaves[2]):
        await issuer.ask(leaf=leaf)

    assert [known(issuer, leaf) for leaf in leaves] == [True, False, True]


@pytest.mark.parametrize("code", ["instance.revoked", "proof.signature"])
async def test_only_the_chain_of_a_request_that_passed_everything_is_kept(code: str) -> None:
    issuer = Issuer(ChainCache())
    if code == "instance.revoked" and issuer.view:
        issuer.view = replace(issuer.view, state="Revoked")
    else:
        issuer.key.private = SoftwareKey().private

    assert await issuer.refusal() == code
    assert len(issuer.chains or ()) == 0


async def test_a_sequence_of_checks_that_lacks_one_leaves_nothing_behind() -> None:
    issuer = Issuer(ChainCache())

    await issuer.ask(steps=[step for step in LEG_T_STEPS if "cert.usage" not in step.codes])

    assert len(issuer.chains or ()) == 0


VECTORS = [case for case in cases("T") if not with_session(case)]


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case.name)
async def test_a_vector_gets_the_same_answer_where_all_good_chains_are_known(case: Case) -> None:
    chains = ChainCache()
    for good in (one for one in VECTORS if one.code is None):
        await verify_leg_t(good.message(), (await good.leg_t())._replace(chains=chains))
    assert len(chains)
    leg = (await case.leg_t())._replace(chains=chains)

    if case.code is None:
        caller = await verify_leg_t(case.message(), leg)
        assert (caller.jkt, caller.spiffe_id) == (case.result["jkt"], case.result["spiffe"])
        return
    with pytest.raises(CountersignError) as refused:
        await verify_leg_t(case.message(), leg)
    plain = await case.leg_t()
    with pytest.raises(CountersignError) as wanted:
        await verify_leg_t(case.message(), plain)
    assert (refused.value.code, vars(refused.value)["jkt"]) == (case.code, vars(wanted.value)["jkt"])
    assert isinstance(refused.value, Denied) == isinstance(wanted.value, Denied)
