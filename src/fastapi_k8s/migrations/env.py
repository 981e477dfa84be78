"""Alembic's entry point. `migrate` passes a connection."""

from alembic import context

# A transaction for each revision. With one for all, `autocommit_block()` would commit the revisions
# before it, while Alembic's table still has the oldest number.
context.configure(
    connection=context.config.attributes["connection"], transaction_per_migration=True
)
with context.begin_transaction():
    context.run_migrations()
