"""Gunicorn's settings and hooks (https://gunicorn.org/reference/settings/), `-c python:…`."""

import asyncio
import gc
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import uvicorn
from gunicorn.arbiter import Arbiter
from prometheus_client import values
from uvicorn_worker import UvicornWorker

from .observability import logs, metrics
from .settings import load_settings


class DrainingServer(uvicorn.Server):
    """Serves on for DRAIN_SECONDS after SIGTERM: unready, alive, closing what it answers."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM drains, then stops. SIGINT or SIGQUIT stops; the second of them at once."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._drain)
        loop.add_signal_handler(signal.SIGINT, self._stop)
        loop.add_signal_handler(signal.SIGQUIT, self._stop)
        yield

    async def shutdown(self, sockets: Any = None) -> None:
        """Accept no more; answer what was accepted in the last moment; then end as Uvicorn does."""
        for server in self.servers:
            server.close()
        await asyncio.sleep(0.5)
        await super().shutdown(sockets)

    def _drain(self) -> None:
        state = self.lifespan.state  # what main.py yields; empty before, and of other applications
        if seconds := state["settings"].drain_seconds if "settings" in state else 0:
            state["readiness"].draining = True
            self.config.encoded_headers.append((b"connection", b"close"))
            self.server_state.default_headers.append((b"connection", b"close"))
            seconds += 0.5  # for what is on its way
        asyncio.get_running_loop().call_later(seconds, setattr, self, "should_exit", True)

    def _stop(self) -> None:
        self.force_exit, self.should_exit = self.should_exit, True


class Worker(UvicornWorker):
    """Uvicorn for production. `slot` is the worker's place among its siblings, from 0."""

    CONFIG_KWARGS = {  # noqa: RUF012 (as the base class has it)
        "lifespan": "on",
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": 25,  # seconds for requests in flight, after the drain
    }
    slot: int
    signals: Any

    def run(self) -> None:
        values.ValueClass = values.MultiProcessValue(lambda: self.slot)  # type: ignore[no-untyped-call]
        self.config.app = self.wsgi
        early = {self.signals.get() for _ in range(self.signals.qsize())}
        if not early & {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}:
            DrainingServer(self.config).run(self.sockets)


wsgi_app = f"{__package__}.main:application()"
worker_class = Worker
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 (in memory)
preload_app = True
control_socket_disable = True  # its file fails on a read-only root
logconfig_dict = logs.CONFIG
keepalive = 75  # seconds: more than the 60 of load balancers, or they meet a closed connection
graceful_timeout = 90  # seconds: more than the longest drain, 60, and the worker's own limit


def when_ready(arbiter: Arbiter) -> None:
    Worker.CONFIG_KWARGS["root_path"] = load_settings().root_path
    os.environ[metrics.SHARED] = mkdtemp(prefix=f"metrics-{arbiter.pid}-", dir=worker_tmp_dir)
    gc.freeze()  # or the workers' collections write to, and so copy, the pages that they share


def pre_fork(arbiter: Arbiter, worker: Worker) -> None:
    """Give the worker the first free slot. A dead worker's successor counts on in its metrics."""
    taken = {sibling.slot for sibling in arbiter.WORKERS.values()}
    worker.slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
    worker.signals = arbiter.SIG_QUEUE  # whose copy gets a signal that comes before its handlers


def on_exit(_: Arbiter) -> None:
    shutil.rmtree(os.environ[metrics.SHARED])
