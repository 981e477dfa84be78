"""Traces of Gunicorn's workers, with SQL and Redis, and with collectors that fail."""

import json
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from opentelemetry.trace import SpanKind

from tests.conftest import MakeSettings
from tests.otlp_receiver import OtlpReceiver, ReceivedSpan, running_receiver
from tools.dev.servers import free_port, wait_until

from .test_server import APP_WITH_TEST_ROUTES, Gunicorn, process_environment, running_gunicorn

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"
SERVER = SpanKind.SERVER.value + 1
CLIENT = SpanKind.CLIENT.value + 1
"""The numbers of the kinds in the protocol begin at 1."""

SECRET = "hidden-value"

EXIT_SECONDS = 8
"""A stop without traces takes 1.6 s, and the last spans have 2 s more. A busy machine adds some."""


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with running_receiver() as receiver:
        yield receiver


@pytest.fixture
def environment(make_settings: MakeSettings, receiver: OtlpReceiver) -> dict[str, str]:
    """The variables of a Gunicorn process that sends traces without a delay."""
    settings = make_settings()
    return process_environment(
        DATABASE_URL=settings.database_url.get_secret_value(),
        REDIS_URL=settings.redis_url.get_secret_value(),
        REDIS_TIMEOUT="5",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        OTEL_BSP_SCHEDULE_DELAY="50",
    )


def read_log(gunicorn: Gunicorn) -> list[dict[str, Any]]:
    """The log lines of a process that has exited."""
    assert gunicorn.stderr.read_text() == ""
    return [json.loads(line) for line in gunicorn.stdout.read_text().splitlines()]


def wait_for_spans(receiver: OtlpReceiver, number: int) -> None:
    """Wait until at least `number` spans were received. At the exit, they might not have the time.

    Gunicorn's workers send spans a few milliseconds after they have ended.
    """
    wait_until(lambda: len(receiver.spans()) >= number, 20, f"{number} spans")


def children_of(span: ReceivedSpan, receiver: OtlpReceiver) -> list[str]:
    """The names of the spans whose parent is `span`. All of them are clients' spans."""
    children = [child for child in receiver.spans() if child.parent_id == span.span_id]
    assert {(child.kind, child.trace_id) for child in children} == {(CLIENT, span.trace_id)}
    return [child.name for child in children]


async def test_a_trace_of_the_caller_has_spans_of_http_sql_and_redis(
    environment: dict[str, str], receiver: OtlpReceiver
) -> None:
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        headers = {"traceparent": TRACEPARENT}
        response = gunicorn.client.get(f"/values/{SECRET}", headers=headers)
        assert response.json() == SECRET
        gunicorn.client.put(f"/values/{SECRET}", headers=headers).raise_for_status()
        wait_for_spans(receiver, 9)
        assert gunicorn.stop() == 0
        lines = [line for line in read_log(gunicorn) if line["message"] == "request"]
    read, write = receiver.find("GET /values/{value}"), receiver.find("PUT /values/{value}")
    for span, line in zip((read, write), lines, strict=True):
        assert (span.kind, span.trace_id, span.parent_id) == (SERVER, TRACE_ID, PARENT_ID)
        assert (line["trace_id"], line["span_id"]) == (TRACE_ID, span.span_id)
    assert children_of(read, receiver) == ["SET", "SELECT", "EVAL"]
    assert children_of(write, receiver) == ["BEGIN;", "SELECT", "COMMIT;", "DEL"]
    statement = next(span for span in receiver.spans() if span.name == "SELECT")
    assert statement.attributes["db.query.text"] == "SELECT $1::text"
    assert statement.attributes["db.system.name"] == "postgresql"
    # Only the paths of the two requests contain the value, and no parameter or key does.
    texts = [text for span in receiver.spans() for text in span.attributes.values()]
    assert [text for text in texts if SECRET in text] == [f"/values/{SECRET}"] * 2


async def test_the_span_of_a_statement_that_fails_has_the_type_and_not_the_message(
    environment: dict[str, str], receiver: OtlpReceiver
) -> None:
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        assert SECRET in gunicorn.get(f"/invalid/{SECRET}")
        wait_for_spans(receiver, 2)
    statement = receiver.find("SELECT")
    assert statement.is_error
    assert statement.attributes["error.type"] == "InvalidTextRepresentationError"
    # Once in the path of the request.
    assert b"".join(receiver.bodies).count(SECRET.encode()) == 1


async def test_invalid_headers_of_a_trace_are_not_logged(environment: dict[str, str]) -> None:
    headers = {
        "traceparent": TRACEPARENT,
        "tracestate": f"a={SECRET},a={SECRET},A={SECRET}",
        "baggage": f"session={SECRET} with space,{SECRET},a=" + 5000 * "b",
    }
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        gunicorn.client.get("/process", headers=headers).raise_for_status()
        assert gunicorn.stop() == 0
        lines = read_log(gunicorn)
    assert {line["level"] for line in lines} == {"INFO"}
    assert SECRET not in json.dumps(lines)


async def test_the_statements_of_probes_make_no_spans(
    environment: dict[str, str], receiver: OtlpReceiver
) -> None:
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        report = gunicorn.get("/ready")
        assert report["checks"] == {"database": "ok", "cache": "ok"}
        gunicorn.get("/process")
        wait_for_spans(receiver, 1)
        assert gunicorn.stop() == 0
    assert receiver.span_names() == ["GET /process"]


async def test_each_worker_sends_its_spans(
    environment: dict[str, str], receiver: OtlpReceiver
) -> None:
    environment["WEB_CONCURRENCY"] = "2"
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        gunicorn.wait_for_workers(2)
        wait_for_spans(receiver, gunicorn.process_requests)
    instances = {span.resource["service.instance.id"] for span in receiver.spans()}
    assert len(instances) == 2


async def test_a_collector_that_does_not_respond_delays_no_request_and_hardly_the_exit(
    environment: dict[str, str], receiver: OtlpReceiver
) -> None:
    receiver.may_respond.clear()
    environment["OTEL_BSP_MAX_QUEUE_SIZE"] = environment["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"] = "10"
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        gunicorn.get("/process")
        wait_until(lambda: bool(receiver.requests), 20, "the first export")
        for _ in range(50):  # more than fit into the queue
            assert gunicorn.client.get("/process", timeout=5).status_code == 200
        begin = monotonic()
        assert gunicorn.stop() == 0
        assert monotonic() - begin < EXIT_SECONDS
        lines = read_log(gunicorn)
    dropped = [line for line in lines if line["message"] == "Queue full, dropping Span."]
    assert 1 <= len(dropped) <= 2  # one each 20 s
    assert receiver.bodies == []


@pytest.mark.parametrize("failure", ["refused connections", "status 400"])
async def test_a_collector_that_fails_is_logged_at_most_once_a_second_without_a_traceback(
    environment: dict[str, str], receiver: OtlpReceiver, failure: str
) -> None:
    if failure == "status 400":
        receiver.status = 400
        message = "Failed to export spans batch code: 400, reason: Bad Request"
    else:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
        message = "Transient error"
    environment["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"] = "1"
    begin = monotonic()
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        for _ in range(100):
            assert gunicorn.client.get("/process", timeout=5).status_code == 200
        assert gunicorn.stop() == 0
        seconds = monotonic() - begin
        lines = read_log(gunicorn)
    failures = [line for line in lines if line["level"] in {"WARNING", "ERROR"}]
    messages = {line["message"] for line in failures if line["message"].startswith(message)}
    assert messages
    assert all("exception" not in line for line in failures)
    # Two different messages, each once a second.
    assert len(failures) <= 2 * (seconds + 1)
