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
WRONG_URL = (asyncpg.InvalidPasswordError, asyncpg.UndefinedObjectError, asyncpg.InterfaceError)
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('migrations', 0))"


async def migrate(settings: Settings, wait: float) -> None:
    """Upgrade the schema in one transaction. Raises what keeps PostgreSQL away for `wait` s."""
    # Connected first, since SQLAlchemy would wrap what asyncpg raises.
    found = asyncio.get_running_loop().create_future()
    found.set_result(await _connect(dsn(settings), monotonic() + wait))
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: found, poolclass=NullPool
    )
    async with engine.begin() as connection:
        # A transaction's lock, since a session's does not hold through a pooler.
        await connection.execute(text(LOCK))
        await connection.run_sync(_upgrade)


async def _connect(url: str, deadline: float) -> "asyncpg.Connection[asyncpg.Record]":
    while True:
        try:
            return await asyncpg.connect(url, timeout=10)
        except UNAVAILABLE as error:
            if monotonic() >= deadline or isinstance(error, WRONG_URL):
                raise
            logger.info("waiting for PostgreSQL (%s)", type(error).__name__)
        await asyncio.sleep(1)


def _upgrade(connection: Connection) -> None:
    # Behind the lock: whoever held it before has probably done the work.
    found = MigrationContext.configure(connection).get_current_revision() or "0000"
    needed = newest_revision()
    if found > needed:
        logger.info("schema %s is ahead of %s and left alone", found, needed)
        return
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", __package__.replace(".", ":"))
    command.upgrade(config, "head")
    logger.info("schema brought from %s to %s", found, needed)
