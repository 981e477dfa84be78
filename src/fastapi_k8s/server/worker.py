"""The Gunicorn worker that drains: after SIGTERM it serves for DRAIN_SECONDS more, then stops.

docs/decisions/0009-drain-in-the-worker.md has the reasons and the figures.
"""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import cast

import uvicorn
from prometheus_client import values
from uvicorn_worker import UvicornWorker

from ..dependencies import LifespanState

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
CONNECTION_CLOSE = (b"connection", b"close")

LAST_REQUESTS_SECONDS = 0.5
"""How long to serve requests that a client sent before it saw the connection or listener close."""

GRACEFUL_SHUTDOWN_SECONDS = 25
"""How long requests in flight may take after the drain."""


class DrainingServer(uvicorn.Server):
    """Continues to serve for DRAIN_SECONDS after SIGTERM.

    Meanwhile /ready fails, /health succeeds, and every response closes its connection.
    """

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM starts the drain. SIGINT and SIGQUIT stop the worker without a drain.

        After the drain they also skip the wait for requests in flight.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._start_drain)
        loop.add_signal_handler(signal.SIGINT, self._stop)
        loop.add_signal_handler(signal.SIGQUIT, self._stop)
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listeners, serve the last accepted connections, then shut down like Uvicorn."""
        for server in self.servers:
            server.close()
        await asyncio.sleep(LAST_REQUESTS_SECONDS)
        await super().shutdown(sockets)

    def _start_drain(self) -> None:
        seconds = 0.0
        state = self._lifespan_state()
        if state and state["settings"].drain_seconds > 0:
            state["readiness"].draining = True
            self._add_connection_close()
            # The half second is for requests that are on their way when the drain ends.
            seconds = state["settings"].drain_seconds + LAST_REQUESTS_SECONDS
        asyncio.get_running_loop().call_later(seconds, self._request_exit)

    def _lifespan_state(self) -> LifespanState | None:
        """What the lifespan in main.py yields. None before that, and for other applications."""
        if "settings" not in self.lifespan.state:
            return None
        return cast("LifespanState", self.lifespan.state)

    def _add_connection_close(self) -> None:
        """Send `Connection: close` with every further response."""
        # The first list is permanent: Uvicorn rebuilds default_headers from it every second. The
        # second one takes effect at once.
        self.config.encoded_headers.append(CONNECTION_CLOSE)
        self.server_state.default_headers.append(CONNECTION_CLOSE)

    def _request_exit(self) -> None:
        self.should_exit = True

    def _stop(self) -> None:
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


class DrainingWorker(UvicornWorker):
    """Runs a `DrainingServer` in a process of Gunicorn.

    `slot` is its number among the workers, from 0. `early_signals` are those that arrived before
    its signal handlers were installed. The hook `pre_fork` sets both.
    """

    CONFIG_KWARGS = {  # noqa: RUF012 (the base class declares it like this)
        "lifespan": "on",
        "access_log": False,  # the middleware logs
        "server_header": False,
        "timeout_graceful_shutdown": GRACEFUL_SHUTDOWN_SECONDS,
    }
    slot: int
    early_signals: "SimpleQueue[int]"

    def run(self) -> None:
        """Serve until a signal ends the worker."""
        # prometheus_client names its files after the process id; here after the slot.
        values.ValueClass = values.MultiProcessValue(self._get_slot)  # type: ignore[no-untyped-call]
        self.config.app = self.wsgi
        if not self._was_stopped_early():
            DrainingServer(self.config).run(self.sockets)

    def _get_slot(self) -> int:
        return self.slot

    def _was_stopped_early(self) -> bool:
        signals = set()
        while not self.early_signals.empty():
            signals.add(self.early_signals.get())
        return not signals.isdisjoint(STOP_SIGNALS)
