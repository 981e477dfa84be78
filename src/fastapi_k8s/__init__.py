"""A small FastAPI service on PostgreSQL and Redis."""

import os
import signal

NAME = "fastapi-k8s"
"""The name of the distribution, of the command line program and of the service."""

if os.getpid() == 1:  # pragma: no cover (tests/container/test_life.py)
    # The kernel discards SIGTERM for PID 1 of a container unless there is a handler. Gunicorn and
    # the command line program install theirs after their imports, which take up to a second. A
    # container that is stopped before would run until it is killed.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
