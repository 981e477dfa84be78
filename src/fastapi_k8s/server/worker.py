"""The Gunicorn worker that drains: it goes on serving after SIGTERM, until no requests come.

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
"""For requests that a client sent before it saw that the connection or the listener closes."""

GRACEFUL_SHUTDOWN_SECONDS = 25
"""For requests in flight after the drain."""


class DrainingServer(uvicorn.Server):
    """Serves on for DRAIN_SECONDS after SIGTERM: unready, alive, closing kept connections."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM starts the drain. SIGINT and SIGQUIT stop without it; a second one at once."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._start_drain)
        loop.add_signal_handler(signal.SIGINT, self._stop)
        loop.add_signal_handler(signal.SIGQUIT, self._stop)
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listeners, serve the connections accepted last, then shut down as Uvicorn."""
        for server in self.servers:
            server.close()
        await asyncio.sleep(LAST_REQUESTS_SECONDS)
        await super().shutdown(sockets)

    def _start_drain(self) -> None:
        seconds = self._drain_seconds()
        if seconds > 0:
            self._become_unready()
            self._close_kept_connections()
            seconds += LAST_REQUESTS_SECONDS
        asyncio.get_running_loop().call_later(seconds, self._request_exit)

    def _lifespan_state(self) -> LifespanState | None:
        """What main.py yields. None before it did, and of applications other than the service."""
        if "settings" not in self.lifespan.state:
            return None
        return cast("LifespanState", self.lifespan.state)

    def _drain_seconds(self) -> float:
        state = self._lifespan_state()
        return state["settings"].drain_seconds if state else 0

    def _become_unready(self) -> None:
        state = self._lifespan_state()
        if state:
            state["readiness"].draining = True

    def _close_kept_connections(self) -> None:
        """Send `Connection: close` with every further response, of old and new connections."""
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
