"""What a log line contains, and that terminals get text and pipes get JSON."""

import io
import json
import logging
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fastapi_k8s.observability.logs import (
    REFUSED_WEBSOCKET,
    ConsoleFormatter,
    JsonFormatter,
    WebSocketFilter,
    logging_config,
    request_context,
)
from tests.conftest import LogLines

logger = logging.getLogger("test")
CIRCULAR: list[Any] = []
CIRCULAR.append(CIRCULAR)
LOG_AN_EXCEPTION = """
import logging.config
from fastapi_k8s.observability.logs import logging_config
logging.config.dictConfig(logging_config())
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("test").exception("it failed", extra={"thing": 7})
"""


class FakeStdout(io.StringIO):
    """A standard output that may be a terminal. It counts how often the code checks that."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal
        self.checks = 0

    def isatty(self) -> bool:
        self.checks += 1
        return self.is_terminal


def test_a_line_has_time_level_logger_message_and_fields(log_lines: LogLines) -> None:
    started_at = datetime.now(UTC)
    logger.warning("%s happened", "it", extra={"thing": 7})
    [line] = log_lines()
    assert started_at <= datetime.fromisoformat(line.pop("time")) <= datetime.now(UTC)
    assert line == {"level": "WARNING", "logger": "test", "message": "it happened", "thing": 7}


def test_a_line_has_the_request_context(log_lines: LogLines) -> None:
    token = request_context.set({"request_id": "abc"})
    logger.info("inside")
    request_context.reset(token)
    logger.info("outside")
    inside, outside = log_lines()
    assert inside["request_id"] == "abc"
    assert "request_id" not in outside


def test_a_line_has_the_name_of_the_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NODE_NAME", raising=False)
    monkeypatch.setenv("POD_NAME", "api-1")
    monkeypatch.setenv("POD_NAMESPACE", "shop")
    record = logging.makeLogRecord({"msg": "it"})
    line = json.loads(JsonFormatter().format(record))
    assert (line["pod_name"], line["pod_namespace"]) == ("api-1", "shop")
    assert "node_name" not in line


def test_a_message_with_line_breaks_stays_on_one_line(log_lines: LogLines) -> None:
    logger.info('a\nb\r"c"\u2028')
    assert [line["message"] for line in log_lines()] == ['a\nb\r"c"\u2028']


def test_a_field_that_json_cannot_represent_is_written_as_text(log_lines: LogLines) -> None:
    when = datetime(2026, 1, 2, tzinfo=UTC)
    logger.info("it", extra={"when": when, "path": Path("/a"), "ratio": float("nan")})
    [line] = log_lines()
    assert (line["when"], line["path"], line["ratio"]) == ("2026-01-02T00:00:00Z", "/a", "NaN")


@pytest.mark.parametrize(
    "value", ["\ud800", b"\xff", CIRCULAR], ids=["surrogate", "bytes", "cycle"]
)
def test_a_field_that_cannot_be_encoded_does_not_lose_the_line(
    log_lines: LogLines, value: object
) -> None:
    logger.info("it", extra={"value": value, "thing": 7, "ratio": 0.5})
    [line] = log_lines()
    assert (line["message"], line["value"], line["thing"]) == ("it", str(value), 7)
    assert line["ratio"] == 0.5


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_a_number_that_json_does_not_have_is_text_in_a_line_with_bytes(number: str) -> None:
    record = logging.makeLogRecord({"ratio": float(number), "raw": b"\xff"})
    line = json.loads(JsonFormatter().format(record), parse_constant=pytest.fail)
    assert line["ratio"] == number


def test_an_exception_with_a_lone_surrogate_is_formatted_like_any_other() -> None:
    """It is not logged here: pytest-xdist cannot send the captured log of this test."""
    error = ValueError("\ud800")
    record = logging.makeLogRecord({"msg": "it", "exc_info": (ValueError, error, None), "thing": 7})
    line = json.loads(JsonFormatter().format(record))
    assert (line["exception"]["type"], line["exception"]["message"]) == ("ValueError", "\ud800")
    assert line["thing"] == 7


def test_a_field_cannot_replace_another_value_of_the_line(log_lines: LogLines) -> None:
    token = request_context.set({"request_id": "abc"})
    try:
        fields = {"level": 3, "time": 0, "logger": "x", "exception": "x", "request_id": "x"}
        logger.error("it", extra=fields, exc_info=ValueError("the error"))
    finally:
        request_context.reset(token)
    [line] = log_lines()
    assert (line["level"], line["logger"], line["request_id"]) == ("ERROR", "test", "abc")
    assert datetime.fromisoformat(line["time"])
    assert line["exception"]["message"] == "the error"
    for name, value in fields.items():
        assert line[f"extra_{name}"] == value


def test_attributes_that_are_no_fields_are_not_in_the_line(log_lines: LogLines) -> None:
    """Uvicorn passes `color_message`. Other formatters set `message` and `asctime`."""
    logger.info("it", extra={"color_message": "\x1b[1mit"})
    assert log_lines()[0].keys() == {"time", "level", "logger", "message"}
    record = logging.makeLogRecord({"msg": "it", "message": "it", "asctime": "now"})
    line = json.loads(JsonFormatter().format(record))
    assert line.keys() == {"time", "level", "logger", "message"}


def test_stack_info_is_logged(log_lines: LogLines) -> None:
    logger.info("it", stack_info=True)
    assert "test_stack_info_is_logged" in log_lines()[0]["stack_info"]


def test_the_time_always_has_microseconds() -> None:
    record = logging.makeLogRecord({"msg": "it", "created": 1_767_312_000.0})
    line = json.loads(JsonFormatter().format(record))
    assert line["time"] == "2026-01-02T00:00:00.000000+00:00"


def test_an_exception_is_logged_with_its_stack_and_its_cause(log_lines: LogLines) -> None:
    try:
        try:
            _ = os.environ["THE_CAUSE"]
        except KeyError as cause:
            raise ValueError("the effect") from cause
    except ValueError:
        logger.exception("it failed")
    [line] = log_lines()
    exception = line["exception"]
    assert (exception["type"], exception["message"]) == ("ValueError", "the effect")
    stack = "".join(exception["stack"])
    assert "KeyError: 'THE_CAUSE'" in stack
    assert "ValueError: the effect" in stack
    assert __file__ in stack


def test_exc_info_outside_of_an_exception_handler_adds_no_exception(log_lines: LogLines) -> None:
    logger.error("it", exc_info=True)  # noqa: LOG014 (the subject of the test)
    assert "exception" not in log_lines()[0]


@pytest.mark.parametrize(
    ("is_terminal", "formatter_class"),
    [(True, ConsoleFormatter), (False, JsonFormatter)],
    ids=["terminal", "pipe"],
)
def test_the_formatter_is_chosen_once(
    monkeypatch: pytest.MonkeyPatch,
    is_terminal: bool,
    formatter_class: type[logging.Formatter],
) -> None:
    stdout = FakeStdout(is_terminal)
    monkeypatch.setattr(sys, "stdout", stdout)
    create_formatter = logging_config()["formatters"]["default"]["()"]
    formatter = create_formatter()
    assert type(formatter) is formatter_class
    for _ in range(3):
        formatter.format(logging.makeLogRecord({"msg": "it"}))
    assert stdout.checks == 1


def format_for_console(message: str, **attributes: object) -> str:
    record = logging.makeLogRecord({"msg": message, "levelname": "INFO", **attributes})
    return ConsoleFormatter().format(record)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("/a\nERROR forged", '"/a\\nERROR forged"'),
        ("/\x1b[2J", "/\\x1b[2J"),
        ("/\x9b2J", "/\\x9b2J"),
        ("/\r", "/\\r"),
        ("/\u2028\u202e", "/\\u2028\\u202e"),
        ("/a status=500", '"/a status=500"'),
        ('"', '"\\""'),
        ("", '""'),
        ("/é/日本", "/é/日本"),
        (404, "404"),
    ],
)
def test_text_for_a_terminal_has_no_control_characters_and_no_forged_field(
    value: object, text: str
) -> None:
    assert format_for_console("request", path=value) == f"INFO request path={text}"
    assert format_for_console("\x1b]0;title\x07") == "INFO \\x1b]0;title\\x07"


def test_further_lines_of_text_are_indented_so_that_they_forge_no_line() -> None:
    assert format_for_console("a\nERROR b\n", thing=7) == "INFO a\n    ERROR b thing=7"
    error = ValueError("c\nERROR d\x1b")
    text = format_for_console("it", exc_info=(ValueError, error, None), stack_info="the stack")
    first_line, *further_lines = text.split("\n")
    assert first_line == "INFO it"
    assert further_lines == ["    ValueError: c", "    ERROR d\\x1b", "    the stack"]


def test_the_lines_of_uvicorn_about_websockets_have_no_query_and_are_no_errors() -> None:
    program = LOG_AN_EXCEPTION + (
        "message = '%s - \"WebSocket %s\" %d'\n"
        "logger = logging.getLogger('uvicorn.error')\n"
        "logger.info(message, '1.2.3.4:5', '/ws?token=hidden', 403)\n"
        "logger.error('ASGI callable returned without completing handshake.')"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    line = json.loads(process.stdout.splitlines()[-1])
    assert line["message"] == '1.2.3.4:5 - "WebSocket /ws" 403'


def test_the_filter_removes_queries_and_discards_the_error_of_a_refused_websocket() -> None:
    """The other tests of the filter run in a separate process, without coverage."""
    other = logging.makeLogRecord({"msg": "%(path)s", "args": {"path": "/a?b"}})
    line = logging.makeLogRecord({"msg": "%s %d", "args": ("/a?b", 403)})
    refused = logging.makeLogRecord({"msg": REFUSED_WEBSOCKET})
    assert [WebSocketFilter().filter(record) for record in (other, line, refused)] == [1, 1, 0]
    assert (other.getMessage(), line.getMessage()) == ("/a?b", "/a 403")


def test_a_terminal_gets_text() -> None:
    terminal, stdout = pty.openpty()
    subprocess.run([sys.executable, "-c", LOG_AN_EXCEPTION], stdout=stdout, check=True)
    os.close(stdout)
    first_line, *stack = os.read(terminal, 65536).decode().splitlines()
    os.close(terminal)
    assert first_line == "ERROR it failed thing=7"
    assert "    ZeroDivisionError: division by zero" in stack


def test_a_pipe_gets_one_line_of_json() -> None:
    command = [sys.executable, "-c", LOG_AN_EXCEPTION]
    process = subprocess.run(command, capture_output=True, check=True)
    [line] = process.stdout.splitlines()
    assert line.startswith(b'{"time":')
    assert process.stderr == b""
