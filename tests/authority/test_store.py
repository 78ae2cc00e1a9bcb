"""The store: each race has one winner, and what was acknowledged is there after a death."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from countersign.authority.store import SqlOrderStore
from countersign.authority.tables import (
    METADATA,
    AccountRecord,
    AkRecord,
    CertificateRecord,
    OrderRecord,
    SecretRecord,
)
from countersign.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ACCOUNT = AccountRecord("a1", "jkt", {"kty": "EC"}, 100)
ORDER = OrderRecord("o1", "a1", "default", "c.ns.n", "ns", "n", "uid-1", "token", 100, 3700)
SECRET = SecretRecord("sha256:1", "pod-1", 160, False, "sha256:ek", "racks", "id:1", "m", "id:2", b"name", b"public")
AK = AkRecord("01", b"der", 100, 700, "ns", "n", "uid-1", "pod-1", "dev-1", b"name", "jkt-1", b"spki")
CERTIFICATE = CertificateRecord("c1", "o1", "a1", "default", "0a", "jkt-1", "PEM", "ns", "n", "uid-1", 100, 3700)


@pytest.fixture(params=["memory", "file"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlOrderStore]:
    where = "" if request.param == "memory" else f"/{tmp_path}/authority.db"
    opened = await SqlOrderStore.open(f"sqlite+aiosqlite://{where}")
    yield opened
    await opened.aclose()


async def test_the_migrations_make_exactly_the_tables(store: SqlOrderStore) -> None:
    async with store._engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), METADATA)
        )
    assert differences == []


async def test_a_nonce_is_taken_once(store: SqlOrderStore) -> None:
    await store.add_nonce("n", 200)
    results = await asyncio.gather(*(store.take_nonce("n", 100) for _ in range(8)))
    assert sorted(results) == [False] * 7 + [True]


async def test_an_expired_nonce_is_not_taken(store: SqlOrderStore) -> None:
    await store.add_nonce("n", 200)
    assert not await store.take_nonce("n", 200)


async def test_a_key_has_one_account(store: SqlOrderStore) -> None:
    await store.add_account(ACCOUNT)
    assert await store.add_account(replace(ACCOUNT, id="a2")) == ACCOUNT
    assert await store.account_by_key("jkt") == ACCOUNT
    assert await store.account("a2") is None


async def test_a_challenge_is_decided_once(store: SqlOrderStore) -> None:
    await store.add_account(ACCOUNT)
    await store.add_order(ORDER)
    failed = await store.decide_challenge("o1", {"error": {"type": "x"}})
    late = await store.decide_challenge("o1", {"validated": 101, "spki": b"k", "ak_serial": "01"})
    assert failed == late == replace(ORDER, error={"type": "x"})


async def test_a_secret_is_used_once(store: SqlOrderStore) -> None:
    await store.add_secret(SECRET)
    results = await asyncio.gather(*(store.use_secret("sha256:1") for _ in range(8)))
    assert sorted(results) == [False] * 7 + [True]
    assert await store.secret("sha256:1") == replace(SECRET, used=True)


async def test_a_later_ak_certificate_revokes_the_earlier_ones_of_its_instance(store: SqlOrderStore) -> None:
    await store.add_ak_certificate(AK)
    await store.add_ak_certificate(replace(AK, serial="02", issued=150))
    await store.add_ak_certificate(replace(AK, serial="03", instance_uid="uid-2", issued=160))
    assert await store.ak_certificate("01") == replace(AK, revoked=150)
    assert [one.revoked for one in await store.ak_certificates_of(ak_name=b"name")] == [150, None, None]
    assert len(await store.ak_certificates_of(key_jkt="jkt-1")) == 3
    assert await store.ak_certificates_of(key_jkt="other") == []


async def test_an_order_has_one_certificate(store: SqlOrderStore) -> None:
    await store.add_account(ACCOUNT)
    await store.add_order(ORDER)
    await store.add_certificate(CERTIFICATE)
    assert await store.add_certificate(replace(CERTIFICATE, id="c2", serial="0b")) == CERTIFICATE
    await store.mark_certificate("c1", "published", 111)
    await store.mark_certificate("c1", "published", 222)
    assert (
        await store.certificate("c1") == await store.certificate_by_serial("0a") == replace(CERTIFICATE, published=111)
    )


async def test_pruning_forgets_what_no_answer_needs(store: SqlOrderStore) -> None:
    await store.add_account(ACCOUNT)
    await store.add_order(ORDER)
    await store.add_secret(SECRET)
    await store.add_nonce("n", 200)
    await store.add_ak_certificate(AK)
    await store.add_certificate(CERTIFICATE)
    await store.prune(300)
    assert await store.secret("sha256:1") is None
    assert await store.order("o1") == ORDER
    await store.prune(10**9)
    assert await store.order("o1") is None
    assert await store.account("a1") is None
    assert await store.certificate("c1") is None
    assert await store.ak_certificate("01") is None


async def test_what_was_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/authority.db"
    first = await SqlOrderStore.open(url)
    await first.add_secret(SECRET)
    await first.aclose()
    second = await SqlOrderStore.open(url)
    assert await second.secret("sha256:1") == SECRET
    await second.aclose()


async def test_a_store_that_does_not_answer_is_an_outage(store: SqlOrderStore) -> None:
    async with store._engine.begin() as connection:
        await connection.run_sync(METADATA.tables["nonces"].drop)
    with pytest.raises(Unavailable, match=r"attest\.unavailable"):
        await store.add_nonce("n", 1)
