"""Logs on standard output: a JSON object per line, or readable text on a terminal."""

import json
import logging
import os
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

request_context: ContextVar[dict[str, str]] = ContextVar("request_context")
"""Fields of the current request, for each of its log lines."""

POD_VARIABLES = ("POD_NAME", "POD_NAMESPACE", "NODE_NAME")
"""Set by Kubernetes' Downward API in k8s.yaml."""

RECORD_ATTRIBUTES = {*vars(logging.makeLogRecord({})), "message", "asctime", "color_message"}
"""The attributes that are not fields: those that every record has, and those that formatters add.

Uvicorn passes `color_message` in `extra`: its message with colors.
"""

EXCEPTION = "exception"
INDENTATION = "    "


class FieldsFormatter(logging.Formatter):
    """Collects the fields of a record: pod, request, and those of `extra`."""

    def __init__(self) -> None:
        super().__init__()
        self._pod_fields = {
            name.lower(): os.environ[name] for name in POD_VARIABLES if name in os.environ
        }

    def add_fields(self, line: dict[str, Any], record: logging.LogRecord) -> None:
        """Add the fields of a record to `line`.

        A field of `extra` gets the prefix `extra_` if its name is taken. Otherwise it could replace
        the level or the request id.
        """
        line.update(self._pod_fields)
        line.update(request_context.get({}))
        for name, value in record.__dict__.items():
            if name not in RECORD_ATTRIBUTES:
                is_taken = name in line or name == EXCEPTION
                line[f"extra_{name}" if is_taken else name] = value


class JsonFormatter(FieldsFormatter):
    """A record as a JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with the exception under `exception` if there is one."""
        line: dict[str, Any] = {
            # Without timespec a time with 0 microseconds would have another format.
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        self.add_fields(line, record)
        error = _exception(record)
        if error is not None:
            line[EXCEPTION] = {
                "type": type(error).__name__,
                "message": str(error),
                "stack": traceback.format_exception(error),
            }
        if record.stack_info:
            line["stack_info"] = record.stack_info
        return _encode_json(line)


class ConsoleFormatter(FieldsFormatter):
    """A record as readable text: level, message and fields. Tracebacks follow on lines below.

    Control characters are escaped and further lines are indented. Otherwise a path or the message
    of an exception could forge a line, or control the terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The text, of one line unless the message has more or there is a traceback."""
        fields: dict[str, Any] = {"level": record.levelname, "message": record.getMessage()}
        self.add_fields(fields, record)
        level, message = fields.pop("level"), fields.pop("message")
        words = [level, message.rstrip("\n")]
        for name, value in fields.items():
            words.append(f"{name}={_quote(str(value))}")
        text = " ".join(words)
        error = _exception(record)
        if error is not None:
            text += "\n" + "".join(traceback.format_exception(error)).rstrip("\n")
        if record.stack_info:
            text += "\n" + record.stack_info
        return f"\n{INDENTATION}".join(_escape(line) for line in text.split("\n"))


def _encode_json(line: dict[str, Any]) -> str:
    # It takes half the time of json.dumps(). With ensure_ascii a U+2028 cannot split the line.
    try:
        encoded = to_json(line, ensure_ascii=True, inf_nan_mode="strings", fallback=str)
    except PydanticSerializationError:
        # json.dumps() can escape a lone surrogate, but neither bytes nor circular references.
        plain = {
            name: value if name == EXCEPTION or isinstance(value, str | int | float) else str(value)
            for name, value in line.items()
        }
        return json.dumps(plain)
    return encoded.decode()


def _quote(value: str) -> str:
    """The value of a field, in quotes if it could otherwise look like several fields."""
    if value and not any(character in value for character in ' "=\n'):
        return value
    return json.dumps(value, ensure_ascii=False)


def _escape(text: str) -> str:
    """Replace characters that are not printable, such as ESC or U+202E, with escape sequences."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


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
