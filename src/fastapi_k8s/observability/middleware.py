"""The middleware around every request: its ids, access log line, metrics, and unhandled errors."""

import logging
import re
from secrets import token_hex
from time import perf_counter

from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import problem_response
from . import metrics
from .logs import request_context

logger = logging.getLogger(__name__)

REQUEST_ID_PATTERN = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")
TRACEPARENT_PATTERN = re.compile(
    rb"(?!ff)[\da-f]{2}-(?!0{32})[\da-f]{32}-(?!0{16})[\da-f]{16}-[\da-f]{2}"
)
ID_HEADERS = {"request_id": b"x-request-id", "traceparent": b"traceparent"}
UNMATCHED_ROUTE = "none"
UNLOGGED_ROUTES = {"/health", "/ready", "/metrics"}
"""Requested every few seconds: their lines would drown all others."""


class ObservabilityMiddleware:
    """A pure ASGI middleware: `BaseHTTPMiddleware` would halve the throughput."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at = perf_counter()
        ids = _request_ids(scope)
        scope["request_id"] = ids["request_id"]
        id_headers = [(ID_HEADERS[name], value.encode()) for name, value in ids.items()]
        status = 0  # until the response begins

        async def send_with_ids(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *id_headers]
            await send(message)

        token = request_context.set(ids)
        try:
            await self._app(scope, receive, send_with_ids)
        except Exception:
            logger.exception("unhandled error")
            response_has_begun = status != 0
            if response_has_begun:
                raise  # the server closes the connection, so that the client sees the failure
            response = problem_response(scope, 500, "An unexpected error occurred.")
            await response(scope, receive, send_with_ids)
        finally:
            _record_request(scope, status, perf_counter() - started_at)
            request_context.reset(token)


def _request_ids(scope: Scope) -> dict[str, str]:
    """The request id, from the client or new, and the `traceparent` if it is valid.

    See https://www.w3.org/TR/trace-context/#traceparent-header.
    """
    headers = dict(scope["headers"])
    request_id = headers.get(b"x-request-id", b"")
    traceparent = headers.get(b"traceparent", b"")
    ids = {"request_id": token_hex(16)}
    if REQUEST_ID_PATTERN.fullmatch(request_id):
        ids["request_id"] = request_id.decode()
    if TRACEPARENT_PATTERN.fullmatch(traceparent):
        ids["traceparent"] = traceparent.decode()
    return ids


def _record_request(scope: Scope, status: int, seconds: float) -> None:
    """Observe the duration. Write the access log line, except for UNLOGGED_ROUTES."""
    route = scope.get("route")
    path = route.path if isinstance(route, APIRoute) else UNMATCHED_ROUTE
    metrics.request_duration(scope["method"], path, status).observe(seconds)
    if path in UNLOGGED_ROUTES:
        return
    client = scope["client"]
    fields = {
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "duration_ms": round(seconds * 1000, 2),
        "client": client[0] if client else None,
    }
    logger.info("request", extra=fields)
