"""Logs on standard output: a JSON object per line, or readable text if it is a terminal."""

import json
import logging
import sys
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

request_context: ContextVar[Mapping[str, str]] = ContextVar("request_context")
"""What every line carries that is logged during a request."""


class JsonFormatter(logging.Formatter):
    """A record with its `extra={"fields": ...}`, the request's ids and any exception."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info and (error := record.exc_info[1]):
            stack = traceback.format_exception(error)
            line["exception"] = {
                "type": type(error).__name__,
                "message": str(error),
                "stack": stack,
            }
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """The same for a person."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        fields = (f"{name}={value}" for name, value in _fields(record).items())
        return " ".join([record.levelname, record.getMessage(), *fields])


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {**request_context.get({}), **getattr(record, "fields", {})}


def _formatter() -> logging.Formatter:
    return TextFormatter() if sys.stdout.isatty() else JsonFormatter()


# Servers bring handlers of their own; without them everything goes to the root's.
PROPAGATE = {"handlers": [], "propagate": True}
CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": _formatter}},
    "handlers": {
        "stdout": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "stream": "ext://sys.stdout",
        }
    },
    "root": {"level": "INFO", "handlers": ["stdout"]},
    "loggers": {
        **dict.fromkeys(("gunicorn.error", "uvicorn", "uvicorn.error"), PROPAGATE),
        "alembic": {"level": "WARNING"},
    },
}
"""For logging.config.dictConfig, here and in the servers."""
