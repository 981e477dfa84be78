"""The Gunicorn worker that drains: after SIGTERM it serves for DRAIN_SECONDS more, then stops.

docs/decisions/0009-drain-in-the-worker.md has the reasons and the figures.
"""

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from types import FrameType
from typing import cast

import uvicorn
from prometheus_client import values
from uvicorn_worker import UvicornWorker

from ..dependencies import LifespanState
from .preloaded_metrics import PreloadedValue, move_values_to_files

logger = logging.getLogger(__name__)
STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
CONNECTION_CLOSE = (b"connection", b"close")

LAST_REQUESTS_SECONDS = 0.5
"""How long to serve requests that a client sent before it saw the connection or listener close."""

GRACEFUL_SHUTDOWN_SECONDS = 25
"""How long requests in flight and background tasks may take after the drain."""

CANCELLATION_SECONDS = 1
"""How long cancelled requests may take to respond."""

EXIT_SECONDS = 5
"""How long the lifespan may take to end, and the process to exit, after the last request."""

STOP_SECONDS = (
    2 * LAST_REQUESTS_SECONDS + GRACEFUL_SHUTDOWN_SECONDS + CANCELLATION_SECONDS + EXIT_SECONDS
)
"""How long a worker may take to exit after DRAIN_SECONDS, besides the time between two steps."""

HEARTBEAT_SECONDS = 1
"""How often a worker shows Gunicorn's master that it is alive."""


class DrainingServer(uvicorn.Server):
    """Continues to serve for DRAIN_SECONDS after SIGTERM.

    Meanwhile /ready fails, /health succeeds, every response closes its connection, and streams that
    use `DrainingDep` end. `notify` is the heartbeat of the worker. After `max_requests` the server
    drains too, but stays ready. If Gunicorn's master is killed, the server drains as after SIGTERM.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        notify: Callable[[], None],
        max_requests: int,
        master_pid: int,
    ) -> None:
        super().__init__(config)
        self._notify = notify
        self._master_pid = master_pid
        self._max_requests = max_requests
        self._drain_has_begun = False
        self._stop_signals: set[signal.Signals] = set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal or `max_requests` ends the server, with a heartbeat."""
        heartbeat = asyncio.create_task(self._send_heartbeats())
        try:
            await super().serve(sockets)
        finally:
            heartbeat.cancel()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM starts the drain. SIGINT and SIGQUIT stop the worker without a drain.

        If one of these two comes again, the worker does not wait for requests in flight. Ctrl-C in
        a terminal sends one of each: SIGINT to the worker, and SIGQUIT from Gunicorn's master.
        """
        loop = asyncio.get_running_loop()

        def schedule(signal_number: int, _: FrameType | None) -> None:
            loop.call_soon_threadsafe(self._handle_signal, signal.Signals(signal_number))

        # Not loop.add_signal_handler(): if two signals arrive at the same time, uvloop can report
        # one of them twice, which would look like a second SIGQUIT.
        for stop_signal in STOP_SIGNALS:
            signal.signal(stop_signal, schedule)
        try:
            yield
        finally:
            for stop_signal in STOP_SIGNALS:
                signal.signal(stop_signal, signal.SIG_DFL)

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop serving. Uvicorn calls it ten times a second."""
        if self.server_state.total_requests >= self._max_requests:
            self._exit_after_drain()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listeners, serve the last accepted connections, then shut down like Uvicorn."""
        self._announce_drain()
        for server in self.servers:
            server.close()
        await asyncio.sleep(LAST_REQUESTS_SECONDS)
        await super().shutdown(sockets)

    async def _send_heartbeats(self) -> None:
        # Not by Uvicorn's `callback_notify`. It is called by the wall clock, so the heartbeat would
        # stop if that clock is set back. It also ends before the requests in flight.
        while os.getppid() == self._master_pid:
            self._notify()
            await asyncio.sleep(HEARTBEAT_SECONDS)
        # Gunicorn's master has exited. If the worker continued, it would keep the port, and the
        # next master could not start.
        logger.error("the worker stops, because Gunicorn's master was killed")
        self._start_drain()

    async def _wait_tasks_to_complete(self) -> None:
        """Wait for the requests in flight and background tasks, then cancel those that are left.

        From then on, the time until the exit is limited.
        Uvicorn's own timeout closes their connections before they can respond.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACEFUL_SHUTDOWN_SECONDS):
                await super()._wait_tasks_to_complete()
        await self._cancel_requests()
        # Not after shutdown(): the lifespan, which ends in it, may never end.
        _limit_exit()

    async def _cancel_requests(self) -> None:
        """Cancel the tasks of the requests. They run the streams and background tasks, too."""
        tasks = list(self.server_state.tasks)
        if tasks:
            logger.error("shutdown: cancelled %d requests or background tasks", len(tasks))
            logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CANCELLATION_SECONDS)

    def _handle_signal(self, stop_signal: signal.Signals) -> None:
        if stop_signal is signal.SIGTERM:
            self._start_drain()
        else:
            self._stop(stop_signal)

    def _start_drain(self) -> None:
        state = self._lifespan_state()
        if state and state["settings"].drain_seconds > 0:
            state["readiness"].is_draining = True
        self._exit_after_drain()

    def _exit_after_drain(self) -> None:
        """Stop after DRAIN_SECONDS. Until then every response closes its connection."""
        if self._drain_has_begun:
            return
        self._drain_has_begun = True
        self._announce_drain()
        seconds = 0.0
        state = self._lifespan_state()
        if state and state["settings"].drain_seconds > 0:
            # The half second is for requests that are on their way when the drain ends.
            seconds = state["settings"].drain_seconds + LAST_REQUESTS_SECONDS
        asyncio.get_running_loop().call_later(seconds, self._request_exit)

    def _lifespan_state(self) -> LifespanState | None:
        """What the lifespan in main.py yields. None before that, and for other applications."""
        if "settings" not in self.lifespan.state:
            return None
        return cast("LifespanState", self.lifespan.state)

    def _announce_drain(self) -> None:
        """Let streams end, and send `Connection: close` with every further response."""
        state = self._lifespan_state()
        if state:
            state["draining"].set()
        if CONNECTION_CLOSE in self.config.encoded_headers:
            return
        # encoded_headers is permanent: Uvicorn rebuilds default_headers from it every second. The
        # change of default_headers takes effect at once.
        self.config.encoded_headers.append(CONNECTION_CLOSE)
        self.server_state.default_headers.append(CONNECTION_CLOSE)

    def _request_exit(self) -> None:
        self.should_exit = True

    def _stop(self, stop_signal: signal.Signals) -> None:
        if stop_signal in self._stop_signals:
            self.force_exit = True
        self._stop_signals.add(stop_signal)
        self.should_exit = True


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """A filter for Uvicorn's log, which would have a traceback of each cancelled request."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, asyncio.CancelledError)


def _limit_exit() -> None:
    """End the process if it has not exited after EXIT_SECONDS.

    The lifespan could wait for something that does not end. Python also waits for all threads at
    its exit, and a thread cannot be cancelled. So a path operation or a background task with `def`
    could delay the exit until the master kills the worker.
    """
    timer = threading.Timer(EXIT_SECONDS, _exit)
    timer.daemon = True
    timer.start()


def _exit() -> None:  # pragma: no cover (os._exit() loses what was measured)
    logger.warning("shutdown: the lifespan or a thread has not ended after %g s", EXIT_SECONDS)
    logging.shutdown()  # os._exit() flushes nothing
    os._exit(0)


class DrainingWorker(UvicornWorker):
    """Runs a `DrainingServer` in a process of Gunicorn.

    `slot` is its number among the workers, from 0. `early_signals` are those that arrived before
    its signal handlers were installed. The hook `pre_fork` sets both.
    """

    CONFIG_KWARGS = {  # noqa: RUF012 (the base class declares it like this)
        "lifespan": "on",
        "access_log": False,  # the middleware logs
        "server_header": False,
        # DrainingServer does these itself.
        "timeout_graceful_shutdown": None,
        "callback_notify": None,
        "limit_max_requests": None,
    }
    slot: int
    early_signals: "SimpleQueue[int]"

    @classmethod
    def setup(cls) -> None:
        """Prepare the master. Gunicorn calls it before it loads the application."""
        values.ValueClass = PreloadedValue

    def run(self) -> None:
        """Serve until a signal ends the worker."""
        move_values_to_files(self.slot)
        self.config.app = self.wsgi
        if not self._was_stopped_early():
            # uvloop closes the file descriptor of another object than a `socket` twice.
            sockets = [listener.sock for listener in self.sockets]
            server = DrainingServer(self.config, self.notify, self.max_requests, self.ppid)
            server.run(sockets)

    def _was_stopped_early(self) -> bool:
        signals = set()
        while not self.early_signals.empty():
            signals.add(self.early_signals.get())
        return not signals.isdisjoint(STOP_SIGNALS)
