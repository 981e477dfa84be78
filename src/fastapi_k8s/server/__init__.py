"""Gunicorn's configuration: `gunicorn -c python:fastapi_k8s.server`.

Settings and hooks: https://gunicorn.org/reference/settings/.
"""

import gc
import os
import shutil
import sys
from pathlib import Path
from tempfile import gettempdir, mkdtemp

import uvloop  # noqa: F401 (Uvicorn would import it in each worker, which shares no memory then)
from gunicorn.arbiter import Arbiter
from prometheus_client.multiprocess import mark_process_dead
from starlette.applications import Starlette

from .. import NAME
from ..observability.logs import logging_config
from ..observability.metrics import MULTIPROC_DIR_VARIABLE
from ..settings import load_settings
from .connections import HttpProtocolFactory
from .request_head import HttpLimits
from .worker import DrainingWorker

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (not a predictable temporary file)
BINDV6ONLY = Path("/proc/sys/net/ipv6/bindv6only")
"""0 if an IPv6 socket accepts IPv4 connections too. Absent in a kernel without IPv6."""

GC_THRESHOLD = 20_000
"""How many more objects are allocated than freed before the next garbage collection.

With Python's 2,000, the objects of requests in flight survive many collections: 800 requests in
flight cost 50 % more CPU time each, and p99 of /health was 84 ms instead of 6.
"""


def all_interfaces(port: str) -> str:
    """The address to listen on for clients of IPv6 and IPv4, as far as the kernel has both."""
    is_dual_stack = BINDV6ONLY.exists() and BINDV6ONLY.read_text().strip() == "0"
    return f"[::]:{port}" if is_dual_stack else f"0.0.0.0:{port}"


def find_worker_tmp_dir() -> str:
    """A writable folder, in memory if possible. Exits with an error message if there is none.

    A disk that hangs would delay the heartbeat, and Gunicorn would kill a healthy worker.
    """
    if os.access(SHARED_MEMORY, os.W_OK):
        return str(SHARED_MEMORY)
    try:
        return gettempdir()
    except FileNotFoundError:
        sys.exit(f"{NAME}: no writable folder for temporary files: mount a tmpfs at /tmp")


wsgi_app = "fastapi_k8s.main:create_app_from_environment()"
worker_class = DrainingWorker
worker_tmp_dir = find_worker_tmp_dir()
# Gunicorn itself would listen on 0.0.0.0, where IPv6 clients cannot connect.
if "PORT" in os.environ:
    bind = all_interfaces(os.environ["PORT"])
# The workers share the memory of the imported code.
preload_app = True
# Gunicorn's control socket cannot be created on a read-only root file system.
control_socket_disable = True
logconfig_dict = logging_config()
# Seconds. More than the 60 s idle timeout of most load balancers, which could otherwise send a
# request on a connection while it closes.
keepalive = 75
worker_connections = HttpLimits.connections
# Seconds. More than the longest DRAIN_SECONDS (60) plus the 33 s that a stop can take after it.
graceful_timeout = 100


def on_starting(arbiter: Arbiter) -> None:
    """Exit with code 2 if there would be no worker, since no request would get a response."""
    if arbiter.cfg.workers == 0:
        print(f"{NAME}: WEB_CONCURRENCY and --workers must be at least 1", file=sys.stderr)
        sys.exit(2)


def when_ready(arbiter: Arbiter) -> None:
    """Prepare what the workers inherit, before the first one is forked."""
    DrainingWorker.CONFIG_KWARGS["http"] = HttpProtocolFactory(
        HttpLimits.from_gunicorn(arbiter.cfg)
    )
    # Uvicorn takes root_path from the worker's configuration, not from the application.
    DrainingWorker.CONFIG_KWARGS["root_path"] = load_settings().root_path
    metrics_dir = mkdtemp(prefix=f"metrics-{arbiter.pid}-", dir=worker_tmp_dir)
    os.environ[MULTIPROC_DIR_VARIABLE] = metrics_dir
    # Otherwise each worker would build the middleware at its start, and would copy the memory
    # pages of the routes, which FastAPI completes at that moment.
    app = arbiter.app.wsgi()
    if isinstance(app, Starlette):
        app.middleware_stack = app.build_middleware_stack()
    # Garbage collection in a worker would write to memory pages that it shares with the master,
    # and so copy them.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


def pre_fork(arbiter: Arbiter, worker: DrainingWorker) -> None:
    """Give the worker the first free slot, and the queue in which early signals arrive.

    The metrics files are named after the slot. A replacement worker continues the files of the one
    that died, so their number stays bounded and no count is lost.
    """
    used_slots = {sibling.slot for sibling in arbiter.WORKERS.values()}
    slot = 0
    while slot in used_slots:
        slot += 1
    worker.slot = slot
    # A signal that is delivered between the fork and the installation of the worker's handlers
    # ends up in the child's copy of this queue.
    worker.early_signals = arbiter.SIG_QUEUE


def child_exit(_: Arbiter, worker: DrainingWorker) -> None:
    """Remove what a worker wrote to gauges of live processes, such as its requests in progress."""
    mark_process_dead(worker.slot)  # type: ignore[no-untyped-call]


def on_exit(_: Arbiter) -> None:
    """Remove the metrics of the workers."""
    shutil.rmtree(os.environ[MULTIPROC_DIR_VARIABLE])
