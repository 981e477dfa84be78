"""Logs on standard output: a JSON object per line, or readable text on a terminal."""

import asyncio
import json
import logging
import os
import sys
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from math import isfinite
from select import PIPE_BUF
from time import time
from typing import Any, TextIO

from pydantic_core import PydanticSerializationError, to_json

request_context: ContextVar[dict[str, str]] = ContextVar("request_context")
"""Fields of the current request, for each of its log lines."""

POD_VARIABLES = ("POD_NAME", "POD_NAMESPACE", "NODE_NAME")
"""Set by Kubernetes' Downward API in k8s.yaml."""

RECORD_ATTRIBUTES = {*vars(logging.makeLogRecord({})), "message", "asctime", "color_message"}
"""The attributes that are not fields: those that every record has, and those that formatters add.

Uvicorn passes `color_message` in `extra`: its message with colors.
"""

REFUSED_WEBSOCKET = "ASGI callable returned without completing handshake."
"""Uvicorn logs it after a response that refuses a WebSocket.

Uvicorn also logs it for a route that neither accepts nor closes. Such a route is visible by the
line `connection rejected (500 Internal Server Error)`.
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
        line = _first_fields(record.created, record.levelname, record.name, record.getMessage())
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

    def format_info(self, logger_name: str, message: str, fields: Mapping[str, Any]) -> str:
        """The line of `logger.info(message, extra=fields)`, without a record.

        No field may have the name of another field of the line.
        """
        line = _first_fields(time(), "INFO", logger_name, message)
        line.update(self._pod_fields)
        line.update(request_context.get({}))
        line.update(fields)
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


class WebSocketFilter(logging.Filter):
    """Removes the query of a WebSocket, which may contain secrets, from Uvicorn's log lines.

    It discards the error that Uvicorn 0.54 logs after each response that refuses a WebSocket.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log the record. Text in its arguments ends before a `?`: a query."""
        if record.msg == REFUSED_WEBSOCKET:
            return False
        if isinstance(record.args, tuple):
            record.args = tuple(
                argument.partition("?")[0] if isinstance(argument, str) else argument
                for argument in record.args
            )
        return True


class StdoutHandler(logging.StreamHandler[TextIO]):
    """Writes records at once, and the lines of one turn of the event loop together.

    Each write to a pipe wakes up its reader, which takes longer than to format the line.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._pending = ""

    def write_soon(self, line: str) -> None:
        """Write a line of ASCII characters in the next turn of the event loop, or earlier.

        Raises RuntimeError if no event loop is running in this thread.
        """
        self.acquire()
        try:
            # A larger write is not atomic: lines of several workers could mix.
            if len(self._pending) + len(line) >= PIPE_BUF:
                self._write_pending()
            if not self._pending:
                asyncio.get_running_loop().call_soon(self._write_pending)
            self._pending += line + self.terminator
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, after the lines that came before it."""
        self._write_pending()
        super().emit(record)

    def flush(self) -> None:
        """Write what is pending. `logging` calls this at the exit of the process, too."""
        self._write_pending()
        super().flush()

    def _write_pending(self) -> None:
        self.acquire()
        try:
            text, self._pending = self._pending, ""
            if text:
                self.stream.write(text)
                super().flush()
        except Exception:  # noqa: BLE001 (logging does the same: a request must not fail)
            self.handleError(logging.makeLogRecord({"msg": text}))
        finally:
            self.release()


def log_info(logger: logging.Logger, message: str, fields: Mapping[str, Any]) -> None:
    """Log like `logger.info(message, extra=fields)`, in a fraction of the CPU time.

    Call it in the event loop. If nothing but `StdoutHandler` would get the record, its line is
    written without a record. A field must not have the name of another one
    (docs/decisions/0024-cpu-time-per-request.md).
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    handler = _only_handler(logger)
    if type(handler) is StdoutHandler and type(handler.formatter) is JsonFormatter:
        handler.write_soon(handler.formatter.format_info(logger.name, message, fields))
    else:
        logger.info(message, extra=fields, stacklevel=2)


def _only_handler(logger: logging.Logger) -> logging.Handler | None:
    """The handler of the records of `logger`, or None if anything else may depend on a record."""
    handlers: list[logging.Handler] = []
    ancestor: logging.Logger | None = logger
    while ancestor is not None:
        handlers += ancestor.handlers
        ancestor = ancestor.parent if ancestor.propagate else None
    if len(handlers) != 1 or handlers[0].filters or handlers[0].level > logging.INFO:
        return None
    if logger.filters or logging.getLogRecordFactory() is not logging.LogRecord:
        return None
    return handlers[0]


def _first_fields(created: float, level: str, logger_name: str, message: str) -> dict[str, Any]:
    """The fields with which each line begins. `created` is in seconds since the epoch."""
    return {
        # Without timespec a time with 0 microseconds would have another format.
        "time": datetime.fromtimestamp(created, UTC).isoformat(timespec="microseconds"),
        "level": level,
        "logger": logger_name,
        "message": message,
    }


def _encode_json(line: dict[str, Any]) -> str:
    # It takes half the time of json.dumps(). With ensure_ascii a U+2028 cannot split the line.
    try:
        encoded = to_json(line, ensure_ascii=True, inf_nan_mode="strings", fallback=str)
    except PydanticSerializationError:
        # json.dumps() can escape a lone surrogate, but neither bytes nor circular references. It
        # would write NaN and Infinity, which are not JSON.
        plain = {
            name: value if name == EXCEPTION or _is_json(value) else str(value)
            for name, value in line.items()
        }
        return json.dumps(plain)
    return encoded.decode()


def _is_json(value: object) -> bool:
    """Whether a value is a string or a number that JSON can represent."""
    if isinstance(value, float):
        return isfinite(value)
    return isinstance(value, str | int)


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
        "filters": {"websocket": {"()": WebSocketFilter}},
        "handlers": {
            "stdout": {
                "()": StdoutHandler,
                "formatter": "default",
                "stream": "ext://sys.stdout",
            }
        },
        "root": {"level": "INFO", "handlers": ["stdout"]},
        "loggers": {
            "gunicorn.error": server_logger,
            "uvicorn": server_logger,
            "uvicorn.error": {**server_logger, "filters": ["websocket"]},
            "alembic": {"level": "WARNING"},
            # They warn about each invalid header of a client, with its text.
            "opentelemetry.baggage.propagation": {"level": "ERROR"},
            "opentelemetry.trace.span": {"level": "ERROR"},
        },
    }
