"""One pass around every request: its ids, its size, its access line, its metrics, its failure."""

import logging
import re
from time import perf_counter
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import respond
from . import metrics
from .logs import request_context

logger = logging.getLogger(__name__)
SANE_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")
# https://www.w3.org/TR/trace-context/#traceparent-header
TRACEPARENT = re.compile(rb"(?!ff)[\da-f]{2}-(?!0{32})[\da-f]{32}-(?!0{16})[\da-f]{16}-[\da-f]{2}")
SENT_AS = {"request_id": b"x-request-id", "traceparent": b"traceparent"}
PROBES = {"/health", "/ready", "/metrics"}  # asked every few seconds: they would bury the others


class Observe:
    """Pure ASGI: BaseHTTPMiddleware would halve the throughput."""

    def __init__(self, app: ASGIApp, max_body_size: int) -> None:
        self._app = app
        self._limit = max_body_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        status = 0
        ids = _identify(scope)
        headers = [(SENT_AS[name], value.encode()) for name, value in ids.items()]

        async def send_identified(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        token = request_context.set(ids)
        # Starlette's limit counts what comes in chunks, but answers a declared size in plain text.
        declared = int(dict(scope["headers"]).get(b"content-length", 0))
        app = respond(scope, 413, "Content Too Large") if declared > self._limit else self._app
        try:
            await app(scope, receive, send_identified)
        except Exception:
            logger.exception("unhandled error")
            if status:
                raise  # the answer has begun: the server cuts the connection
            await respond(scope, 500, "It is logged.")(scope, receive, send_identified)
        finally:
            _record(scope, status, perf_counter() - started)
            request_context.reset(token)


def _identify(scope: Scope) -> dict[str, str]:
    """The ids of a request: those that came with it, if they are sane. Its own goes to `scope`."""
    given = dict(scope["headers"])
    request_id = given.get(b"x-request-id", b"")
    known = SANE_ID.fullmatch(request_id)
    ids = {"request_id": request_id.decode() if known else uuid4().hex}
    scope["request_id"] = ids["request_id"]
    traceparent = given.get(b"traceparent", b"")
    if TRACEPARENT.fullmatch(traceparent):
        ids["traceparent"] = traceparent.decode()
    return ids


def _record(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "none")
    metrics.requests(scope["method"], route, status).observe(seconds)
    if route not in PROBES:
        fields = {
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "duration_ms": round(seconds * 1000, 2),
            "client": scope["client"] and scope["client"][0],
        }
        logger.info("request", extra={"fields": fields})
