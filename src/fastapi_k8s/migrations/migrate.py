"""Upgrade the schema to the revision of this release. Any number of processes may do so at once."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import TypeAlias

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection as SqlConnection
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from ..connection_pool import DRIVER_ERRORS
from ..database import connect_arguments
from ..settings import Settings
from . import newest_revision

logger = logging.getLogger(__name__)
DriverConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

CONNECT_TIMEOUT_SECONDS = 10.0
"""The time limit of one attempt to connect and to take the lock."""

MINIMUM_TIMEOUT_SECONDS = 1.0
"""The time limit of the last attempt, and of the only one if there is no time to wait."""

RETRY_SECONDS = 1.0
"""The pause between two attempts."""

PERMANENT_ERRORS = (
    ssl.SSLCertVerificationError,
    asyncpg.InvalidPasswordError,
    asyncpg.SyntaxOrAccessError,  # for example an unknown parameter in the URL
    asyncpg.InvalidParameterValueError,
    asyncpg.InterfaceError,
)
"""Errors that waiting does not fix."""

# A transaction-level lock: a session-level lock does not work through a pooler in transaction mode.
# The transaction stays open without a statement for as long as the migrations take. It must not
# hold a snapshot meanwhile, and no process may wait for the lock in a statement, which has one:
# CREATE INDEX CONCURRENTLY waits until all older snapshots are gone, so it would never end.
LOCK = """
BEGIN;
SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL transaction_timeout = 0;
SET LOCAL lock_timeout = '10ms';
SELECT pg_advisory_xact_lock(hashtextextended('migrations', 0));
"""

# While ALTER TABLE waits for a lock on a table, all later queries of the table wait behind it. This
# has to be less than the time that a request waits for a connection of the pool.
SET_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '500ms'"

LOCK_SQLSTATES = ("40P01", "55P03")
"""deadlock_detected and lock_not_available"""


class MigrationError(Exception):
    """The schema cannot be upgraded now. The message is for the person who reads the log."""


async def migrate(settings: Settings, wait_seconds: float) -> None:
    """Upgrade the schema, each revision in a transaction.

    Waits at most `wait_seconds` until it has a connection and the lock of all migrations, and again
    for the locks on tables that a revision needs. Then raises MigrationError.
    """

    async def connect() -> DriverConnection:
        return await asyncpg.connect(**connect_arguments(settings), timeout=CONNECT_TIMEOUT_SECONDS)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    event.listen(engine.sync_engine, "begin", _set_lock_timeout)
    async with _hold_lock(settings, wait_seconds), engine.connect() as connection:
        await _upgrade(connection, wait_seconds)


@asynccontextmanager
async def _hold_lock(settings: Settings, wait_seconds: float) -> AsyncIterator[None]:
    """Hold the lock of all migrations, in a transaction of a separate connection.

    Alembic cannot hold it in its connection, because `autocommit_block()` ends the transaction.
    """
    deadline = monotonic() + wait_seconds
    while True:
        try:
            async with asyncio.timeout(_attempt_seconds(deadline)):
                connection = await _try_lock(settings)
            if connection is not None:
                break
            reason = "another process is migrating"
        except PERMANENT_ERRORS as error:
            raise MigrationError(f"cannot use the database: {error!r}") from error
        except DRIVER_ERRORS as error:
            reason = f"cannot use the database: {error!r}"
        if monotonic() >= deadline:
            raise MigrationError(reason)
        logger.info("waiting: %s", reason)
        await asyncio.sleep(RETRY_SECONDS)
    try:
        yield
    finally:
        with suppress(*DRIVER_ERRORS):
            await connection.close(timeout=MINIMUM_TIMEOUT_SECONDS)


def _attempt_seconds(deadline: float) -> float:
    """The time limit of the next attempt."""
    remaining_seconds = deadline - monotonic()
    return max(MINIMUM_TIMEOUT_SECONDS, min(CONNECT_TIMEOUT_SECONDS, remaining_seconds))


async def _try_lock(settings: Settings) -> "DriverConnection | None":
    """A connection with a transaction that holds the lock. None if another process holds it."""
    connection: DriverConnection = await asyncpg.connect(**connect_arguments(settings))
    try:
        # Not fetchval(), whose portal would keep its snapshot until the end of the transaction.
        await connection.execute(LOCK)
    except asyncpg.LockNotAvailableError:
        await connection.close()
        return None
    except BaseException:
        connection.terminate()
        raise
    return connection


def _set_lock_timeout(connection: SqlConnection) -> None:
    # Not in an `autocommit_block()`, which has no transaction. CREATE INDEX CONCURRENTLY has to
    # wait for other transactions, and no query waits behind it.
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql(SET_LOCK_TIMEOUT)


async def _upgrade(connection: AsyncConnection, wait_seconds: float) -> None:
    """Apply the missing revisions, one after the other."""
    old_revision = revision = await connection.run_sync(_read_revision)
    needed_revision = newest_revision()
    if revision >= needed_revision:
        logger.info("schema revision %s, needed %s: nothing to do", revision, needed_revision)
        return
    while revision < needed_revision:
        await _apply_next_revision(connection, wait_seconds)
        revision = await connection.run_sync(_read_revision)
    logger.info("schema upgraded from %s to %s", old_revision, revision)


def _read_revision(connection: SqlConnection) -> str:
    # In a transaction that ends here: Alembic would not commit one that is open.
    with connection.begin():
        return MigrationContext.configure(connection).get_current_revision() or "0000"


async def _apply_next_revision(connection: AsyncConnection, wait_seconds: float) -> None:
    """Apply a revision. Retries while another session holds a lock that the revision needs.

    Raises MigrationError after `wait_seconds`.
    """
    deadline = monotonic() + wait_seconds
    while True:
        try:
            await connection.run_sync(_run_alembic_upgrade)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in LOCK_SQLSTATES:
                raise
            reason = f"another session holds a lock that this statement needs: {error.statement}"
            if monotonic() >= deadline:
                raise MigrationError(reason) from error
            logger.info("waiting: %s", reason)
        else:
            return
        await asyncio.sleep(RETRY_SECONDS)


def _run_alembic_upgrade(connection: SqlConnection) -> None:
    command.upgrade(alembic_config(connection), "+1")


def alembic_config(connection: SqlConnection) -> Config:
    """Alembic's configuration, with the connection that env.py uses."""
    config = Config(attributes={"connection": connection})
    # Alembic's syntax for a folder in a package: `package:folder`.
    config.set_main_option("script_location", __package__.replace(".", ":"))
    return config
