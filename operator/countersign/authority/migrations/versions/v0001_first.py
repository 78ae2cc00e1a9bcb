"""Accounts, nonces, orders, pending secrets, AK certificates and identity certificates."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("jkt", sa.String(length=64), nullable=False),
        sa.Column("jwk", sa.JSON(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("jkt", name=op.f("uq_accounts_jkt")),
    )
    op.create_index(op.f("ix_accounts_created"), "accounts", ["created"], unique=False)
    op.create_table(
        "ak_certificates",
        sa.Column("serial", sa.String(length=64), nullable=False),
        sa.Column("certificate", sa.LargeBinary(), nullable=False),
        sa.Column("issued", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("namespace", sa.String(length=63), nullable=False),
        sa.Column("instance", sa.String(length=63), nullable=False),
        sa.Column("instance_uid", sa.String(length=64), nullable=False),
        sa.Column("pod_uid", sa.String(length=64), nullable=False),
        sa.Column("device_uid", sa.String(length=64), nullable=False),
        sa.Column("ak_name", sa.LargeBinary(), nullable=False),
        sa.Column("key_jkt", sa.String(length=64), nullable=False),
        sa.Column("key_spki", sa.LargeBinary(), nullable=False),
        sa.Column("revoked", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_ak_certificates")),
    )
    op.create_index(op.f("ix_ak_certificates_ak_name"), "ak_certificates", ["ak_name"], unique=False)
    op.create_index(op.f("ix_ak_certificates_instance_uid"), "ak_certificates", ["instance_uid"], unique=False)
    op.create_index(op.f("ix_ak_certificates_key_jkt"), "ak_certificates", ["key_jkt"], unique=False)
    op.create_table(
        "nonces",
        sa.Column("value", sa.String(length=64), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("value", name=op.f("pk_nonces")),
    )
    op.create_index(op.f("ix_nonces_expires"), "nonces", ["expires"], unique=False)
    op.create_table(
        "secrets",
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("pod_uid", sa.String(length=64), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.Boolean(), nullable=False),
        sa.Column("ek_sha256", sa.String(length=71), nullable=False),
        sa.Column("pool", sa.String(length=253), nullable=False),
        sa.Column("manufacturer", sa.String(length=256), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("firmware", sa.String(length=256), nullable=False),
        sa.Column("ak_name", sa.LargeBinary(), nullable=False),
        sa.Column("ak_public", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_secrets")),
    )
    op.create_index(op.f("ix_secrets_expires"), "secrets", ["expires"], unique=False)
    op.create_table(
        "orders",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("account", sa.String(length=32), nullable=False),
        sa.Column("issuer", sa.String(length=253), nullable=False),
        sa.Column("identifier", sa.String(length=512), nullable=False),
        sa.Column("namespace", sa.String(length=63), nullable=False),
        sa.Column("instance", sa.String(length=63), nullable=False),
        sa.Column("instance_uid", sa.String(length=64), nullable=False),
        sa.Column("token", sa.String(length=64), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("validated", sa.BigInteger(), nullable=True),
        sa.Column("spki", sa.LargeBinary(), nullable=True),
        sa.Column("ak_serial", sa.String(length=64), nullable=True),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(["account"], ["accounts.id"], name=op.f("fk_orders_account")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
    )
    op.create_index(op.f("ix_orders_account"), "orders", ["account"], unique=False)
    op.create_index(op.f("ix_orders_expires"), "orders", ["expires"], unique=False)
    op.create_table(
        "certificates",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("order_id", sa.String(length=32), nullable=True),
        sa.Column("account", sa.String(length=32), nullable=False),
        sa.Column("issuer", sa.String(length=253), nullable=False),
        sa.Column("serial", sa.String(length=64), nullable=False),
        sa.Column("jkt", sa.String(length=64), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("namespace", sa.String(length=63), nullable=False),
        sa.Column("instance", sa.String(length=63), nullable=False),
        sa.Column("instance_uid", sa.String(length=64), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("published", sa.BigInteger(), nullable=True),
        sa.Column("revoked", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["order_id"], ["orders.id"], name=op.f("fk_certificates_order_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_certificates")),
        sa.UniqueConstraint("order_id", name=op.f("uq_certificates_order_id")),
        sa.UniqueConstraint("serial", name=op.f("uq_certificates_serial")),
    )
    op.create_index("ix_certificates_instance", "certificates", ["instance_uid"], unique=False)
    op.create_index(op.f("ix_certificates_not_after"), "certificates", ["not_after"], unique=False)


def downgrade() -> None:
    """Drop every table."""
    for table in ("certificates", "orders", "secrets", "nonces", "ak_certificates", "accounts"):
        op.drop_table(table)
