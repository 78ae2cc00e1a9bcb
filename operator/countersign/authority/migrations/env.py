"""What Alembic runs: the caller's own connection, never an address of its own."""

from alembic import context

from countersign.authority.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
