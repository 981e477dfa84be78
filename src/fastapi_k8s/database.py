"""The PostgreSQL pool: bounded, with a time limit on every wait."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg

from .errors import ProblemError
from .settings import Settings

logger = logging.getLogger(__name__)
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

UNSUPPORTED_OPTIONS = {"channel_binding", "connect_timeout", "gssencmode", "pgbouncer"}
"""Options that some providers put into the URL.

asyncpg would send them to the server, which refuses them.
"""

UNAVAILABLE_ERRORS = (
    OSError,  # includes TimeoutError
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, statement cancelled
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby, during a failover
    asyncpg.UndefinedTableError,  # the schema is not migrated yet
    asyncpg.UndefinedObjectError,  # the URL has an option that the server does not know
    asyncpg.InterfaceError,  # the connection was closed during its use, or the URL is invalid
    asyncpg.InternalClientError,  # the connection was closed during a commit
)


class DatabaseUnavailableError(ProblemError):
    """PostgreSQL cannot be used now: a 503 that the client may retry after a second."""

    def __init__(self) -> None:
        super().__init__(503, "The database is unavailable.", {"Retry-After": "1"})


@dataclass(frozen=True)
class Database:
    """A pool of connections. `pool_timeout` limits the wait for one, in seconds."""

    pool: "asyncpg.Pool[asyncpg.Record]"
    pool_timeout: float

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection on which each statement is its own transaction.

        Raises `DatabaseUnavailableError` if none is free in time, or if PostgreSQL fails.
        """
        try:
            async with self.pool.acquire(timeout=self.pool_timeout) as connection:
                yield connection
        except UNAVAILABLE_ERRORS as error:
            logger.warning("database unavailable", extra={"error": repr(error)})
            raise DatabaseUnavailableError from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction: committed at the end, rolled back after an exception.

        Raises `DatabaseUnavailableError` like `connection`.
        """
        async with self.connection() as connection, connection.transaction():
            yield connection


def asyncpg_dsn(settings: Settings) -> str:
    """The URL of the database without the options that asyncpg does not know."""
    url = urlsplit(settings.database_url.get_secret_value())
    options = [
        (name, value) for name, value in parse_qsl(url.query) if name not in UNSUPPORTED_OPTIONS
    ]
    return url._replace(query=urlencode(options)).geturl()


@asynccontextmanager
async def open_database(settings: Settings, pool_size: int) -> AsyncIterator[Database]:
    """A pool of at most `pool_size` connections. It connects at first use."""
    pool = await asyncpg.create_pool(
        asyncpg_dsn(settings),
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
