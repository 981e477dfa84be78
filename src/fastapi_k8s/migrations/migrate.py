"""Bring the schema to this release's revision, however many try it at once."""

import asyncio
import logging
from time import monotonic

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from ..database import UNAVAILABLE, dsn
from ..settings import Settings
from . import newest_revision

logger = logging.getLogger(__name__)

LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('migrations', 0))"
RETRY_AFTER = 0.5
"""Seconds between two tries to reach PostgreSQL."""


async def migrate(settings: Settings, wait: float) -> None:
    """Upgrade the schema in one transaction: wholly or not at all.

    Waits up to `wait` seconds for PostgreSQL, then raises what kept it from answering.
    """

    async def connect() -> "asyncpg.Connection[asyncpg.Record]":
        deadline = monotonic() + wait
        while True:
            try:
                return await asyncpg.connect(dsn(settings), timeout=10)
            except UNAVAILABLE:
                if monotonic() >= deadline:
                    raise
            await asyncio.sleep(RETRY_AFTER)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    async with engine.begin() as connection:
        # A transaction's lock, since a session's does not hold through a pooler.
        await connection.execute(text(LOCK))
        await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    # Behind the lock: whoever held it before has probably done the work.
    current = MigrationContext.configure(connection).get_current_revision() or "0000"
    needed = newest_revision()
    if current > needed:
        logger.info("schema is ahead and left alone", extra=_revisions(current, needed))
        return
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", __package__.replace(".", ":"))
    command.upgrade(config, "head")
    logger.info("schema is current", extra=_revisions(current, needed))


def _revisions(found: str, needed: str) -> dict[str, dict[str, str]]:
    return {"fields": {"found": found, "needed": needed}}
