"""A small FastAPI service on PostgreSQL and Redis."""

import os
import signal
from importlib import import_module

NAME = "fastapi-k8s"
"""The name of the distribution, of the command line program and of the service."""

if os.getpid() == 1:  # pragma: no cover (tests/container/test_life.py)
    # The kernel discards SIGTERM for PID 1 of a container unless there is a handler. Gunicorn and
    # the command line program install theirs after their imports, which take up to a second. A
    # container that is stopped before would run until it is killed.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))


def remove_unusable_propagators() -> str:
    """Remove OTEL_PROPAGATORS if one of its propagators is not installed, and return the error.

    The error is empty if all are installed. Otherwise FastAPI's import of OpenTelemetry would fail,
    also while traces are off. OpenTelemetry's operator for Kubernetes can set the variable.
    """
    if not os.environ.get("OTEL_PROPAGATORS"):
        return ""
    try:
        import_module("opentelemetry.propagate")
    except ValueError as error:
        del os.environ["OTEL_PROPAGATORS"]
        return str(error)
    return ""


PROPAGATORS_ERROR = remove_unusable_propagators()
"""Why OTEL_PROPAGATORS was removed, or an empty string. If traces are on, the start fails."""
