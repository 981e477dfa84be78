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

# Options that providers print; asyncpg would pass them to the server, which refuses them.
LIBPQ_ONLY = {"channel_binding", "connect_timeout", "gssencmode", "pgbouncer"}
UNAVAILABLE = (
    OSError,  # TimeoutError among them
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, statement cancelled
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby, in the middle of a failover
    asyncpg.UndefinedTableError,  # not migrated yet
    asyncpg.UndefinedObjectError,  # an option in the URL that it does not know
    asyncpg.InterfaceError,  # the connection broke under its user, or the URL is wrong
    asyncpg.InternalClientError,  # the connection broke in the middle of a commit
)


def dsn(settings: Settings) -> str:
    """The database's URL, less the options that only libpq knows."""
    url = urlsplit(settings.database_url.get_secret_value())
    options = [(k, v) for k, v in parse_qsl(url.query) if k not in LIBPQ_ONLY]
    return url._replace(query=urlencode(options)).geturl()


@dataclass(frozen=True)
class Database:
    """Lends connections. Raises ProblemError (503) if none is free in time, or PostgreSQL fails."""

    pool: "asyncpg.Pool[asyncpg.Record]"
    acquire_timeout: float

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection on which each statement commits by itself."""
        try:
            async with self.pool.acquire(timeout=self.acquire_timeout) as connection:
                yield connection
        except UNAVAILABLE as error:
            logger.warning("database unavailable", extra={"fields": {"error": repr(error)}})
            raise ProblemError(503, "The database is unavailable.", {"Retry-After": "1"}) from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction: committed at the end, rolled back on an error."""
        async with self.connection() as connection, connection.transaction():
            yield connection


@asynccontextmanager
async def open_database(settings: Settings, size: int) -> AsyncIterator[Database]:
    """A pool of `size` connections at most, which connects at first use: its server may be down."""
    pool = await asyncpg.create_pool(
        dsn(settings),
        min_size=0,
        max_size=size,
        command_timeout=settings.database_statement_timeout,
        reset=_keep_session,
    )
    try:
        yield Database(pool, settings.database_acquire_timeout)
    finally:
        pool.terminate()  # nothing is under way any more, and close() would wait for a hung server


async def _keep_session(_: object) -> None:
    """Save the round trip of RESET ALL: nothing here changes a session, only transactions."""
