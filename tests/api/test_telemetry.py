"""FastAPI's OpenTelemetry: nothing is imported while it is off, and which spans it makes if on."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fastapi_k8s import NAME, main, remove_unusable_propagators
from fastapi_k8s.main import create_app
from fastapi_k8s.observability import telemetry, tracing
from fastapi_k8s.observability.telemetry import TELEMETRY_OFF, load_telemetry
from tests.conftest import LogLines, MakeSettings, Serve
from tests.otlp_receiver import OtlpReceiver, running_receiver

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"

ServeTraced: TypeAlias = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

PRINT_TELEMETRY_MODULES = """
import sys
import fastapi_k8s.server
from fastapi_k8s.main import create_app_from_environment
create_app_from_environment()
# redis-py imports opentelemetry.sdk.metrics itself if the package is installed.
packages = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "opentelemetry.instrumentation",
            "requests", "google.protobuf", "wrapt")
print([name for name in sys.modules if name.startswith(packages)])
"""


class Provider(trace.NoOpTracerProvider):
    """A provider that counts how often somebody looks for it."""

    lookups = 0

    def find(self) -> trace.TracerProvider:
        self.lookups += 1
        return self


def run_python(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    database_url = "postgresql://user:hidden@127.0.0.1:1/name"
    environment = {"PYTHONPATH": "src", "DATABASE_URL": database_url, **variables}
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpReceiver]:
    """A receiver, and the variable that turns telemetry on.

    The last spans have more time than in production, because the machine may be busy.
    """
    monkeypatch.setattr(tracing, "FLUSH_SECONDS", 30)
    with running_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        yield receiver


@pytest.fixture
def serve_traced(serve: Serve, make_settings: MakeSettings, receiver: OtlpReceiver) -> ServeTraced:
    """A function that serves the application with traces. At its end, all spans were received."""

    @asynccontextmanager
    async def serve_with_telemetry(**options: Any) -> AsyncIterator[httpx.AsyncClient]:
        app = create_app(make_settings(), load_telemetry("1.2.3"))

        @app.get("/fail")
        async def fail() -> None:
            raise RuntimeError("a test")

        async with serve(app, **options) as client:
            yield client

    return serve_with_telemetry


@pytest.mark.parametrize(
    "variables", [{}, {"FASTAPI_OTEL_AUTO_CONFIGURE": "true"}], ids=["unset", "FastAPI's variable"]
)
def test_while_telemetry_is_off_its_packages_are_not_imported(variables: dict[str, str]) -> None:
    result = run_python(PRINT_TELEMETRY_MODULES, **variables)
    assert (result.returncode, result.stdout, result.stderr) == (0, "[]\n", "")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ],
)
def test_variables_of_opentelemetry_can_turn_telemetry_off(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert load_telemetry("1.2.3") is TELEMETRY_OFF


async def test_while_telemetry_is_off_no_request_looks_for_a_provider(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_telemetry("1.2.3") is TELEMETRY_OFF
    provider = Provider()
    monkeypatch.setattr(trace, "get_tracer_provider", provider.find)
    transport = httpx.ASGITransport(create_app(make_settings()))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/health")).status_code == 200
    assert provider.lookups == 0


@pytest.mark.parametrize("missing_module", ["requests", OTLPSpanExporter.__module__])
def test_an_endpoint_without_the_extra_ends_the_start_with_a_sentence(
    receiver: OtlpReceiver,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    missing_module: str,
) -> None:
    monkeypatch.delitem(sys.modules, "fastapi_k8s.observability.tracing", raising=False)
    monkeypatch.setitem(sys.modules, missing_module, None)
    with pytest.raises(SystemExit, match="2"):
        load_telemetry("1.2.3")
    assert capsys.readouterr().err == (
        f"{NAME}: OTEL_EXPORTER_OTLP_ENDPOINT is set, but the extra `telemetry` is not installed:"
        " build the image with `make docker-build EXTRAS=telemetry`,"
        " or install it with `uv sync --extra telemetry`\n"
    )


def test_another_missing_module_is_not_reported_as_a_missing_extra(
    monkeypatch: pytest.MonkeyPatch, receiver: OtlpReceiver
) -> None:
    monkeypatch.delitem(sys.modules, "fastapi_k8s.observability.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "fastapi_k8s.error_log", None)
    with pytest.raises(ModuleNotFoundError, match="error_log"):
        load_telemetry("1.2.3")


@pytest.mark.parametrize(
    ("variable", "value", "expectation"),
    [
        ("ENDPOINT", "user:hidden@collector:4318", "a URL such as http://collector:4318"),
        ("TRACES_ENDPOINT", "http://collector:hidden", "a URL such as http://collector:4318"),
        ("PROTOCOL", "grpc", "http/protobuf"),
        ("TRACES_PROTOCOL", "grpc", "http/protobuf"),
        ("HEADERS", "Bearer hidden", "headers such as authorization=Bearer%20token"),
        ("HEADERS", 'a=b,c="hidden"', "headers such as authorization=Bearer%20token"),
        ("HEADERS", "a=hidden%0Ahidden", "headers such as authorization=Bearer%20token"),
        ("HEADERS", "a=hidden%E2%82%AC", "headers such as authorization=Bearer%20token"),
        ("ENDPOINT", "http://hidden:4318 ", "a URL such as http://collector:4318"),
    ],
)
@pytest.mark.usefixtures("receiver")
def test_an_invalid_variable_ends_the_start_with_code_2_and_without_its_value(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    expectation: str,
) -> None:
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{variable}", value)
    with pytest.raises(SystemExit, match="2"):
        load_telemetry("1.2.3")
    message = f"{NAME}: OTEL_EXPORTER_OTLP_{variable} must be {expectation}\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "256", "max_export_batch_size must be less than or equal to"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0", "schedule_delay_millis must be positive"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "-1", "OTEL_SPAN_EVENT_COUNT_LIMIT must be a non-negative"),
    ],
)
@pytest.mark.usefixtures("receiver")
def test_a_variable_that_the_sdk_does_not_accept_ends_the_start_with_code_2_and_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    reason: str,
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit, match="2"):
        load_telemetry("1.2.3")
    [line] = capsys.readouterr().err.splitlines()
    names = ", ".join(sorted(["OTEL_EXPORTER_OTLP_ENDPOINT", variable]))
    assert line.startswith(f"{NAME}: one of the variables {names} is invalid: {reason}")


async def test_a_queue_as_large_as_a_batch_is_accepted(
    serve_traced: ServeTraced, receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "512")
    async with serve_traced() as client:
        await client.get("/version")
    assert receiver.span_names() == ["GET /version"]


def test_a_propagator_that_is_not_installed_does_not_end_the_start_without_traces() -> None:
    """FastAPI's import of OpenTelemetry would raise an exception."""
    result = run_python(PRINT_TELEMETRY_MODULES, OTEL_PROPAGATORS="tracecontext,b3")
    assert (result.returncode, result.stdout, result.stderr) == (0, "[]\n", "")


@pytest.mark.parametrize(
    ("value", "error", "remains"),
    [
        ("tracecontext", "", True),
        ("b3", "Propagator b3 not found. It is either misspelled or not installed.", False),
    ],
)
def test_only_a_propagator_that_is_not_installed_is_an_error_and_removed(
    monkeypatch: pytest.MonkeyPatch, value: str, error: str, remains: bool
) -> None:
    monkeypatch.setenv("OTEL_PROPAGATORS", value)
    if error:
        monkeypatch.delitem(sys.modules, "opentelemetry.propagate")
    assert remove_unusable_propagators() == error
    assert ("OTEL_PROPAGATORS" in os.environ) is remains


@pytest.mark.usefixtures("receiver")
def test_a_propagator_that_is_not_installed_ends_the_start_with_traces(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(telemetry, "PROPAGATORS_ERROR", "Propagator b3 not found.")
    with pytest.raises(SystemExit, match="2"):
        load_telemetry("1.2.3")
    message = f"{NAME}: OTEL_PROPAGATORS is invalid: Propagator b3 not found.\n"
    assert capsys.readouterr().err == message


def test_the_entry_point_reads_the_variables(
    monkeypatch: pytest.MonkeyPatch, receiver: OtlpReceiver
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:hidden@127.0.0.1:1/name")
    app = main.create_app_from_environment()
    assert any("has_traces" in m.kwargs and m.kwargs["has_traces"] for m in app.user_middleware)


async def test_the_log_lines_of_a_trace_that_begins_here_have_its_ids(
    serve_traced: ServeTraced, receiver: OtlpReceiver, log_lines: LogLines
) -> None:
    async with serve_traced() as client:
        assert (await client.get("/fail")).status_code == 500
    lines = [line for line in log_lines() if "trace_id" in line]
    assert [line["message"] for line in lines] == ["unhandled error", "request"]
    span = receiver.find("GET /fail")
    assert {(line["trace_id"], line["span_id"]) for line in lines} == {
        (span.trace_id, span.span_id)
    }
    assert span.parent_id == ""


async def test_a_trace_of_the_caller_continues_here(
    serve_traced: ServeTraced, receiver: OtlpReceiver, log_lines: LogLines
) -> None:
    async with serve_traced() as client:
        await client.get("/version", headers={"traceparent": TRACEPARENT})
    span = receiver.find("GET /version")
    assert (span.trace_id, span.parent_id) == (TRACE_ID, PARENT_ID)
    (line,) = [line for line in log_lines() if line["message"] == "request"]
    assert (line["trace_id"], line["span_id"]) == (TRACE_ID, span.span_id)
    assert line["traceparent"] == TRACEPARENT


async def test_a_request_that_is_not_sampled_has_ids_in_its_log_line_and_no_span(
    serve_traced: ServeTraced,
    receiver: OtlpReceiver,
    log_lines: LogLines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    async with serve_traced() as client:
        await client.get("/version")
    (line,) = [line for line in log_lines() if line["message"] == "request"]
    assert re.fullmatch("[0-9a-f]{32}", line["trace_id"])
    assert re.fullmatch("[0-9a-f]{16}", line["span_id"])
    assert receiver.spans() == []


@pytest.mark.parametrize("root_path", ["", "/api"])
async def test_probes_and_scrapes_make_no_spans(
    serve_traced: ServeTraced, receiver: OtlpReceiver, root_path: str
) -> None:
    async with serve_traced(root_path=root_path) as client:
        for path in ("/health", "/ready", "/metrics"):
            await client.get(path, headers={"traceparent": TRACEPARENT})
        await client.get("/version")
        await client.get("/nothing")
    assert receiver.span_names() == [f"GET {root_path}/version", "GET"]


async def test_a_span_has_the_path_and_no_query(
    serve_traced: ServeTraced, receiver: OtlpReceiver
) -> None:
    async with serve_traced() as client:
        await client.get("/version?token=hidden")
    span = receiver.find("GET /version")
    assert span.attributes["url.path"] == "/version"
    assert span.attributes["http.response.status_code"] == "200"
    assert b"hidden" not in b"".join(receiver.bodies)


async def test_the_resource_names_service_version_and_pod(
    serve_traced: ServeTraced, receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POD_NAME", "api-1")
    monkeypatch.setenv("POD_NAMESPACE", "orders")
    async with serve_traced() as client:
        await client.get("/version")
    resource = receiver.find("GET /version").resource
    assert resource["service.name"] == NAME
    assert resource["service.version"] == "1.2.3"
    assert resource["k8s.pod.name"] == "api-1"
    assert resource["k8s.namespace.name"] == "orders"
    assert "k8s.node.name" not in resource


async def test_variables_of_opentelemetry_win_and_headers_are_sent(
    serve_traced: ServeTraced, receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "orders")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.version=9,team=a")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20token, team = a b,")
    async with serve_traced() as client:
        await client.get("/version")
    resource = receiver.find("GET /version").resource
    assert (resource["service.name"], resource["service.version"]) == ("orders", "9")
    assert resource["team"] == "a"
    (request,) = receiver.requests
    assert request["path"] == "/v1/traces"
    assert request["authorization"] == "Bearer token"
    assert request["content-type"] == "application/x-protobuf"


def test_each_message_of_the_exporter_is_logged_once_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([10.0, 10.1, 10.2, 11.1])
    monkeypatch.setattr(tracing, "monotonic", lambda: next(times))
    rate_limit = tracing.RateLimitFilter()
    messages = ["failed: %s", "failed: %s", "queue full", "failed: %s"]
    records = [logging.makeLogRecord({"msg": message}) for message in messages]
    assert [rate_limit.filter(record) for record in records] == [True, False, True, True]


def test_an_own_span_that_fails_has_the_type_of_the_error_and_not_its_message() -> None:
    """The message could be that of a statement in the span, which quotes values."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(tracing.RequestSpanProcessor(exporter))

    def fail() -> None:
        with provider.get_tracer(__name__).start_as_current_span("own") as own_span:
            own_span.add_event("step", {"number": 1})
            raise ValueError("secret")

    with pytest.raises(ValueError, match="secret"):
        fail()
    provider.shutdown()
    [span] = exporter.get_finished_spans()
    assert not span.status.is_ok
    assert [(event.name, dict(event.attributes or {})) for event in span.events] == [
        ("step", {"number": 1}),
        ("exception", {"exception.type": "ValueError"}),
    ]
    assert "secret" not in span.to_json()
