"""One pass around every request: its ids, its size, its access line, its metrics, its failure."""

import logging
import re
from secrets import token_hex
from time import perf_counter

from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import respond
from . import metrics
from .logs import request_context

logger = logging.getLogger(__name__)
SANE_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")
TRACEPARENT = re.compile(rb"(?!ff)[\da-f]{2}-(?!0{32})[\da-f]{32}-(?!0{16})[\da-f]{16}-[\da-f]{2}")
SENT_AS = {"request_id": b"x-request-id", "traceparent": b"traceparent"}
PROBES = {"/health", "/ready", "/metrics"}  # asked every few seconds: they would bury the others


class Observe:
    """Pure ASGI: BaseHTTPMiddleware would halve the throughput."""

    def __init__(self, app: ASGIApp, max_body_size: int) -> None:
        self._app = app
        self._counting = RequestBodyLimitMiddleware(app, max_body_size)
        self._limit = max_body_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started = perf_counter()
        status = 0
        given = dict(scope["headers"])
        ids = _identify(given)
        scope["request_id"] = ids["request_id"]
        headers = [(SENT_AS[name], value.encode()) for name, value in ids.items()]

        async def send_identified(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        token = request_context.set(ids)
        try:
            await self._limited(scope, given)(scope, receive, send_identified)
        except Exception:
            logger.exception("unhandled error")
            if status:
                raise  # the answer has begun: the server cuts the connection
            await respond(scope, 500, "It is logged.")(scope, receive, send_identified)
        finally:
            _record(scope, status, perf_counter() - started)
            request_context.reset(token)

    def _limited(self, scope: Scope, given: dict[bytes, bytes]) -> ASGIApp:
        if b"transfer-encoding" in given:
            return self._counting
        # Not by Starlette, which answers a declared size in plain text.
        large = int(given.get(b"content-length", 0)) > self._limit
        return respond(scope, 413, "Content Too Large") if large else self._app


def _identify(given: dict[bytes, bytes]) -> dict[str, str]:
    """The ids that came with a request, if they are sane (https://www.w3.org/TR/trace-context/)."""
    request_id = given.get(b"x-request-id", b"")
    ids = {"request_id": request_id.decode() if SANE_ID.fullmatch(request_id) else token_hex(16)}
    if TRACEPARENT.fullmatch(given.get(b"traceparent", b"")):
        ids["traceparent"] = given[b"traceparent"].decode()
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
