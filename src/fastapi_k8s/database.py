"""PostgreSQL: connections, transactions, and which errors are outages."""

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import asyncpg
from asyncpg.transaction import Transaction

from .connection_pool import DRIVER_ERRORS, Connection, ConnectionPool
from .database_url import parse_database_url
from .error_log import ErrorLog
from .errors import ProblemError
from .settings import Settings

logger = logging.getLogger(__name__)
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

OUTAGE_SQLSTATE_CLASSES = ("08", "53", "57")
"""The connection failed; disk, memory or connections are exhausted; the server shuts down, starts
or has cancelled the statement. See https://www.postgresql.org/docs/current/errcodes-appendix.html.
"""

SCHEMA_CHANGED_ERRORS = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)
"""A migration has outdated a prepared statement, or a composite type in its result.

After OutdatedSchemaCacheError the statement has been executed, and committed if there is no
transaction.
"""

EXPIRING_ERRORS = (*SCHEMA_CHANGED_ERRORS, asyncpg.ReadOnlySQLTransactionError)
"""Errors after which all connections are replaced: after a failover they lead to the old primary.
"""


class DatabaseUnavailableError(ProblemError):
    """PostgreSQL cannot be used now: a 503 that the client may retry after a second."""

    def __init__(self) -> None:
        super().__init__(503, "The database is unavailable.", {"Retry-After": "1"})


class SchemaChangedError(DatabaseUnavailableError):
    """A migration has changed the type of a column. The transaction would now succeed."""


def repeat_after_schema_change(
    function: Callable[Parameters, Awaitable[Result]],
) -> Callable[Parameters, Awaitable[Result]]:
    """Decorate an async function that has no effect outside of one transaction.

    It is called again if a migration has outdated a prepared statement. Without the decorator the
    client gets the 503, and has to repeat the request.
    """

    @wraps(function)
    async def call_at_most_twice(*args: Parameters.args, **options: Parameters.kwargs) -> Result:
        try:
            return await function(*args, **options)
        except SchemaChangedError:
            return await function(*args, **options)

    return call_at_most_twice


@dataclass(frozen=True)
class Database:
    """Connections and transactions, with a 503 for every failure of PostgreSQL."""

    pool: ConnectionPool
    _error_log: ErrorLog = field(default_factory=lambda: ErrorLog(logger, "database unavailable"))

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        """A connection, for `async with`. Each statement is its own transaction.

        Raises `DatabaseUnavailableError` if none is free in time, or if PostgreSQL fails. All other
        errors of the block are errors in the code, and are raised unchanged.
        """
        return ConnectionContext(self)

    @asynccontextmanager
    async def transaction(
        self, after_commit: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncIterator[Connection]:
        """A connection in a transaction: committed at the end, rolled back after an error.

        `after_commit` is called after the commit, also if it fails or if the request has ended
        meanwhile, because PostgreSQL may have committed. Raises errors like `connection`.
        """
        connection = await self.acquire()
        transaction = connection.transaction()
        try:
            await transaction.start()
            yield connection
        except BaseException as error:
            self.pool.release_after_error(connection, transaction)
            self.raise_outage(error, connection, repeatable_errors=SCHEMA_CHANGED_ERRORS)
            raise
        commit = self.pool.start(self._commit(connection, transaction, after_commit))
        # Not `await commit`: if the request is cancelled now, that would cancel the commit.
        await asyncio.wait([commit])
        commit.result()

    async def _commit(
        self,
        connection: Connection,
        transaction: Transaction,
        after_commit: Callable[[], Awaitable[None]] | None,
    ) -> None:
        try:
            await transaction.commit()
        except BaseException as error:
            self.pool.release_after_error(connection)
            self.raise_outage(error, connection)
            raise
        else:
            self.pool.release(connection)
        finally:
            if after_commit is not None:
                await after_commit()

    async def acquire(self) -> Connection:
        """A connection of the pool. Raises `DatabaseUnavailableError`."""
        try:
            return await self.pool.acquire()
        except DRIVER_ERRORS as error:
            self._error_log.warn(error)
            raise DatabaseUnavailableError from error

    def raise_outage(
        self,
        error: BaseException,
        connection: Connection,
        repeatable_errors: tuple[type[Exception], ...] = (asyncpg.InvalidCachedStatementError,),
    ) -> None:
        """Raise `DatabaseUnavailableError` if PostgreSQL or the connection caused the error.

        It is a `SchemaChangedError` after one of the `repeatable_errors`.
        """
        if isinstance(error, EXPIRING_ERRORS):
            self.pool.expire(connection)
        if isinstance(error, DRIVER_ERRORS) and _is_outage(error, connection):
            self._error_log.warn(error)
            if isinstance(error, repeatable_errors):
                raise SchemaChangedError from error
            raise DatabaseUnavailableError from error


class ConnectionContext:
    """The context manager of `Database.connection`.

    It is a class because `@asynccontextmanager` would cost each request 3 µs.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def __aenter__(self) -> Connection:
        self._connection = await self._database.acquire()
        return self._connection

    async def __aexit__(
        self, _type: object, error: BaseException | None, _traceback: object
    ) -> None:
        pool = self._database.pool
        if error is None:
            pool.release(self._connection)
        else:
            pool.release_after_error(self._connection)
            self._database.raise_outage(error, self._connection)


def _is_outage(error: Exception, connection: Connection) -> bool:
    """Whether PostgreSQL or the connection is the cause of an error, and not the code."""
    if isinstance(error, EXPIRING_ERRORS):
        return True
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate is not None:
        return error.sqlstate.startswith(OUTAGE_SQLSTATE_CLASSES)
    if isinstance(error, TimeoutError):
        return _is_raised_by_driver(error)
    return connection.is_closed()


def _is_raised_by_driver(error: TimeoutError) -> bool:
    """Whether it is the statement timeout, and not a time limit in the code of the caller."""
    modules = [
        str(frame.f_globals["__name__"]) for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    # asyncio.timeout() itself raises the error. It may be used by asyncpg or by the caller.
    while modules[-1].startswith("asyncio."):
        modules.pop()
    return modules[-1].startswith("asyncpg.")


def connect_arguments(settings: Settings) -> dict[str, Any]:
    """The arguments of asyncpg's `connect` for the database in the settings."""
    url = parse_database_url(settings.database_url.get_secret_value())
    arguments: dict[str, Any] = {"dsn": url.dsn}
    if url.uses_system_certificates:
        arguments["ssl"] = True
    return arguments


@asynccontextmanager
async def open_database(settings: Settings, pool_size: int) -> AsyncIterator[Database]:
    """A pool of at most `pool_size` connections. It connects at first use."""
    arguments = connect_arguments(settings)

    async def connect() -> Connection:
        return await asyncpg.connect(
            **arguments,
            connection_class=Connection,
            timeout=settings.database_pool_timeout,
            command_timeout=settings.database_statement_timeout,
        )

    pool = ConnectionPool(connect, pool_size, settings.database_pool_timeout)
    try:
        yield Database(pool)
    finally:
        await pool.close()
