"""The PostgreSQL pool: bounded, with a time limit on every wait."""

import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import wraps
from time import monotonic
from typing import Any, ParamSpec, TypeAlias, TypeVar

import asyncpg

from .database_url import parse_database_url
from .errors import ProblemError
from .settings import Settings

logger = logging.getLogger(__name__)
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

DRIVER_ERRORS = (
    OSError,  # includes TimeoutError
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What asyncpg raises if it cannot connect. Code that uses a connection raises them too."""

OUTAGE_SQLSTATE_CLASSES = ("08", "53", "57")
"""The connection failed; disk, memory or connections are exhausted; the server shuts down, starts
or has cancelled the statement. See https://www.postgresql.org/docs/current/errcodes-appendix.html.
"""

SCHEMA_CHANGED_ERRORS = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)
"""A migration has outdated a prepared statement. asyncpg then prepares it again in all connections.

Outside of transactions, asyncpg also repeats the statement.
"""

LOG_INTERVAL_SECONDS = 1.0
"""How often each type of error is logged. During an outage, every request has one."""


class DatabaseUnavailableError(ProblemError):
    """PostgreSQL cannot be used now: a 503 that the client may retry after a second."""

    def __init__(self) -> None:
        super().__init__(503, "The database is unavailable.", {"Retry-After": "1"})


class SchemaChangedError(DatabaseUnavailableError):
    """A migration has changed the type of a column. The same transaction now succeeds."""


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


@dataclass
class ErrorLog:
    """Logs each type of error at most once per LOG_INTERVAL_SECONDS."""

    _silent_until: dict[type[Exception], float] = field(default_factory=dict)
    _suppressed: dict[type[Exception], int] = field(default_factory=dict)

    def warn(self, error: Exception) -> None:
        """Log the error, and how many of its type were not logged since the previous line."""
        kind = type(error)
        if monotonic() < self._silent_until.get(kind, 0):
            self._suppressed[kind] = self._suppressed.get(kind, 0) + 1
            return
        self._silent_until[kind] = monotonic() + LOG_INTERVAL_SECONDS
        suppressed = self._suppressed.pop(kind, 0)
        logger.warning(
            "database unavailable",
            extra={"error": repr(error), "suppressed": suppressed},
        )


@dataclass(frozen=True)
class Database:
    """A pool of connections. `pool_timeout` limits the wait for one, in seconds."""

    pool: "asyncpg.Pool[asyncpg.Record]"
    pool_timeout: float
    _error_log: ErrorLog = field(default_factory=ErrorLog)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection on which each statement is its own transaction.

        Raises `DatabaseUnavailableError` if none is free in time, or if PostgreSQL fails. All other
        errors of the block are errors in the code, and are not caught.
        """
        try:
            connection = await self.pool.acquire(timeout=self.pool_timeout)
        except DRIVER_ERRORS as error:
            self._error_log.warn(error)
            raise DatabaseUnavailableError from error
        try:
            yield connection
        except SCHEMA_CHANGED_ERRORS as error:
            self._error_log.warn(error)
            raise SchemaChangedError from error
        except DRIVER_ERRORS as error:
            if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
                await self.expire_connections()
            if not _is_outage(error, connection):
                raise
            self._error_log.warn(error)
            raise DatabaseUnavailableError from error
        finally:
            await self._release(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction: committed at the end, rolled back after an exception.

        Raises `DatabaseUnavailableError` like `connection`.
        """
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def _release(self, connection: Connection) -> None:
        try:
            await self.pool.release(connection)
        except DRIVER_ERRORS as error:
            # asyncpg has closed the connection. The result of the block is not affected.
            self._error_log.warn(error)

    async def expire_connections(self) -> None:
        """Close every connection before its next use.

        After a failover, the open ones may lead to a server that is read-only now.
        """
        await self.pool.expire_connections()


def _is_outage(error: Exception, connection: Connection) -> bool:
    """Whether PostgreSQL or the connection is the cause of an error, and not the code."""
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        return True
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate is not None:
        return error.sqlstate.startswith(OUTAGE_SQLSTATE_CLASSES)
    if isinstance(error, TimeoutError):
        return _is_raised_by_driver(error)
    return isinstance(error, DRIVER_ERRORS) and _is_closed(connection)


def _is_raised_by_driver(error: TimeoutError) -> bool:
    """Whether it is the statement timeout, and not a time limit in the code of the caller."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals["__name__"]).startswith(f"{asyncpg.__name__}.")


def _is_closed(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True  # The pool has taken it back, because the server closed it.


def connect_arguments(settings: Settings) -> dict[str, Any]:
    """The arguments of asyncpg's `connect` and `create_pool` for the database in the settings."""
    url = parse_database_url(settings.database_url.get_secret_value())
    arguments: dict[str, Any] = {"dsn": url.dsn}
    if url.uses_system_certificates:
        arguments["ssl"] = True
    return arguments


@asynccontextmanager
async def open_database(settings: Settings, pool_size: int) -> AsyncIterator[Database]:
    """A pool of at most `pool_size` connections. It connects at first use."""
    pool = await asyncpg.create_pool(
        **connect_arguments(settings),
        min_size=0,  # PostgreSQL may be down when the service starts
        max_size=pool_size,
        command_timeout=settings.database_statement_timeout,
        reset=_skip_reset,
    )
    try:
        yield Database(pool, settings.database_pool_timeout)
    finally:
        # No request is in progress any more, and close() would wait for a server that hangs.
        pool.terminate()


async def _skip_reset(_: object) -> None:
    """Replaces asyncpg's RESET ALL, a round trip per request. No code here changes a session."""
