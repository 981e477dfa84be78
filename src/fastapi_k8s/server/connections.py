"""All connections of a worker: how many there may be, and the timer of their time limits."""

import asyncio
import logging
import resource
from collections.abc import Mapping
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from .http_protocol import StrictHttpProtocol
from .request_head import HttpLimits

logger = logging.getLogger(__name__)

UNSENT_BYTES = 64 * 1024 * 1024
"""How much of its responses a worker may hold for clients that do not read them.

A sixth of the memory limit of a pod in `k8s.yaml`.
"""


class HttpProtocolFactory:
    """Creates the protocol of each connection of a worker, and holds the state that they share.

    An instance is the value of Uvicorn's option `http`. One timer per worker enforces the time
    limits of all connections, so that a request costs no timer, and no timer outlives its
    connection.
    """

    def __init__(self, limits: HttpLimits | None = None) -> None:
        self.limits = limits or HttpLimits()
        self.connections: dict[StrictHttpProtocol, None] = {}  # in the order of their creation
        self.held_bytes = 0  # received for requests without a complete response
        # The pieces of responses that were not sent completely at once, the oldest first.
        self.unsent: dict[StrictHttpProtocol, int] = {}
        self.unsent_bytes = 0  # of all of them
        # Counted by the timer, so without the time in which the event loop was blocked.
        self.elapsed_seconds = 0
        self._is_sweeping = False
        self._logged_at: dict[str, int] = {}

    def __call__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> StrictHttpProtocol:
        return StrictHttpProtocol(self, config, server_state, app_state, _loop)

    def add(self, connection: StrictHttpProtocol) -> None:
        """Supervise a new connection. If there are too many, close an idle one.

        A connection with a complete request is never closed. Half of the process's file descriptors
        are left to the connections that the application opens: without a free one, no probe could
        connect.
        """
        self.connections[connection] = None
        if not self._is_sweeping:
            self._is_sweeping = True
            connection.loop.call_later(1, self._sweep, connection.loop)
        if len(self.connections) > self.max_connections():
            self._evict(connection)

    def hold_unsent(self, connection: StrictHttpProtocol, size: int) -> None:
        """Count the newest piece of the response of a connection, in place of the one before it.

        If there is too much in memory, abort the connections whose clients have not read their
        piece for the longest time, but never this one: a single piece may exceed the limit.
        """
        self.release_unsent(connection)
        self.unsent[connection] = size
        self.unsent_bytes += size
        if self.unsent_bytes <= UNSENT_BYTES:
            return
        for each in tuple(self.unsent):
            if each.transport.get_write_buffer_size() == 0:
                self.release_unsent(each)
        while self.unsent_bytes > UNSENT_BYTES and len(self.unsent) > 1:
            slowest = next(iter(self.unsent))
            fields = {"unsent_bytes": self.unsent_bytes, "connections": len(self.unsent)}
            self.release_unsent(slowest)
            slowest.transport.abort()
            message = "too many unread responses, the slowest connection is aborted"
            self.log(logging.WARNING, message, fields)

    def release_unsent(self, connection: StrictHttpProtocol) -> None:
        """Do not count the piece of this connection any longer."""
        self.unsent_bytes -= self.unsent.pop(connection, 0)

    def log(self, level: int, message: str, fields: Mapping[str, Any]) -> None:
        """Write a log line, unless one with this message and detail was written in this second."""
        key = f"{message}: {fields.get('detail')}"
        if self._logged_at.get(key) != self.elapsed_seconds:
            self._logged_at[key] = self.elapsed_seconds
            logger.log(level, message, extra=fields)

    def max_connections(self) -> int:
        """The configured limit, or half of the process's file descriptors if that is less."""
        open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if open_files == resource.RLIM_INFINITY:
            return self.limits.connections
        return min(self.limits.connections, open_files // 2)

    def _evict(self, newest: StrictHttpProtocol) -> None:
        others = [each for each in self.connections if each is not newest and each.may_be_evicted()]
        if not others:
            return
        oldest = min(others, key=StrictHttpProtocol.eviction_key)
        oldest.transport.abort()
        # Not later, in connection_lost(): connections that arrive at the same time would all evict
        # this one, and their number would exceed the limit.
        del self.connections[oldest]
        fields = {"connections": len(self.connections)}
        self.log(logging.WARNING, "too many connections, the oldest idle one is closed", fields)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_sweeping = bool(self.connections)
        if self._is_sweeping:
            loop.call_later(1, self._sweep, loop)
        self.elapsed_seconds += 1
        for connection in tuple(self.connections):
            connection.check_time()
