"""Alembic's entry point. `migrate` hands it a connection whose transaction it holds itself."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
