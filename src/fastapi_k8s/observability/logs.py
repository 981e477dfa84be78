"""Logs on standard output: a JSON object per line, or readable text if it is a terminal."""

import json
import logging
import os
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

request_context: ContextVar[dict[str, str]] = ContextVar("request_context")  # for every line
encode = json.JSONEncoder(default=str).encode  # json.dumps() would make one for each line


class LineFormatter(logging.Formatter):
    """A record with its `extra={"fields": ...}`, the request's ids, the pod and any exception."""

    def __init__(self) -> None:
        super().__init__()
        names = ("POD_NAME", "POD_NAMESPACE", "NODE_NAME")  # from Kubernetes' Downward API
        self._place = {name.lower(): os.environ[name] for name in names if name in os.environ}

    def format(self, record: logging.LogRecord) -> str:
        fields = {**self._place, **request_context.get({}), **getattr(record, "fields", {})}
        error = record.exc_info[1] if record.exc_info else None
        stack = traceback.format_exception(error) if error else []
        if sys.stdout.isatty():
            told = [record.levelname, record.getMessage(), *(f"{n}={v}" for n, v in fields.items())]
            return "\n".join([" ".join(told), *"".join(stack).splitlines()])
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **fields,
        }
        if error:
            name, text = type(error).__name__, str(error)
            line["exception"] = {"type": name, "message": text, "stack": stack}
        return encode(line)


# Not by way of the root: Uvicorn's worker takes Gunicorn's handlers over, and does not propagate.
SERVER = {"handlers": ["stdout"], "propagate": False}
STDOUT = {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stdout"}
CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": LineFormatter}},
    "handlers": {"stdout": STDOUT},
    "root": {"level": "INFO", "handlers": ["stdout"]},
    "loggers": {
        **dict.fromkeys(("gunicorn.error", "uvicorn", "uvicorn.error"), SERVER),
        "alembic": {"level": "WARNING"},
    },
}
