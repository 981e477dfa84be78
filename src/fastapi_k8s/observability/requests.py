"""One pass around every request: its ids, its access line, its metrics, and its last resort."""

import logging
import re
from time import perf_counter
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import respond
from .logs import request_context
from .metrics import Metrics

logger = logging.getLogger(__name__)

SANE_ID = re.compile(rb"[\w.:-]{1,128}")
TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
"""https://www.w3.org/TR/trace-context/#traceparent-header"""

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
PROBES = {"/health", "/ready", "/metrics"}  # asked every few seconds: they would bury the others


class Observe:
    """Pure ASGI: BaseHTTPMiddleware would halve the throughput."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        status = 0
        ids = _identify(scope)

        async def send_identified(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *ids]
            await send(message)

        names = {b"x-request-id": "request_id", b"traceparent": "traceparent"}
        token = request_context.set({names[name]: value.decode() for name, value in ids})
        try:
            await self._app(scope, receive, send_identified)
        except Exception:
            logger.exception("unhandled error")
            if status:
                raise  # the answer has begun: the server cuts the connection
            await respond(scope, 500)(scope, receive, send_identified)
        finally:
            self._record(scope, status, perf_counter() - started)
            request_context.reset(token)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        route = scope.get("route")
        self._metrics.observe(method, route.path if route else "none", status, seconds)
        if scope["path"] not in PROBES:
            fields = {
                "method": method,
                "path": scope["path"],
                "status": status,
                "duration_ms": round(seconds * 1000, 2),
                "client": scope["client"] and scope["client"][0],
            }
            logger.info("request", extra={"fields": fields})


def _identify(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Note the request's id in `scope`; return the headers that the answer sends back."""
    given = dict(scope["headers"])
    request_id = given.get(b"x-request-id", b"")
    if not SANE_ID.fullmatch(request_id):
        request_id = uuid4().hex.encode()
    scope["request_id"] = request_id.decode()
    traceparent = given.get(b"traceparent", b"")
    kept = [(b"traceparent", traceparent)] if TRACEPARENT.fullmatch(traceparent) else []
    return [(b"x-request-id", request_id), *kept]
