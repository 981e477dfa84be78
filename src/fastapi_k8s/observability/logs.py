"""Logs on standard output: a JSON object per line, or readable text if it is a terminal."""

import json
import logging
import sys
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

request_context: ContextVar[Mapping[str, str]] = ContextVar("request_context")  # for every line
encode = json.JSONEncoder(default=str).encode  # json.dumps() would make one for each line


class LineFormatter(logging.Formatter):
    """A record with its `extra={"fields": ...}`, the request's ids and any exception."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {**request_context.get({}), **getattr(record, "fields", {})}
        error = record.exc_info[1] if record.exc_info else None
        stack = traceback.format_exception(error) if error else []
        if sys.stdout.isatty():
            told = [f"{name}={value}" for name, value in fields.items()]
            text = " ".join([record.levelname, record.getMessage(), *told])
            return "\n".join([text, *"".join(stack).splitlines()])
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **fields,
        }
        if error:
            line["exception"] = {
                "type": type(error).__name__,
                "message": str(error),
                "stack": stack,
            }
        return encode(line)


# Servers bring handlers of their own; without them everything goes to the root's.
PROPAGATE = {"handlers": [], "propagate": True}
STDOUT = {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stdout"}
CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": LineFormatter}},
    "handlers": {"stdout": STDOUT},
    "root": {"level": "INFO", "handlers": ["stdout"]},
    "loggers": {
        **dict.fromkeys(("gunicorn.error", "uvicorn", "uvicorn.error"), PROPAGATE),
        "alembic": {"level": "WARNING"},
    },
}
"""For logging.config.dictConfig, here and in the servers."""
