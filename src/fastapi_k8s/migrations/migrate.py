"""Upgrade the schema to the revision of this release. Any number of processes may do so at once."""

import asyncio
import logging
from time import monotonic
from typing import TypeAlias

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection as SqlConnection
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from ..database import UNAVAILABLE_ERRORS, asyncpg_dsn
from ..settings import Settings
from . import newest_revision

logger = logging.getLogger(__name__)
DriverConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

CONNECT_TIMEOUT = 10
"""Seconds for one attempt to connect."""

PERMANENT_ERRORS = (
    asyncpg.InvalidPasswordError,
    asyncpg.UndefinedObjectError,
    asyncpg.InterfaceError,
)
"""Errors that waiting does not fix."""

# A transaction-level lock: a session-level lock does not work through a pooler in transaction mode.
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('migrations', 0))"


async def migrate(settings: Settings, wait_seconds: float) -> None:
    """Upgrade the schema in one transaction.

    Starts no attempt to connect later than after `wait_seconds`, then raises the last error. The
    wait for the lock has no limit.
    """
    connection = await _connect(asyncpg_dsn(settings), monotonic() + wait_seconds)

    async def use_connection() -> DriverConnection:
        return connection

    # Connected above and not by SQLAlchemy, which would wrap the errors of asyncpg.
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=use_connection, poolclass=NullPool
    )
    async with engine.begin() as sql_connection:
        await sql_connection.execute(text(LOCK))
        await sql_connection.run_sync(_upgrade)


async def _connect(dsn: str, deadline: float) -> DriverConnection:
    """Connect, and retry every second until `deadline` on the monotonic clock."""
    while True:
        try:
            return await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT)
        except PERMANENT_ERRORS:
            raise
        except UNAVAILABLE_ERRORS as error:
            if monotonic() >= deadline:
                raise
            logger.info("waiting for PostgreSQL (%s)", type(error).__name__)
        await asyncio.sleep(1)


def _upgrade(connection: SqlConnection) -> None:
    # Read under the lock: the process that held it before has probably upgraded the schema.
    current_revision = MigrationContext.configure(connection).get_current_revision() or "0000"
    needed_revision = newest_revision()
    if current_revision >= needed_revision:
        logger.info(
            "schema revision %s, needed %s: nothing to do", current_revision, needed_revision
        )
        return
    config = Config(attributes={"connection": connection})
    # Alembic's syntax for a folder in a package: `package:folder`.
    config.set_main_option("script_location", __package__.replace(".", ":"))
    command.upgrade(config, "head")
    logger.info("schema upgraded from %s to %s", current_revision, needed_revision)
