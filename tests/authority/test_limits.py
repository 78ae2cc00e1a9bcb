"""Who asks too often is told when to come again, and keeps nobody else waiting (row E3 of docs/threats.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from support.attestation import NOW
from support.enrolment import NODE, UNLIMITED, URL, Account, Caller, Office, bare_pod

from countersign.attest import SoftwareDevice
from countersign.authority import checks
from countersign.authority.checks import ATTEST_STEPS
from countersign.authority.limits import Askers, _neighbour
from countersign.authority.settings import Limits
from countersign.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FEW = {**UNLIMITED, "address_burst": 3, "address_rate": 0.5}


@pytest.fixture
async def few(tmp_path: Path) -> AsyncIterator[Office]:
    async with Office.open(tmp_path, limits=FEW) as opened:
        yield opened


async def send(office: Office, method: str, path: str, address: str = "192.0.2.7") -> httpx.Response:
    transport = httpx.ASGITransport(office.app, raise_app_exceptions=False, client=(address, 4711))
    async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
        return await client.request(method, path, content=b"{}" if method == "POST" else None)


@pytest.mark.parametrize("path", ["/attest", "/secret"])
async def test_e3_an_address_that_asks_too_often_is_told_when_to_come_again(few: Office, path: str) -> None:
    codes = [(await send(few, "POST", path)).json()["code"] for _ in range(4)]
    assert codes[:3] == ["attest.request"] * 3
    refused = await send(few, "POST", path)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate.limited")
    assert refused.headers["retry-after"] == "2"
    assert (await send(few, "POST", path, "192.0.2.8")).json()["code"] == "attest.request"

    few.clock.advance(2)
    assert (await send(few, "POST", path)).json()["code"] == "attest.request"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "directory"),
        ("GET", "new-nonce"),
        ("POST", "new-account"),
        ("POST", "order/x"),
        ("POST", "certificate/x"),
    ],
)
async def test_e3_an_acme_client_is_told_as_rfc_8555_says(few: Office, method: str, path: str) -> None:
    answers = [await send(few, method, f"/acme/default/{path}") for _ in range(4)]
    assert 429 not in [one.status_code for one in answers[:3]]
    refused = answers[3]
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["type"] == "urn:ietf:params:acme:error:rateLimited"
    assert refused.json()["code"] == "rate.limited"
    assert (await send(few, method, f"/acme/default/{path}", "192.0.2.8")).status_code != 429


async def test_e3_what_is_too_often_costs_neither_a_nonce_nor_a_question(few: Office) -> None:
    for _ in range(3):
        await send(few, "POST", "/attest")
    few.cluster.calls.clear()
    assert "replay-nonce" not in (await send(few, "POST", "/acme/default/new-account")).headers
    assert few.cluster.calls == []


@pytest.mark.parametrize(
    ("address", "neighbour"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_e3_a_site_of_ipv6_is_one_neighbour(address: str, neighbour: str) -> None:
    assert _neighbour(address) == neighbour


def test_e3_a_flood_of_addresses_takes_bounded_memory() -> None:
    askers = Askers.of(Limits(), FakeClock(NOW))
    for number in range(100_500):
        askers.address(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(askers.addresses._buckets) == 100_000


async def test_e3_a_pod_that_asks_too_often_is_refused_and_another_is_not(tmp_path: Path) -> None:
    async with Office.open(tmp_path, limits={**UNLIMITED, "pod_burst": 3}) as office:
        one = await office.signer()
        await one.admitted()
        await one.challenged()
        refused = await one.attest()
        assert (refused.status_code, refused.json()["code"]) == (429, "rate.limited")
        assert refused.headers["retry-after"] == "2"
        office.schedule(bare_pod("another", "uid-another"), "token-of-another")
        other = await Caller.make(office, SoftwareDevice.make(), "token-of-another")
        assert (await other.attest()).json()["code"] != "rate.limited"
        office.clock.advance(4)
        await one.admitted()


async def test_e3_without_that_check_a_pod_asks_as_often_as_it_likes(tmp_path: Path) -> None:
    async with Office.open(tmp_path, limits={**UNLIMITED, "pod_burst": 3}) as office:
        steps = tuple(step for step in ATTEST_STEPS if step is not checks.pod_patient)
        office.use(attest_steps=steps)
        one = await office.signer()
        assert {(await one.attest()).status_code for _ in range(5)} == {200}


async def test_e3_a_node_whose_pods_ask_too_often_is_refused_and_another_is_not(tmp_path: Path) -> None:
    async with Office.open(tmp_path, limits={**UNLIMITED, "node_burst": 2}) as office:
        one = await office.signer()
        for name in ("b", "c"):
            office.schedule(bare_pod(name, f"uid-{name}"), f"token-{name}")
        office.schedule(bare_pod("d", "uid-d", "elsewhere"), "token-d")
        codes = {}
        for token in (one.token, "token-b", "token-c", "token-d"):
            caller = await Caller.make(office, one.device, token)
            codes[token] = (await caller.attest()).json().get("code")
        assert codes["token-c"] == "rate.limited"
        assert "rate.limited" not in [codes[one.token], codes["token-b"], codes["token-d"]]


async def test_e3_an_enrolment_is_far_below_every_limit(tmp_path: Path) -> None:
    async with Office.open(tmp_path, limits={}) as office:
        one = await office.signer()
        for _ in range(5):
            await one.certificate()
        assert await Account.make(one)
        assert NODE
