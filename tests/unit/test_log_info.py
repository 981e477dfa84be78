"""Access log lines are written without a record, and are the same as with one."""

import asyncio
import io
import json
import logging
import weakref
from collections.abc import Callable
from select import PIPE_BUF
from typing import Any

import pytest

from fastapi_k8s.observability.logs import (
    ConsoleFormatter,
    JsonFormatter,
    StdoutHandler,
    log_info,
    request_context,
)

FIELDS = {"method": "GET", "path": "/things", "status": 200, "duration_ms": 1.5, "client": None}


class Output(io.StringIO):
    """A stream that keeps what each call has written. It can fail like a closed pipe."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []
        self.is_broken = False

    def write(self, text: str) -> int:
        if self.is_broken:
            raise BrokenPipeError
        self.writes.append(text)
        return super().write(text)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


class Records(logging.Handler):
    """A handler that keeps the records it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def output() -> Output:
    return Output()


@pytest.fixture
def logger() -> logging.Logger:
    """A logger below a separate root logger, to which pytest adds no handlers."""
    root = logging.RootLogger(logging.INFO)
    return logging.Manager(root).getLogger("access")


@pytest.fixture
def handler(logger: logging.Logger, output: Output) -> StdoutHandler:
    """The only handler, as `logging_config()` adds it to the root logger."""
    assert logger.parent is not None
    handler = StdoutHandler(output)
    handler.setFormatter(JsonFormatter())
    logger.parent.addHandler(handler)
    return handler


@pytest.mark.parametrize(
    "path",
    [
        "/things",
        '/a\n{"level":"ERROR"}',
        "/\x1b[2J\x9b\r",
        "/é/日本\u2028\u202e",
        "/\ud800",
        '/"\\',
    ],
)
async def test_a_line_is_the_same_with_and_without_a_record(
    handler: StdoutHandler,
    logger: logging.Logger,
    output: Output,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    monkeypatch.setenv("POD_NAME", "api-1")
    handler.setFormatter(JsonFormatter())
    fields = {**FIELDS, "path": path}
    token = request_context.set({"request_id": "abc", "traceparent": "00-1-2-01"})
    try:
        log_info(logger, "request", fields)
        logger.info("request", extra=fields)
    finally:
        request_context.reset(token)
    without_record, with_record = output.getvalue().splitlines()
    assert without_record.isascii()
    # Only the time differs.
    assert without_record.partition(',"level"')[2] == with_record.partition(',"level"')[2]
    line, expected = output.lines()
    assert list(line) == list(expected)
    assert line["path"] == path
    assert (line["pod_name"], line["request_id"]) == ("api-1", "abc")


async def test_the_lines_of_one_turn_of_the_event_loop_are_written_together(
    handler: StdoutHandler, logger: logging.Logger, output: Output
) -> None:
    for number in range(3):
        log_info(logger, "request", {"number": number})
    assert output.writes == []
    await asyncio.sleep(0)
    assert len(output.writes) == 1
    log_info(logger, "request", {"number": 3})
    await asyncio.sleep(0)
    assert [line["number"] for line in output.lines()] == [0, 1, 2, 3]
    assert len(output.writes) == 2


async def test_a_record_is_written_after_the_lines_before_it(
    handler: StdoutHandler, logger: logging.Logger, output: Output
) -> None:
    log_info(logger, "first", {})
    logger.error("second")
    log_info(logger, "third", {})
    await asyncio.sleep(0)
    assert [line["message"] for line in output.lines()] == ["first", "second", "third"]


async def test_no_write_of_several_lines_is_larger_than_what_a_pipe_keeps_together(
    handler: StdoutHandler, logger: logging.Logger, output: Output
) -> None:
    for number in range(20):
        log_info(logger, "request", {"number": number, "path": "/" + "a" * 1000})
    await asyncio.sleep(0)
    assert [line["number"] for line in output.lines()] == list(range(20))
    assert all(len(text) <= PIPE_BUF for text in output.writes)
    assert len(output.writes) < 20


async def test_lines_are_written_when_logging_shuts_down(
    handler: StdoutHandler, logger: logging.Logger, output: Output
) -> None:
    log_info(logger, "request", FIELDS)
    logging.shutdown([weakref.ref(handler)])
    assert [line["path"] for line in output.lines()] == ["/things"]


async def test_a_stream_that_nobody_reads_does_not_fail_the_request(
    handler: StdoutHandler,
    logger: logging.Logger,
    output: Output,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.is_broken = True
    log_info(logger, "request", FIELDS)
    handler.flush()
    assert "BrokenPipeError" in capsys.readouterr().err
    output.is_broken = False
    log_info(logger, "request", FIELDS)
    handler.flush()
    assert len(output.lines()) == 1


async def test_a_level_above_info_turns_the_lines_off(
    handler: StdoutHandler, logger: logging.Logger, output: Output
) -> None:
    logger.setLevel(logging.WARNING)
    log_info(logger, "request", FIELDS)
    handler.flush()
    assert output.writes == []


async def test_a_terminal_gets_readable_text(
    handler: StdoutHandler, logger: logging.Logger, output: Output
) -> None:
    handler.setFormatter(ConsoleFormatter())
    log_info(logger, "request", {"path": "/\x1b[2J"})
    assert output.getvalue() == "INFO request path=/\\x1b[2J\n"


@pytest.mark.parametrize(
    "add",
    [
        lambda records, logger, _: logger.parent.addHandler(records),
        lambda records, logger, _: logger.addHandler(records),
        lambda records, logger, _: logger.addFilter(records.handle),
        lambda records, _, handler: handler.addFilter(records.handle),
    ],
    ids=["handler-of-the-parent", "handler", "filter", "filter-of-the-handler"],
)
async def test_handlers_and_filters_that_are_added_get_a_record(
    handler: StdoutHandler,
    logger: logging.Logger,
    output: Output,
    add: Callable[[Records, logging.Logger, StdoutHandler], None],
) -> None:
    records = Records()
    add(records, logger, handler)
    log_info(logger, "request", FIELDS)
    [record] = records.records
    assert (record.name, record.getMessage(), record.__dict__["path"]) == (
        logger.name,
        "request",
        "/things",
    )
    assert record.filename == "test_log_info.py"
    assert [line["path"] for line in output.lines()] == ["/things"]


async def test_a_logger_that_does_not_propagate_uses_only_its_own_handler(
    handler: StdoutHandler, logger: logging.Logger, output: Output
) -> None:
    records = Records()
    logger.addHandler(records)
    logger.propagate = False
    log_info(logger, "request", FIELDS)
    assert len(records.records) == 1
    handler.flush()
    assert output.writes == []


async def test_the_level_of_the_handler_is_respected(
    handler: StdoutHandler, logger: logging.Logger, output: Output
) -> None:
    handler.setLevel(logging.ERROR)
    log_info(logger, "request", FIELDS)
    handler.flush()
    assert output.writes == []


async def test_a_record_factory_can_add_fields(
    handler: StdoutHandler, logger: logging.Logger, output: Output
) -> None:
    create_record = logging.getLogRecordFactory()

    def create_record_with_field(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = create_record(*arguments, **options)
        record.release = "1.2"
        return record

    logging.setLogRecordFactory(create_record_with_field)
    try:
        log_info(logger, "request", FIELDS)
    finally:
        logging.setLogRecordFactory(create_record)
    assert [line["release"] for line in output.lines()] == ["1.2"]
