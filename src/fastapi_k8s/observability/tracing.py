"""Spans of requests, SQL and Redis, sent by OTLP. Needs the packages of the extra `telemetry`."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from threading import Thread
from time import monotonic

import requests  # noqa: F401 (the exporter would import it in each worker, which shares no memory then)
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.resources import (
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.semconv.attributes.exception_attributes import EXCEPTION_TYPE
from opentelemetry.trace import Status, StatusCode
from starlette.types import Scope

from .. import NAME
from ..error_log import LOG_INTERVAL_SECONDS
from .middleware import UNLOGGED_ROUTES
from .telemetry import Telemetry

FLUSH_SECONDS = 2
"""How long the last spans may delay the exit, if the collector does not respond."""

QUERY_ATTRIBUTE = "url.query"

POD_ATTRIBUTES = {
    "POD_NAME": "k8s.pod.name",
    "POD_NAMESPACE": "k8s.namespace.name",
    "NODE_NAME": "k8s.node.name",
}
"""The resource attributes for the variables that k8s.yaml sets."""


class RequestSpanProcessor(BatchSpanProcessor):
    """Collects the spans of requests. A thread sends them, and drops those that are too many."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Remove the query, which may contain secrets, as it is not in the access log either."""
        if span.attributes and QUERY_ATTRIBUTE in span.attributes:
            span.set_attribute(QUERY_ATTRIBUTE, "REDACTED")
        super().on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """Send the span later, unless it is a statement that belongs to no trace.

        Otherwise each probe of /ready would make a trace of each of its statements.
        """
        if span.kind is trace.SpanKind.CLIENT and span.parent is None:
            return
        if span.status.status_code is StatusCode.ERROR:
            span = _without_error_message(span)
        super().on_end(span)


def _without_error_message(span: ReadableSpan) -> ReadableSpan:
    """A copy that has only the types of errors: PostgreSQL's messages quote values of columns."""
    events: list[Event] = []
    for event in span.events:
        attributes = event.attributes or {}
        if EXCEPTION_TYPE in attributes:
            error_type = {EXCEPTION_TYPE: attributes[EXCEPTION_TYPE]}
            events.append(Event(event.name, error_type, event.timestamp))
        else:
            events.append(event)
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        events=events,
        links=span.links,
        kind=span.kind,
        status=Status(StatusCode.ERROR),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


class RateLimitFilter(logging.Filter):
    """Passes each message of a logger at most once per LOG_INTERVAL_SECONDS.

    Under load, the exporter sends many batches a second, and logs an error for each.
    """

    def __init__(self) -> None:
        super().__init__()
        self._silent_until: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log the record. Messages that differ in their values only are the same."""
        now = monotonic()
        if now < self._silent_until.get(record.msg, 0):
            return False
        self._silent_until[record.msg] = now + LOG_INTERVAL_SECONDS
        return True


EXPORTER_FILTER = RateLimitFilter()


def create_telemetry(app_version: str) -> Telemetry:
    """The telemetry of FastAPI, with traces only: metrics and logs have their own ways."""
    # FastAPI's spans have the stable names of attributes. Without this option, those of SQL and
    # Redis would have old ones, such as `db.statement`.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "database,http")
    # An exit by Python's atexit would wait for the collector for up to 30 s.
    provider = TracerProvider(resource=_resource(app_version), shutdown_on_exit=False)
    # An invalid variable fails here, and not in the lifespan of each worker.
    RequestSpanProcessor(OTLPSpanExporter()).shutdown()  # type: ignore[no-untyped-call]
    trace.set_tracer_provider(provider)  # for trace.get_tracer() in other modules
    return Telemetry(
        {
            "tracer_provider": provider,
            "metrics": False,
            "logs": False,
            "auto_configure": False,
            "operation_spans": False,
            "exclude": _is_excluded,
        },
        export=partial(export_spans, provider),
        is_on=True,
    )


@asynccontextmanager
async def export_spans(provider: TracerProvider) -> AsyncIterator[None]:
    """Trace SQL and Redis, and send all spans from a thread of this process.

    Enter it before the first connection is opened, and in the worker: a thread that is started in
    Gunicorn's master does not run in its workers.
    """
    logging.getLogger(OTLPSpanExporter.__module__).addFilter(EXPORTER_FILTER)
    provider.add_span_processor(RequestSpanProcessor(OTLPSpanExporter()))
    instrumentors = (
        AsyncPGInstrumentor(),  # type: ignore[no-untyped-call]
        RedisInstrumentor(),
    )
    for instrumentor in instrumentors:
        instrumentor.instrument(tracer_provider=provider)
    try:
        yield
    finally:
        for instrumentor in instrumentors:
            instrumentor.uninstrument()
        await _shut_down(provider)


async def _shut_down(provider: TracerProvider) -> None:
    """Send the last spans, for at most FLUSH_SECONDS."""
    # A daemon thread, because the exit of the process does not wait for it.
    thread = Thread(target=provider.shutdown, daemon=True)
    thread.start()
    await asyncio.to_thread(thread.join, FLUSH_SECONDS)


def _is_excluded(scope: Scope) -> bool:
    """Whether a request makes no spans, because probes send it every few seconds."""
    path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
    return path in UNLOGGED_ROUTES


def _resource(app_version: str) -> Resource:
    """The attributes of all spans, to which OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES add."""
    attributes = {SERVICE_NAME: NAME, SERVICE_VERSION: app_version}
    for variable, attribute in POD_ATTRIBUTES.items():
        if variable in os.environ:
            attributes[attribute] = os.environ[variable]
    return Resource.create(attributes).merge(OTELResourceDetector().detect())
