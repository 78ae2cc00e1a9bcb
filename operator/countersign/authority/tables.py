"""The tables of the authority's store, and the frozen records that one row of each becomes.

Times are whole seconds since 1970 UTC. No status of RFC 8555 is a column: it is derived (``orders.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Index, LargeBinary, MetaData, String, Table, Text

__all__ = [
    "ACCOUNTS",
    "AK_CERTIFICATES",
    "CERTIFICATES",
    "METADATA",
    "NONCES",
    "ORDERS",
    "SECRETS",
    "AccountRecord",
    "AkRecord",
    "CertificateRecord",
    "InstanceKey",
    "OrderRecord",
    "SecretRecord",
]

METADATA: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
    }
)


@dataclass(frozen=True)
class InstanceKey:
    """Which AgentInstance: a name alone may be given again, so the uid travels with it."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True)
class AccountRecord:
    """An ACME account; ``jwk`` holds the required members only."""

    id: str
    jkt: str
    jwk: dict[str, str]
    created: int


@dataclass(frozen=True)
class OrderRecord:
    """An order with its one authorization and its one challenge: the three share the id.

    ``validated``, ``spki`` and ``ak_serial`` are what a passed challenge leaves; ``error`` is the problem of a failed one.
    """

    id: str
    account: str
    issuer: str
    identifier: str
    namespace: str
    instance: str
    instance_uid: str
    token: str
    created: int
    expires: int
    validated: int | None = None
    spki: bytes | None = None
    ak_serial: str | None = None
    error: dict[str, Any] | None = None

    @property
    def key(self) -> InstanceKey:
        """The instance that is asked for."""
        return InstanceKey(self.namespace, self.instance, self.instance_uid)


@dataclass(frozen=True)
class SecretRecord:
    """A secret inside a credential that was handed out; only its SHA-256 is kept."""

    digest: str
    pod_uid: str
    expires: int
    used: bool
    ek_sha256: str
    pool: str
    manufacturer: str
    model: str
    firmware: str
    ak_name: bytes
    ak_public: bytes


@dataclass(frozen=True)
class AkRecord:
    """An AK certificate of ours, and the instance key that was proven with it (``/secret``)."""

    serial: str
    certificate: bytes
    issued: int
    expires: int
    namespace: str
    instance: str
    instance_uid: str
    pod_uid: str
    device_uid: str
    ak_name: bytes
    key_jkt: str
    key_spki: bytes
    revoked: int | None = None

    @property
    def key(self) -> InstanceKey:
        """The instance that it was made for."""
        return InstanceKey(self.namespace, self.instance, self.instance_uid)


@dataclass(frozen=True)
class CertificateRecord:
    """An identity certificate; nobody may fetch it before it is ``published``."""

    id: str
    order_id: str
    account: str
    issuer: str
    serial: str
    jkt: str
    chain: str
    namespace: str
    instance: str
    instance_uid: str
    not_before: int
    not_after: int
    published: int | None = None
    revoked: int | None = None


NONCES: Final = Table(
    "nonces",
    METADATA,
    Column("value", String(64), primary_key=True),
    Column("expires", BigInteger, nullable=False, index=True),
)
ACCOUNTS: Final = Table(
    "accounts",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("jkt", String(64), nullable=False, unique=True),
    Column("jwk", JSON, nullable=False),
    Column("created", BigInteger, nullable=False, index=True),
)
ORDERS: Final = Table(
    "orders",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("account", ForeignKey("accounts.id"), nullable=False, index=True),
    Column("issuer", String(253), nullable=False),
    Column("identifier", String(512), nullable=False),
    Column("namespace", String(63), nullable=False),
    Column("instance", String(63), nullable=False),
    Column("instance_uid", String(64), nullable=False),
    Column("token", String(64), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False, index=True),
    Column("validated", BigInteger),
    Column("spki", LargeBinary),
    Column("ak_serial", String(64)),
    Column("error", JSON(none_as_null=True)),
)
SECRETS: Final = Table(
    "secrets",
    METADATA,
    Column("digest", String(71), primary_key=True),
    Column("pod_uid", String(64), nullable=False),
    Column("expires", BigInteger, nullable=False, index=True),
    Column("used", Boolean(create_constraint=False), nullable=False),
    Column("ek_sha256", String(71), nullable=False),
    Column("pool", String(253), nullable=False),
    Column("manufacturer", String(256), nullable=False),
    Column("model", String(256), nullable=False),
    Column("firmware", String(256), nullable=False),
    Column("ak_name", LargeBinary, nullable=False),
    Column("ak_public", LargeBinary, nullable=False),
)
AK_CERTIFICATES: Final = Table(
    "ak_certificates",
    METADATA,
    Column("serial", String(64), primary_key=True),
    Column("certificate", LargeBinary, nullable=False),
    Column("issued", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("namespace", String(63), nullable=False),
    Column("instance", String(63), nullable=False),
    Column("instance_uid", String(64), nullable=False, index=True),
    Column("pod_uid", String(64), nullable=False),
    Column("device_uid", String(64), nullable=False),
    Column("ak_name", LargeBinary, nullable=False, index=True),
    Column("key_jkt", String(64), nullable=False, index=True),
    Column("key_spki", LargeBinary, nullable=False),
    Column("revoked", BigInteger),
)
CERTIFICATES: Final = Table(
    "certificates",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("order_id", ForeignKey("orders.id", ondelete="SET NULL"), unique=True),
    Column("account", String(32), nullable=False),
    Column("issuer", String(253), nullable=False),
    Column("serial", String(64), nullable=False, unique=True),
    Column("jkt", String(64), nullable=False),
    Column("chain", Text, nullable=False),
    Column("namespace", String(63), nullable=False),
    Column("instance", String(63), nullable=False),
    Column("instance_uid", String(64), nullable=False),
    Column("not_before", BigInteger, nullable=False),
    Column("not_after", BigInteger, nullable=False, index=True),
    Column("published", BigInteger),
    Column("revoked", BigInteger),
    Index("ix_certificates_instance", "instance_uid"),
)
