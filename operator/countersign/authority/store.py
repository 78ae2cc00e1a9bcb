"""What the authority must remember across its own death: the port ``OrderStore`` and its one adapter, SQLAlchemy.

Every method is one transaction, durable when it returns. Races are settled by one conditional statement each, so that two
requests, or two replicas, cannot both win: a nonce and a secret are taken once, a challenge is decided once, an order gets
one certificate.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from sqlalchemy import delete, event, insert, make_url, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from countersign.authority.migrations import upgrade
from countersign.authority.tables import (
    ACCOUNTS,
    AK_CERTIFICATES,
    CERTIFICATES,
    NONCES,
    ORDERS,
    SECRETS,
    AccountRecord,
    AkRecord,
    CertificateRecord,
    OrderRecord,
    SecretRecord,
)
from countersign.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.pool import ConnectionPoolEntry

__all__ = ["OrderStore", "SqlOrderStore"]

_R = TypeVar("_R")

_KEPT_AFTER: Final = 7 * 86400
"""Seconds that a finished order or an expired certificate stays, for people who ask what happened."""


class OrderStore(Protocol):
    """What is kept; every method raises ``Unavailable(attest.unavailable)`` when the store does not answer."""

    async def add_nonce(self, value: str, expires: int) -> None:
        """Remember a nonce that is handed out."""

    async def take_nonce(self, value: str, now: int) -> bool:
        """Take a nonce away; whether it was there and had not expired."""

    async def add_account(self, account: AccountRecord) -> AccountRecord:
        """Keep a new account, or return the one that has this key already."""

    async def account(self, account_id: str) -> AccountRecord | None:
        """Return an account."""

    async def account_by_key(self, jkt: str) -> AccountRecord | None:
        """Return the account of a key."""

    async def add_order(self, order: OrderRecord) -> None:
        """Keep a new order."""

    async def order(self, order_id: str) -> OrderRecord | None:
        """Return an order."""

    async def decide_challenge(self, order_id: str, verdict: dict[str, Any]) -> OrderRecord:
        """Write the verdict (``validated``, ``spki``, ``ak_serial``, or ``error``) unless there is one; return the order."""

    async def add_secret(self, secret: SecretRecord) -> None:
        """Keep a pending secret."""

    async def secret(self, digest: str) -> SecretRecord | None:
        """Return a pending secret by its digest."""

    async def use_secret(self, digest: str) -> bool:
        """Mark a secret used; whether this was the first time."""

    async def add_ak_certificate(self, record: AkRecord) -> None:
        """Keep an AK certificate, and revoke every earlier one of the same instance."""

    async def ak_certificate(self, serial: str) -> AkRecord | None:
        """Return an AK certificate by its serial number in lower-case hex."""

    async def ak_certificates_of(self, *, ak_name: bytes | None = None, key_jkt: str | None = None) -> list[AkRecord]:
        """Return the AK certificates with this AK Name, or with this instance key."""

    async def add_certificate(self, record: CertificateRecord) -> CertificateRecord:
        """Keep an issued certificate, not yet published; or return the one that its order has already."""

    async def certificate(self, certificate_id: str) -> CertificateRecord | None:
        """Return a certificate."""

    async def certificate_of_order(self, order_id: str) -> CertificateRecord | None:
        """Return the certificate of an order."""

    async def certificate_by_serial(self, serial: str) -> CertificateRecord | None:
        """Return a certificate by its serial number in lower-case hex."""

    async def mark_certificate(self, certificate_id: str, column: str, now: int) -> None:
        """Set ``published`` or ``revoked`` unless it is set."""

    async def prune(self, now: int) -> None:
        """Forget what no answer needs any more."""


class SqlOrderStore:
    """The store in any database that SQLAlchemy's asyncio knows; SQLite by default, in WAL mode, every commit synced."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Use :meth:`open`."""
        self._engine = engine

    @classmethod
    async def open(cls, database_url: str) -> SqlOrderStore:
        """Connect and bring the schema up to date; ``sqlite+aiosqlite://`` alone is the in-memory twin for tests.

        :raises Unavailable: ``attest.unavailable`` if there is no such database, or it cannot be written.
        """
        _require_directory(database_url)
        try:
            engine = create_async_engine(database_url)
        except (SQLAlchemyError, ImportError) as error:
            raise Unavailable("attest.unavailable", "database_url names no database that is installed here") from error
        if engine.dialect.name == "sqlite":
            event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(upgrade)
        except BaseException as error:
            await engine.dispose()
            if isinstance(error, SQLAlchemyError):
                reason = type(error).__name__
                raise Unavailable("attest.unavailable", f"the database cannot be opened ({reason})") from error
            raise
        return cls(engine)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    async def add_nonce(self, value: str, expires: int) -> None:
        """Remember a nonce that is handed out."""
        async with self._begin() as connection:
            await connection.execute(insert(NONCES).values(value=value, expires=expires))

    async def take_nonce(self, value: str, now: int) -> bool:
        """Take a nonce away; whether it was there and had not expired."""
        async with self._begin() as connection:
            statement = delete(NONCES).where(NONCES.c.value == value, NONCES.c.expires > now)
            return (await connection.execute(statement)).rowcount == 1

    async def add_account(self, account: AccountRecord) -> AccountRecord:
        """Keep a new account, or return the one that has this key already."""
        try:
            async with self._begin() as connection:
                await connection.execute(insert(ACCOUNTS).values(vars(account)))
        except IntegrityError:
            kept = await self.account_by_key(account.jkt)
            if kept is None:
                raise Unavailable("attest.unavailable", "the account could not be kept") from None
            return kept
        return account

    async def account(self, account_id: str) -> AccountRecord | None:
        """Return an account."""
        return await self._one(AccountRecord, select(ACCOUNTS).where(ACCOUNTS.c.id == account_id))

    async def account_by_key(self, jkt: str) -> AccountRecord | None:
        """Return the account of a key."""
        return await self._one(AccountRecord, select(ACCOUNTS).where(ACCOUNTS.c.jkt == jkt))

    async def add_order(self, order: OrderRecord) -> None:
        """Keep a new order."""
        async with self._begin() as connection:
            await connection.execute(insert(ORDERS).values(vars(order)))

    async def order(self, order_id: str) -> OrderRecord | None:
        """Return an order."""
        return await self._one(OrderRecord, select(ORDERS).where(ORDERS.c.id == order_id))

    async def decide_challenge(self, order_id: str, verdict: dict[str, Any]) -> OrderRecord:
        """Write the verdict unless there is one; return the order."""
        async with self._begin() as connection:
            undecided = (ORDERS.c.id == order_id) & ORDERS.c.validated.is_(None) & ORDERS.c.error.is_(None)
            await connection.execute(update(ORDERS).where(undecided).values(verdict))
        order = await self.order(order_id)
        assert order is not None, "only an order that was read is decided"
        return order

    async def add_secret(self, secret: SecretRecord) -> None:
        """Keep a pending secret."""
        async with self._begin() as connection:
            await connection.execute(insert(SECRETS).values(vars(secret)))

    async def secret(self, digest: str) -> SecretRecord | None:
        """Return a pending secret by its digest."""
        return await self._one(SecretRecord, select(SECRETS).where(SECRETS.c.digest == digest))

    async def use_secret(self, digest: str) -> bool:
        """Mark a secret used; whether this was the first time."""
        async with self._begin() as connection:
            statement = update(SECRETS).where(SECRETS.c.digest == digest, SECRETS.c.used.is_(False)).values(used=True)
            return (await connection.execute(statement)).rowcount == 1

    async def add_ak_certificate(self, record: AkRecord) -> None:
        """Keep an AK certificate, and revoke every earlier one of the same instance."""
        async with self._begin() as connection:
            earlier = (AK_CERTIFICATES.c.instance_uid == record.instance_uid) & AK_CERTIFICATES.c.revoked.is_(None)
            await connection.execute(update(AK_CERTIFICATES).where(earlier).values(revoked=record.issued))
            await connection.execute(insert(AK_CERTIFICATES).values(vars(record)))

    async def ak_certificate(self, serial: str) -> AkRecord | None:
        """Return an AK certificate by its serial number in lower-case hex."""
        return await self._one(AkRecord, select(AK_CERTIFICATES).where(AK_CERTIFICATES.c.serial == serial))

    async def ak_certificates_of(self, *, ak_name: bytes | None = None, key_jkt: str | None = None) -> list[AkRecord]:
        """Return the AK certificates with this AK Name, or with this instance key."""
        column, value = (
            (AK_CERTIFICATES.c.ak_name, ak_name) if ak_name is not None else (AK_CERTIFICATES.c.key_jkt, key_jkt)
        )
        async with self._begin() as connection:
            rows = await connection.execute(select(AK_CERTIFICATES).where(column == value))
            return [AkRecord(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's documented name

    async def add_certificate(self, record: CertificateRecord) -> CertificateRecord:
        """Keep an issued certificate, not yet published; or return the one that its order has already."""
        try:
            async with self._begin() as connection:
                await connection.execute(insert(CERTIFICATES).values(vars(record)))
        except IntegrityError:
            kept = await self.certificate_of_order(record.order_id)
            if kept is None:
                raise Unavailable("attest.unavailable", "the certificate could not be kept") from None
            return kept
        return record

    async def certificate(self, certificate_id: str) -> CertificateRecord | None:
        """Return a certificate."""
        return await self._one(CertificateRecord, select(CERTIFICATES).where(CERTIFICATES.c.id == certificate_id))

    async def certificate_of_order(self, order_id: str) -> CertificateRecord | None:
        """Return the certificate of an order."""
        return await self._one(CertificateRecord, select(CERTIFICATES).where(CERTIFICATES.c.order_id == order_id))

    async def certificate_by_serial(self, serial: str) -> CertificateRecord | None:
        """Return a certificate by its serial number in lower-case hex."""
        return await self._one(CertificateRecord, select(CERTIFICATES).where(CERTIFICATES.c.serial == serial))

    async def mark_certificate(self, certificate_id: str, column: str, now: int) -> None:
        """Set ``published`` or ``revoked`` unless it is set."""
        async with self._begin() as connection:
            unset = (CERTIFICATES.c.id == certificate_id) & CERTIFICATES.c[column].is_(None)
            await connection.execute(update(CERTIFICATES).where(unset).values({column: now}))

    async def prune(self, now: int) -> None:
        """Forget what no answer needs any more.

        An AK certificate is renewed before each identity certificate, so an instance whose last one is a week old has
        nothing left that works, and its AK and key may be used again.
        """
        old = now - _KEPT_AFTER
        async with self._begin() as connection:
            await connection.execute(delete(NONCES).where(NONCES.c.expires <= now))
            await connection.execute(delete(SECRETS).where(SECRETS.c.expires <= now))
            await connection.execute(delete(CERTIFICATES).where(CERTIFICATES.c.not_after <= old))
            await connection.execute(delete(ORDERS).where(ORDERS.c.expires <= old))
            await connection.execute(delete(AK_CERTIFICATES).where(AK_CERTIFICATES.c.expires <= old))
            used = select(ORDERS.c.account)
            await connection.execute(delete(ACCOUNTS).where(ACCOUNTS.c.created <= old, ACCOUNTS.c.id.not_in(used)))

    async def _one(self, record: type[_R], statement: Any) -> _R | None:
        async with self._begin() as connection:
            row = (await connection.execute(statement)).first()
        return None if row is None else record(**row._mapping)  # noqa: SLF001 - SQLAlchemy's documented name

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[AsyncConnection]:
        """One transaction; a unique key that is taken is the caller's question, every other failure is an outage."""
        try:
            async with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            raise Unavailable("attest.unavailable", "the store does not answer") from error


def _require_directory(database_url: str) -> None:
    """Look for a SQLite file's directory first: the driver's own thread would print a traceback after we have ended."""
    try:
        url = make_url(database_url)
    except SQLAlchemyError:
        return
    if url.get_backend_name() == "sqlite" and url.database:
        directory = Path(url.database).parent
        if not (directory.is_dir() and os.access(directory, os.W_OK)):
            raise Unavailable(
                "attest.unavailable", f"the database cannot be opened: no directory {directory} to write to"
            )


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
