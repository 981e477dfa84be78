"""Gunicorn's settings (https://gunicorn.org/reference/settings/): `gunicorn -c python:...`."""

import gc
import os
import shutil
import tempfile
from pathlib import Path

from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from .observability import logs, metrics
from .settings import load_settings

MEMORY = "/dev/shm"  # noqa: S108 (Linux' tmpfs, writable even if the root is not)


class Worker(UvicornWorker):
    """Uvicorn for production. `slot` is the worker's place among its siblings, from 0."""

    CONFIG_KWARGS = {  # noqa: RUF012 (as the base class has it)
        "loop": "uvloop",
        "http": "httptools",
        "lifespan": "on",
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": 25,
    }
    slot: int


wsgi_app = f"{__package__}.main:application()"
worker_class = Worker
worker_tmp_dir = MEMORY if Path(MEMORY).is_dir() else None
preload_app = True
control_socket_disable = True  # its file fails on a read-only root
logconfig_dict = logs.CONFIG
keepalive = 75  # seconds: more than the 60 of load balancers, or they meet a closed connection
graceful_timeout = 30  # seconds: more than the worker's own

_slot = ""


def when_ready(arbiter: Arbiter) -> None:
    """In the master, when it listens."""
    Worker.CONFIG_KWARGS["root_path"] = load_settings().root_path
    directory = tempfile.mkdtemp(prefix=f"metrics-{arbiter.pid}-", dir=worker_tmp_dir)
    metrics.share_between_workers(directory, lambda: _slot)
    gc.freeze()  # or the workers' collections write to, and so copy, the pages that they share


def pre_fork(arbiter: Arbiter, worker: Worker) -> None:
    """Give the worker the first free slot. A dead worker's successor counts on in its metrics."""
    taken = {sibling.slot for sibling in arbiter.WORKERS.values()}
    worker.slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)


def post_fork(_: Arbiter, worker: Worker) -> None:
    """In the worker's process."""
    global _slot  # noqa: PLW0603 (hooks are functions of a module)
    _slot = str(worker.slot)


def on_exit(_: Arbiter) -> None:
    """In the master, when the workers are gone."""
    shutil.rmtree(os.environ[metrics.SHARED])
