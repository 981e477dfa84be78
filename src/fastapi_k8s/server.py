"""Gunicorn's settings: `gunicorn -c python:...`, which the command `serve` runs.

Gunicorn itself reads PORT (and then listens on every address) and WEB_CONCURRENCY. Its flags beat
what stands here. https://gunicorn.org/reference/settings/
"""

import gc
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from fastapi import FastAPI
from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from . import main
from .observability import logs
from .observability.metrics import share_between_workers
from .settings import load_settings

MEMORY = Path("/dev/shm")  # noqa: S108 (Linux' tmpfs, writable even if the root is not)


class Worker(UvicornWorker):
    """Uvicorn for production. `slot` is the worker's place among its siblings, from 0."""

    CONFIG_KWARGS = {  # noqa: RUF012 (as the base class has it)
        "loop": "uvloop",
        "http": "httptools",
        "lifespan": "on",
        "ws": "none",
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": 25,
    }
    slot: int


wsgi_app = f"{__name__}:application()"
worker_class = Worker
worker_tmp_dir = str(MEMORY) if MEMORY.is_dir() else None
preload_app = True
control_socket_disable = True  # its file fails on a read-only root
logconfig_dict = logs.CONFIG
keepalive = 75  # seconds: more than the 60 of load balancers, or they meet a closed connection
graceful_timeout = 30  # seconds: more than the worker's own

_slot = "master"


@cache
def _metrics_directory() -> str:
    return tempfile.mkdtemp(prefix=f"metrics-{os.getpid()}-", dir=worker_tmp_dir)


def application() -> FastAPI:
    """The application, with metrics that the workers share."""
    settings = load_settings()  # first: wrong ones end it here, and nothing is left behind
    Worker.CONFIG_KWARGS["root_path"] = settings.root_path
    share_between_workers(_metrics_directory(), lambda: _slot)
    return main.application()


def when_ready(_: Arbiter) -> None:
    """Keep the workers' garbage collection from writing to, and so copying, shared pages."""
    gc.freeze()


def pre_fork(arbiter: Arbiter, worker: Worker) -> None:
    """Give the worker the first free slot, such as a dead worker's."""
    taken = {sibling.slot for sibling in arbiter.WORKERS.values()}
    worker.slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)


def post_fork(_: Arbiter, worker: Worker) -> None:
    """In the worker's process."""
    global _slot  # noqa: PLW0603 (hooks are functions of a module)
    _slot = str(worker.slot)


def on_exit(_: Arbiter) -> None:
    """In the master, when the workers are gone."""
    shutil.rmtree(_metrics_directory())
