"""How a line of the log looks."""

import json
import logging
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from fastapi_k8s.observability.logs import JsonFormatter, request_context
from tests.conftest import LogLines

logger = logging.getLogger("test")
SCRIPT = """
import logging.config
from fastapi_k8s.observability.logs import logging_config
logging.config.dictConfig(logging_config())
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("test").exception("it failed", extra={"fields": {"thing": 7}})
"""


def test_a_line_has_its_time_level_logger_message_and_fields(log_lines: LogLines) -> None:
    began = datetime.now(UTC)
    logger.warning("%s happened", "it", extra={"fields": {"thing": 7}})
    [line] = log_lines()
    assert began <= datetime.fromisoformat(line.pop("time")) <= datetime.now(UTC)
    assert line == {"level": "WARNING", "logger": "test", "message": "it happened", "thing": 7}


def test_a_line_carries_what_is_known_of_the_request(log_lines: LogLines) -> None:
    token = request_context.set({"request_id": "abc"})
    logger.info("inside")
    request_context.reset(token)
    logger.info("outside")
    inside, outside = log_lines()
    assert inside["request_id"] == "abc"
    assert "request_id" not in outside


def test_a_line_carries_the_pod_that_kubernetes_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NODE_NAME", raising=False)
    monkeypatch.setenv("POD_NAME", "api-1")
    monkeypatch.setenv("POD_NAMESPACE", "shop")
    line = json.loads(JsonFormatter().format(logging.makeLogRecord({"msg": "it"})))
    assert (line["pod_name"], line["pod_namespace"]) == ("api-1", "shop")
    assert "node_name" not in line


def test_a_message_of_several_lines_stays_one_line(log_lines: LogLines) -> None:
    logger.info('a\nb\r"c"\u2028')
    assert [line["message"] for line in log_lines()] == ['a\nb\r"c"\u2028']


def test_a_field_that_json_does_not_know_is_written_as_text(log_lines: LogLines) -> None:
    logger.info("it", extra={"fields": {"when": datetime(2026, 1, 2, tzinfo=UTC)}})
    assert log_lines()[0]["when"] == "2026-01-02 00:00:00+00:00"


def test_an_exception_comes_with_its_stack_and_its_cause(log_lines: LogLines) -> None:
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


def test_a_line_without_an_exception_at_hand_can_still_ask_for_one(log_lines: LogLines) -> None:
    logger.error("it", exc_info=True)  # noqa: LOG014 (that is the test)
    assert "exception" not in log_lines()[0]


def test_a_terminal_gets_text() -> None:
    terminal, its_end = pty.openpty()
    subprocess.run([sys.executable, "-c", SCRIPT], stdout=its_end, check=True)
    os.close(its_end)
    first, *stack = os.read(terminal, 65536).decode().splitlines()
    os.close(terminal)
    assert first == "ERROR it failed thing=7"
    assert "ZeroDivisionError: division by zero" in stack


def test_a_pipe_gets_one_line_of_json() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True)
    [line] = done.stdout.splitlines()
    assert line.startswith(b'{"time": ')
    assert done.stderr == b""
