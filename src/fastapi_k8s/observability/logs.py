"""Logs on standard output: a JSON object per line, or readable text on a terminal."""

import json
import logging
import os
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

request_context: ContextVar[dict[str, str]] = ContextVar("request_context")
"""Fields of the current request, for each of its log lines."""

POD_VARIABLES = ("POD_NAME", "POD_NAMESPACE", "NODE_NAME")
"""Set by Kubernetes' Downward API in k8s.yaml."""

# json.dumps() with arguments would create an encoder for each line.
encode_json = json.JSONEncoder(default=str).encode


class FieldsFormatter(logging.Formatter):
    """Collects the fields of a record: pod, request, and those of `extra={"fields": {...}}`."""

    def __init__(self) -> None:
        super().__init__()
        self._pod_fields = {
            name.lower(): os.environ[name] for name in POD_VARIABLES if name in os.environ
        }

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """The fields of a record by name."""
        return {**self._pod_fields, **request_context.get({}), **getattr(record, "fields", {})}


class JsonFormatter(FieldsFormatter):
    """A record as a JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with the exception under `exception` if there is one."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self.fields(record),
        }
        error = _exception(record)
        if error is not None:
            line["exception"] = {
                "type": type(error).__name__,
                "message": str(error),
                "stack": traceback.format_exception(error),
            }
        return encode_json(line)


class ConsoleFormatter(FieldsFormatter):
    """A record as readable text: level, message, fields, and the traceback on lines below."""

    def format(self, record: logging.LogRecord) -> str:
        """The text, of one line unless there is an exception."""
        words = [record.levelname, record.getMessage()]
        for name, value in self.fields(record).items():
            words.append(f"{name}={value}")
        text = " ".join(words)
        error = _exception(record)
        if error is not None:
            text += "\n" + "".join(traceback.format_exception(error)).rstrip("\n")
        return text


def _exception(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if record.exc_info else None


def logging_config() -> dict[str, Any]:
    """The configuration for `logging.config.dictConfig`, Uvicorn and Gunicorn."""
    formatter = ConsoleFormatter if sys.stdout.isatty() else JsonFormatter
    # UvicornWorker copies the handlers of gunicorn.error to uvicorn.error and turns the propagation
    # of uvicorn.error off. So gunicorn.error needs a handler: that of the root is not copied.
    server_logger = {"handlers": ["stdout"], "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"default": {"()": formatter}},
        "handlers": {
            "stdout": {
                "class": "logging.StreamHandler",
                "formatter": "default",
                "stream": "ext://sys.stdout",
            }
        },
        "root": {"level": "INFO", "handlers": ["stdout"]},
        "loggers": {
            "gunicorn.error": server_logger,
            "uvicorn": server_logger,
            "uvicorn.error": server_logger,
            "alembic": {"level": "WARNING"},
        },
    }
