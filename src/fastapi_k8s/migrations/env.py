"""Alembic's entry point. `migrate` passes a connection and holds its transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
