"""A pool of PostgreSQL connections with a queue: first come, first served, and bounded.

asyncpg's own pool serves new requests before those that wait, and costs 16 µs more per request
(docs/decisions/0019-connection-pool.md).
"""

import asyncio
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg
from asyncpg.transaction import Transaction

if TYPE_CHECKING:
    BaseConnection: TypeAlias = asyncpg.Connection[asyncpg.Record]
else:
    BaseConnection = asyncpg.Connection

DRIVER_ERRORS = (
    OSError,  # includes TimeoutError
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What asyncpg raises if it cannot connect. Code that uses a connection raises them too."""

CLEANUP_SECONDS = 1.0
"""How long a rollback or the end of a cancelled statement may take before the connection is closed.
"""

MAX_IDLE_SECONDS = 300.0
"""After this time without use a connection is closed, when it or another one is used next.

A firewall may have dropped it, and after a peak it would only take memory of PostgreSQL.
"""

WINDOW_SECONDS = 0.5
"""How long the queue measures before it changes its estimate.

While the server handles hundreds of requests at once, no connection becomes free for 0.2 s. That
must not look like a slow database.
"""

MAX_INTERVAL_GROWTH = 1.1
"""How much the estimated interval may grow from one window to the next.

Refusals take CPU time from the requests that are served. If the estimate followed at once, more and
more requests would be refused, also when the database is fast again.
"""

WAIT_TIME_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"""The upper bounds, in seconds, by which waits for a connection are counted.

These are the bounds that OpenTelemetry's semantic conventions advise for database operations.
"""


@dataclass
class Waits:
    """How many requests have got a connection, by how long they waited, and how many have not.

    They are counted here and not in a metric, because an observation there costs a request 2 µs.
    """

    bucket_counts: list[int] = field(default_factory=lambda: [0] * (len(WAIT_TIME_BOUNDS) + 1))
    """One number for each of WAIT_TIME_BOUNDS, and the last one for longer waits."""
    seconds: float = 0.0
    timeouts: int = 0

    def add(self, seconds: float) -> None:
        """Count a request that got a connection after it waited."""
        self.bucket_counts[bisect_left(WAIT_TIME_BOUNDS, seconds)] += 1
        self.seconds += seconds


@dataclass(frozen=True)
class PoolStatistics:
    """The state of a pool, and the waits since the statistics were taken the last time."""

    size: int
    used: int
    idle: int
    pending_requests: int
    waits: Waits


class Connection(BaseConnection):
    """A connection on which a commit that PostgreSQL has turned into a rollback is an error.

    PostgreSQL does so, without an error, if the code has caught the error of a statement outside of
    a savepoint. The write would be acknowledged and lost.
    """

    async def execute(  # the parameters of asyncpg
        self,
        query: str,
        *args: object,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> str:
        """Execute a command, and return its status, such as `COMMIT`."""
        status = await super().execute(query, *args, timeout=timeout)
        if status == "ROLLBACK" and query.startswith("COMMIT"):
            raise asyncpg.InFailedSQLTransactionError(
                "The transaction was rolled back, because one of its statements failed."
            )
        return status


class ConnectionQueue:
    """Admits at most `size` users at a time. The others wait for at most `timeout_seconds`."""

    def __init__(self, size: int, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._free = asyncio.Semaphore(size)
        self._size = size
        self._used = 0
        self._waiting = 0
        self._waits = Waits()
        # The estimated time between two calls of `leave` while nothing is free. Nobody is refused
        # before the first window has ended.
        self._interval_seconds = 0.0
        self._window_seconds = 0.0
        self._window_intervals = 0
        self._interval_began_at = 0.0

    async def enter(self) -> None:
        """Wait until a connection is free. Call `leave` afterwards.

        Raises TimeoutError after the timeout, or at once if the wait would be longer.
        """
        if self._free.locked():
            began_at = monotonic()
            await self._wait()
            self._waits.add(monotonic() - began_at)
        else:
            await self._free.acquire()
            self._waits.bucket_counts[0] += 1
            if self._free.locked():
                self._interval_began_at = monotonic()
        self._used += 1

    def leave(self) -> None:
        """Admit the next user."""
        self._used -= 1
        if self._free.locked():
            now = monotonic()
            self._add_interval(now - self._interval_began_at)
            self._interval_began_at = now
        self._free.release()

    def take_statistics(self, idle: int) -> PoolStatistics:
        """The statistics of the pool, which has `idle` open connections that nobody uses."""
        waits = self._waits
        self._waits = Waits()
        return PoolStatistics(self._size, self._used, idle, self._waiting, waits)

    def _add_interval(self, seconds: float) -> None:
        self._window_seconds += seconds
        self._window_intervals += 1
        if self._window_seconds < WINDOW_SECONDS:
            return
        mean = self._window_seconds / self._window_intervals
        if self._interval_seconds > 0:
            mean = min(mean, self._interval_seconds * MAX_INTERVAL_GROWTH)
        self._interval_seconds = mean
        self._window_seconds = 0.0
        self._window_intervals = 0

    async def _wait(self) -> None:
        if self._expected_wait_seconds() > self._timeout_seconds:
            self._waits.timeouts += 1
            raise TimeoutError(
                f"no connection would become free in time, {self._waiting} requests already wait"
            )
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._free.acquire()
        except TimeoutError:
            self._waits.timeouts += 1
            # The error of asyncio has no text. In the log it would look like that of a server that
            # does not respond.
            raise TimeoutError("no connection became free in time") from None
        finally:
            self._waiting -= 1

    def _expected_wait_seconds(self) -> float:
        current_interval = monotonic() - self._interval_began_at
        if current_interval > self._timeout_seconds:
            return current_interval  # PostgreSQL does not respond at the moment
        return (self._waiting + 1) * self._interval_seconds


class ConnectionPool:
    """At most `size` connections, opened by `connect` at first use.

    An acquired connection goes back by `release`, or by `release_after_error`.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[Connection]], size: int, timeout_seconds: float
    ) -> None:
        self._connect = connect
        self._queue = ConnectionQueue(size, timeout_seconds)
        # Each with the time of its release, in order. The last one is used first, so that those
        # that are not needed stay idle and can be closed.
        self._idle: list[tuple[Connection, float]] = []
        self._current: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def acquire(self) -> Connection:
        """Return a connection that nobody else uses.

        Raises TimeoutError if none is free in time, and DRIVER_ERRORS if it cannot be opened.
        """
        await self._queue.enter()
        try:
            return self._pop_idle() or await self._open()
        except BaseException:
            self._queue.leave()
            raise

    def release(self, connection: Connection) -> None:
        """Take back a connection on which no statement is in progress.

        It is closed if it is in a transaction. Other state of the session, such as `SET`, is kept.
        """
        is_usable = connection in self._current and not connection.is_closed()
        if is_usable and not connection.is_in_transaction():
            now = monotonic()
            if self._idle and now - self._idle[0][1] > MAX_IDLE_SECONDS:
                unused_connection, _ = self._idle.pop(0)
                self._close(unused_connection)
            self._idle.append((connection, now))
        else:
            self._current.discard(connection)
            connection.terminate()
        self._queue.leave()

    def release_after_error(
        self, connection: Connection, transaction: Transaction | None = None
    ) -> None:
        """Roll back, and take back the connection, in a task for which the caller does not wait.

        After a timeout or a cancellation, asyncpg first cancels the statement and waits until the
        server has responded.
        """
        self.start(self._clean_up(connection, transaction))

    def expire(self, connection: Connection) -> None:
        """Replace all connections, because `connection` has the wrong server or an outdated schema.

        Does nothing if `connection` was opened before an earlier replacement: the others are new.
        """
        if connection not in self._current:
            return
        self._current.clear()
        while self._idle:
            idle_connection, _ = self._idle.pop()
            self._close(idle_connection)

    def take_statistics(self) -> PoolStatistics:
        """The state of the pool, and the waits since the last call."""
        return self._queue.take_statistics(idle=len(self._idle))

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine in a task that may outlive the request. `close` waits for it."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._end_task)
        return task

    async def close(self) -> None:
        """Close all connections. What is in progress has CLEANUP_SECONDS to end."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLEANUP_SECONDS)
        # Not close(), which would wait for a server that hangs.
        for connection in self._current:
            connection.terminate()

    def _pop_idle(self) -> "Connection | None":
        while self._idle:
            connection, idle_since = self._idle.pop()
            if connection.is_closed():
                self._current.discard(connection)
            elif monotonic() - idle_since > MAX_IDLE_SECONDS:
                self._close(connection)
            else:
                return connection
        return None

    def _close(self, connection: Connection) -> None:
        self._current.discard(connection)
        self.start(connection.close(timeout=CLEANUP_SECONDS))

    async def _open(self) -> Connection:
        connection = await self._connect()
        self._current.add(connection)
        return connection

    async def _clean_up(self, connection: Connection, transaction: Transaction | None) -> None:
        try:
            async with asyncio.timeout(CLEANUP_SECONDS):
                # Before either statement, asyncpg waits until the cancelled one has ended.
                if transaction is not None:
                    await transaction.rollback()
                else:
                    await connection.execute("SELECT 1")
        except BaseException:
            connection.terminate()  # the server rolls back
            raise
        finally:
            self.release(connection)

    def _end_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        # asyncio would log an error that no request waits for, with a traceback.
        if not task.cancelled():
            task.exception()
