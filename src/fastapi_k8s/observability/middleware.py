"""The middleware around every request: its id, access log line, metrics and default headers."""

import asyncio
import logging
import re
from secrets import token_hex
from time import perf_counter

from opentelemetry import trace
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..routing import PathTemplates, Routes, serve_head_as_get
from ..security_headers import add_default_headers
from . import metrics
from .logs import log_info, request_context

logger = logging.getLogger(__name__)

REQUEST_ID_PATTERN = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")
TRACEPARENT_PATTERN = re.compile(
    rb"(?!ff)[\da-f]{2}-(?!0{32})[\da-f]{32}-(?!0{16})[\da-f]{16}-[\da-f]{2}"
)
UNMATCHED_ROUTE = ""
"""In Prometheus, a label without a value is the same as no label."""

UNLOGGED_ROUTES = {"/health", "/ready", "/metrics"}
"""Routes without an access log line, because probes request them every few seconds."""

KNOWN_METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
OTHER_METHOD = "_OTHER"
"""OpenTelemetry's name for a method that is not known."""

MAX_PATH_LENGTH = 1024
"""Characters of a path in the log. JSON can need 12 bytes for one, and container runtimes split a
line of more than 16 KiB.
"""


class ObservabilityMiddleware:
    """A pure ASGI middleware: `BaseHTTPMiddleware` would halve the throughput.

    With `has_traces`, log lines have the ids of the span that FastAPI has started.
    """

    def __init__(self, app: ASGIApp, routes: Routes, *, has_traces: bool) -> None:
        self._app = app
        self._routes = routes
        self._has_traces = has_traces
        self._templates = PathTemplates(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        started_at = perf_counter()
        ids = _request_ids(scope)
        scope["request_id"] = ids["request_id"]
        if self._has_traces:
            ids.update(_trace_ids())
        # Not reset at the end: the server logs an exception that reaches it. Each request
        # has its own task, so the next one does not get these ids.
        request_context.set(ids)
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        id_header = (b"x-request-id", ids["request_id"].encode())
        method = scope["method"]
        method_label = method if method in KNOWN_METHODS else OTHER_METHOD
        metrics.active_requests[method_label] += 1
        if method == "HEAD":
            scope = serve_head_as_get(self._routes, scope)

        async def send_and_record(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope["response_status"] = message["status"]
                headers = [*message.get("headers", ()), id_header]
                add_default_headers(headers)
                message["headers"] = headers
                await send(message)
                return
            more_body = message.get("more_body")
            if more_body is False:
                # The end of a stream or a file: `Response` does not set the key. FastAPI cancels a
                # stream of server-sent events whose generator has raised an exception, in this turn
                # of the event loop. Otherwise the last chunk would be sent before the cancellation
                # arrives, and the response would look complete.
                await asyncio.sleep(0)
            await send(message)
            if message["type"] == "http.response.body" and not more_body:
                scope["response_is_complete"] = True
                # Not when the application returns: background tasks run before that.
                self._record(scope, method, method_label, perf_counter() - started_at)

        cut_by: str | None = "client"
        try:
            await self._app(scope, receive, send_and_record)
            if method == "HEAD" and "response_status" in scope:
                cut_by = None  # the client has the complete response, which has no body
        except asyncio.CancelledError:
            cut_by = "shutdown"
            raise
        except Exception:
            cut_by = "error"
            raise
        finally:
            if "response_is_complete" not in scope:
                self._record(scope, method, method_label, perf_counter() - started_at, cut_by)

    def _record(
        self,
        scope: Scope,
        method: str,
        method_label: str,
        seconds: float,
        cut_by: str | None = None,
    ) -> None:
        """Observe the duration. Write the access log line, except for UNLOGGED_ROUTES.

        `cut_by` is what ended the request before its response was complete.
        """
        metrics.active_requests[method_label] -= 1
        status = scope.get("response_status", 0)  # 0: the response has not begun
        route = self._templates.find(scope) or UNMATCHED_ROUTE
        metrics.request_duration(method_label, route, status).observe(seconds)
        if route in UNLOGGED_ROUTES:
            return
        client = scope["client"]
        fields = {
            "method": method,
            "path": _shorten(scope["path"]),
            "status": status,
            "duration_ms": round(seconds * 1000, 2),
            "client": client[0] if client else None,
        }
        if cut_by is not None:
            fields["cut_by"] = cut_by
        log_info(logger, "request", fields)


def _request_ids(scope: Scope) -> dict[str, str]:
    """The request id, from the client or new, and the `traceparent` if it is valid.

    See https://www.w3.org/TR/trace-context/#traceparent-header.
    """
    headers = dict(scope["headers"])
    request_id = headers.get(b"x-request-id")
    traceparent = headers.get(b"traceparent")
    if request_id and REQUEST_ID_PATTERN.fullmatch(request_id):
        ids = {"request_id": request_id.decode()}
    else:
        ids = {"request_id": token_hex(16)}
    if traceparent and TRACEPARENT_PATTERN.fullmatch(traceparent):
        ids["traceparent"] = traceparent.decode()
    return ids


def _trace_ids() -> dict[str, str]:
    """The ids of the current span, also if it is not sampled. Empty for probes.

    The names are those of https://opentelemetry.io/docs/specs/otel/compatibility/logging_trace_context/.
    """
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }


def _shorten(path: str) -> str:
    if len(path) <= MAX_PATH_LENGTH:
        return path
    return f"{path[:MAX_PATH_LENGTH]}... ({len(path)} characters)"
