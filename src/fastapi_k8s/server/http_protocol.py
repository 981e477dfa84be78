"""Uvicorn's HTTP protocol, made strict: what a client may send, how much, and for how long.

docs/decisions/0017-strict-http-protocol.md has the reasons and the figures. The parts of Uvicorn
that this module extends are not a public API, so pyproject.toml has an upper limit for its version.
"""

import asyncio
import logging
import math
from enum import Enum, auto
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from ..errors import ProblemError, problem_response
from ..observability import metrics
from ..security_headers import add_default_headers
from ..settings import Settings
from .request_head import (
    check_head_size,
    check_host,
    check_incomplete_line_size,
    find_host,
    split_absolute_url,
)
from .responses import ClosingCycle, ClosingTransport

if TYPE_CHECKING:
    from .connections import HttpProtocolFactory

LINGER_SECONDS = 10
"""How long the server discards what a client sends after its response. In nginx it is 30 s."""

LINGER_BYTES = 64 * 1024 * 1024
"""How much the server discards after a response, before it closes the connection."""

STALL_SECONDS = 60
"""How long a client may read nothing of a response, as in nginx (`send_timeout`)."""

UNREAD_BODY_BYTES = 256 * 1024
"""The largest body that the server reads after its response, to keep the connection, as in Go."""

SMALL_REQUEST_BYTES = 64 * 1024
"""What a request may hold while the limit of all requests is exceeded.

Without it, large bodies would cause the refusal of small requests.
"""

CHUNK_OVERHEAD_BYTES = 100
"""The size of a chunk object in memory, besides its bytes: a client can send single bytes."""

QUEUED_REQUEST_BYTES = 4096
"""The size of a request in memory that waits for the response to an earlier one."""

HELD_BODIES = 32
"""How many bodies of MAX_BODY_SIZE the requests of a worker may hold together."""

BODY_UNIT_BYTES = 1024 * 1024
"""A body may take another REQUEST_READ_TIMEOUT for each unit that has arrived."""

DEFAULT_SETTINGS = Settings.model_construct()
"""For an application whose lifespan has no settings. Nothing is read from the environment."""

IPV4_MAPPED_PREFIX = "::ffff:"
SLASH = ord("/")


class Phase(Enum):
    """What a connection is doing. All phases but RESPONDING have a time limit."""

    WAITING = auto()  # for the first byte of a request
    HEAD = auto()
    BODY = auto()
    RESPONDING = auto()  # all requests are complete, and a response is not
    LINGERING = auto()  # the last response is sent, and what the client still sends is discarded


class Parser(httptools.HttpRequestParser):
    """Caches the formatted version of a request, which Uvicorn and `find_host` read.

    Formatting it takes as long as all other checks of a head together.
    """

    version = ""

    def get_http_version(self) -> str:
        if not self.version:
            self.version = super().get_http_version()
        return self.version


class FailedBody(bytearray):
    """The body of a request that cannot be read completely.

    Uvicorn's `receive()` converts the body to bytes. This raises the error in the application.
    """

    def __init__(self, error: ProblemError) -> None:
        super().__init__()
        self._error = error

    def __bytes__(self) -> bytes:
        raise self._error


class StrictHttpProtocol(HttpToolsProtocol):
    """Uvicorn's protocol of a connection, with checks and limits.

    An error in the head of a request is answered here, because there is no request yet. An error in
    the body is raised where the application reads the body, so that the response has a request id,
    an access log line and metrics like any other.
    """

    def __init__(
        self,
        factory: "HttpProtocolFactory",
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self.parser: Parser = self._make_parser()
        self.factory = factory
        self.limits = factory.limits
        settings: Settings = app_state.get("settings", DEFAULT_SETTINGS)
        self.read_timeout_seconds = settings.request_read_timeout
        self.max_body_size = settings.max_body_size
        self.max_held_bytes = HELD_BODIES * self.max_body_size
        self.small_head_bytes = min(self.limits.request_line, self.limits.header_size)
        self.phase = Phase.WAITING
        self.phase_began_at = factory.elapsed_seconds
        self.has_served = False
        self.is_declining = False  # an upgrade that the head offers
        self.is_discarding = False
        self.discarded_bytes = 0
        self.held_bytes = 0
        self.pending_bytes = 0  # received since the last complete head or piece of a body
        self.body_bytes = 0
        self.valid_host = b""
        self.pipeline_cycle: RequestResponseCycle | None = None  # the one that is in progress
        self.has_ended = False  # the client has closed its side
        self.unsent_bytes = 0
        self.stalled_seconds = 0
        self.url = b""
        self.headers = []

    # Called by the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is not None and self.client[0].startswith(IPV4_MAPPED_PREFIX):
            # A dual-stack socket. FORWARDED_ALLOW_IPS has IPv4 addresses in their usual form.
            self.client = (self.client[0].removeprefix(IPV4_MAPPED_PREFIX), self.client[1])
        self.closing_transport = ClosingTransport(transport, self.close, self._count_unsent)
        self.factory.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.pipeline_cycle is not None:
            # Uvicorn does this for the last request only. The application would write to a closed
            # transport, and the error would be logged with a traceback.
            self.pipeline_cycle.disconnected = True
            self.pipeline_cycle.message_event.set()
        super().connection_lost(exc)
        self._unregister()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection of a client that will send no more, until it has its responses."""
        self.has_ended = True
        if self._has_responded():
            return False
        self.cycle.keep_alive = False
        if self.phase is Phase.BODY:
            self._fail_body(ProblemError(400, "The connection ended before the body."))
        return True

    def data_received(self, data: bytes) -> None:
        """Parse what the client sends, or discard it after an error."""
        if self.is_discarding:
            self._discard(len(data))
            return
        self.pending_bytes += len(data)
        if self.held_bytes < self.max_body_size:
            self._hold(len(data) + CHUNK_OVERHEAD_BYTES)
        try:
            self._parse(data)
            if self.pending_bytes or self.headers:  # an incomplete head, trailers or chunk header
                self._check_head_size()
                check_incomplete_line_size(self.pending_bytes, self.url, self.headers, self.limits)
            if self.factory.held_bytes > self.max_held_bytes:
                self._check_held_bytes()
        except ProblemError as error:
            self._refuse(error)
        except httptools.HttpParserError as error:
            cause = error.__context__  # the exception of a callback of the parser
            if not isinstance(cause, ProblemError):
                cause = ProblemError(400, "The request is not valid HTTP/1.1.")
            self._refuse(cause)

    def _parse(self, data: bytes | memoryview) -> None:
        """Parse all of `data`. Offers of an upgrade that this server does not serve are ignored."""
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                end_of_head = upgrade.args[0]
            else:
                return
            if not self.is_declining:
                self.handle_websocket_upgrade()
                return
            # The parser skips the body, and would take it for the next request. A new parser gets
            # the same head without the offer.
            self.is_declining = False
            head = self._head_without_upgrade()
            self.parser = self._make_parser()
            self.parser.feed_data(head)
            data = memoryview(data)[end_of_head:]

    def _make_parser(self) -> Parser:
        parser = Parser(self)
        # As Uvicorn does it: requests behind one with `Connection: close` are ignored, not refused.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _should_upgrade(self) -> bool:
        """Whether to accept an offer of WebSockets (RFC 6455, section 4.1).

        The protocol for WebSockets would read a body as frames, and would write between the
        responses to earlier requests.
        """
        is_get = self.parser.get_method() == b"GET" and self.parser.get_http_version() == "1.1"
        return is_get and self._has_responded() and super()._should_upgrade()

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to the protocol for WebSockets, if a fork has installed one."""
        self._unregister()
        super().handle_websocket_upgrade()
        # The protocol has the address of the socket. The task that it has created reads the scope
        # later. There is no scope if the handshake is not valid.
        scope = getattr(self.transport.get_protocol(), "scope", None)
        if scope is not None:
            scope["client"] = self.client

    def shutdown(self) -> None:
        """Let the streams end when the server stops, also without Gunicorn's worker.

        Uvicorn calls it for each connection, and then waits for the responses. Without the event,
        `make run` would wait for a stream, and could neither stop nor reload.
        """
        draining = self.app_state.get("draining")
        if draining is not None:
            draining.set()
        super().shutdown()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.stalled_seconds = 0

    # Called by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header without the whitespace behind its value (RFC 9112, section 5.1).

        Uvicorn's method keeps it. To call that method too would cost 0.1 µs for each header.
        """
        name = name.lower()
        value = value.rstrip(b" \t")
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.parser.version = ""
        self._enter(Phase.HEAD)

    def on_headers_complete(self) -> None:
        """Check the head of a request, and start the request."""
        offers_upgrade = self.parser.should_upgrade()
        if offers_upgrade and self.parser.get_method() == b"CONNECT":
            raise ProblemError(501, "CONNECT is not supported.")
        self._check_head()
        if offers_upgrade:
            self.is_declining = not self._should_upgrade()
            if not self.is_declining:
                super().on_headers_complete()
            return
        if self.cycle is not None and not self.cycle.response_complete:
            if not self.pipeline:
                self.pipeline_cycle = self.cycle
            self._hold(QUEUED_REQUEST_BYTES)
            self._check_held_bytes()
        super().on_headers_complete()
        self.cycle.transport = self.closing_transport  # type: ignore[assignment]
        if self.scope["method"] == "HEAD" or self.scope["http_version"] == "1.0":
            # Uvicorn has created the object, and its task has not begun.
            self.cycle.__class__ = ClosingCycle
        self._enter(Phase.BODY)
        self.pending_bytes = 0
        self.body_bytes = 0
        self.headers = []  # The parser adds trailers to it. They must not become headers.

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self.pending_bytes = 0
        self.body_bytes += len(body)
        if self.cycle.response_complete and self.body_bytes > UNREAD_BODY_BYTES:
            raise ProblemError(413, "The body is larger than what is read after a response.")

    def on_message_complete(self) -> None:
        if self.is_declining:
            return
        super().on_message_complete()
        if self._has_responded():
            self._enter(Phase.WAITING)
            self._release()
        else:
            self.phase = Phase.RESPONDING

    def _check_head(self) -> None:
        """Raise ProblemError if a complete head is too large, or a header is missing or invalid."""
        if (
            len(self.headers) > self.limits.header_count
            or self.pending_bytes > self.small_head_bytes
        ):
            self._check_head_size()
        host = find_host(self.headers, self.parser.get_http_version())
        if self.url[0] != SLASH and self.url != b"*":
            host = self._replace_absolute_url()
        if host is not None and host != self.valid_host:
            check_host(host)
            self.valid_host = host

    def _check_head_size(self) -> None:
        check_head_size(self.parser.get_method(), self.url, self.headers, self.limits)

    def _replace_absolute_url(self) -> bytes:
        """Turn `http://host/path` into `/path` and a Host header (RFC 9112, section 3.2.2)."""
        host, self.url = split_absolute_url(self.url)
        # In place, since the scope of the request has the same list.
        self.headers[:] = [header for header in self.headers if header[0] != b"host"]
        self.headers.append((b"host", host))
        return host

    # Called by the request

    def on_response_complete(self) -> None:
        """Start the next request of a pipeline, or wait for one. Uvicorn would start a timer."""
        self.server_state.total_requests += 1
        self.has_served = True
        self._release()
        if self.transport.is_closing() or self.phase is Phase.LINGERING:
            return
        self.flow.resume_reading()
        if self.pipeline:
            self.pipeline_cycle, app = self.pipeline.pop()
            self._start_asgi_task(self.pipeline_cycle, app)
        elif self.phase is Phase.RESPONDING:
            self._enter(Phase.WAITING)
        elif self.phase is Phase.BODY and self.expect_100_continue and not self.body_bytes:
            # The client may send its next request instead of the body (RFC 9110, section 10.1.1).
            self._linger()

    def close(self) -> None:
        """Close the connection in a way that lets the client read the response.

        If there are unread bytes in the socket, closing it resets the connection, and the client
        can lose the response (RFC 9112, section 9.6).
        """
        if self.transport.is_closing():
            return
        is_receiving = self.phase in {Phase.HEAD, Phase.BODY}
        if is_receiving or self.is_discarding or self.pipeline or self.flow.read_paused:
            self._linger()
        else:
            self.transport.close()

    # Errors and limits

    def _refuse(self, error: ProblemError) -> None:
        """Respond to a request that cannot be parsed, and close the connection."""
        if self.phase is Phase.BODY:
            self._fail_body(error)
        elif self._has_responded():
            self._send_problem(error)
            self._linger()
        else:  # The client gets the responses to its earlier requests, and no more.
            self.cycle.keep_alive = False
            self.is_discarding = True
            self._enter(Phase.RESPONDING)

    def _fail_body(self, error: ProblemError) -> None:
        """Raise an error where the application reads the body."""
        if self.cycle.response_complete:
            self._linger()
            return
        self.cycle.body = FailedBody(error)
        self.is_discarding = True
        self._enter(Phase.RESPONDING)
        self.cycle.keep_alive = False
        self.cycle.message_event.set()

    def _send_problem(self, error: ProblemError) -> None:
        request_id = token_hex(16)
        scope = {"path": "", "request_id": request_id}
        response = problem_response(scope, error.status_code, error.detail, error.headers)
        headers = [*self.server_state.default_headers, *response.raw_headers]
        headers = [header for header in headers if header[0] != b"connection"]
        headers += [(b"connection", b"close"), (b"x-request-id", request_id.encode())]
        add_default_headers(headers)
        lines = [STATUS_LINE[error.status_code]]
        lines += [b"%s: %s\r\n" % header for header in headers]
        self.transport.write(b"".join([*lines, b"\r\n", response.body]))
        metrics.REFUSED_REQUESTS.labels(error.status_code).inc()
        fields = {
            "status": error.status_code,
            "detail": error.detail,
            "client": self.client[0] if self.client else None,
            "request_id": request_id,
        }
        self.factory.log(logging.INFO, "request refused", fields)

    def _linger(self) -> None:
        """Send nothing more, and discard what the client still sends, until it closes too."""
        if self.has_ended or not self.transport.can_write_eof():
            self.transport.close()
            return
        self._enter(Phase.LINGERING)
        self.is_discarding = True
        self.transport.write_eof()
        self.flow.resume_reading()

    def _discard(self, size: int) -> None:
        self.discarded_bytes += size
        if self.discarded_bytes > LINGER_BYTES:
            self.transport.abort()

    def check_time(self) -> None:
        """End a phase that takes too long. Called once a second."""
        unsent_bytes = self.transport.get_write_buffer_size()
        is_stalled = unsent_bytes > 0 and unsent_bytes >= self.unsent_bytes
        self.stalled_seconds = self.stalled_seconds + 1 if is_stalled else 0
        self.unsent_bytes = unsent_bytes
        if self.stalled_seconds > STALL_SECONDS:
            self.transport.abort()
            return
        if unsent_bytes or self.flow.read_paused:
            # The client reads a response, or waits until the server reads more of the request.
            self.phase_began_at += 1
            return
        seconds = self.factory.elapsed_seconds - self.phase_began_at
        if seconds <= self._max_phase_seconds():
            return
        if self.phase is Phase.WAITING:
            self.transport.close()
        elif self.phase is Phase.LINGERING:
            self.transport.abort()
        else:
            self._refuse(ProblemError(408, "The request did not arrive in time."))

    def _max_phase_seconds(self) -> float:
        """How long the current phase may take."""
        if self.phase is Phase.RESPONDING:
            return math.inf
        if self.phase is Phase.LINGERING:
            return LINGER_SECONDS
        if self.phase is Phase.WAITING and self.has_served:
            return self.timeout_keep_alive
        if self.phase is Phase.BODY:
            return self.read_timeout_seconds * (1 + self.body_bytes / BODY_UNIT_BYTES)
        return self.read_timeout_seconds

    def may_be_evicted(self) -> bool:
        """Whether the connection can be closed without the loss of a response."""
        return self._has_responded() or (self.phase is Phase.BODY and not self.pipeline)

    def eviction_key(self) -> tuple[bool, bool, int]:
        """The order in which connections are evicted: those without a request so far come first."""
        return (self.phase is not Phase.LINGERING, self.has_served, self.phase_began_at)

    def _has_responded(self) -> bool:
        """Whether no response is left to send, because it is complete or was cut off."""
        if self.cycle is None or self.cycle.response_complete:
            return True
        return self.phase is Phase.LINGERING

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.phase_began_at = self.factory.elapsed_seconds

    def _hold(self, size: int) -> None:
        """Count bytes until `_release`."""
        self.held_bytes += size
        self.factory.held_bytes += size

    def _release(self) -> None:
        self.factory.held_bytes -= self.held_bytes
        self.held_bytes = 0

    def _check_held_bytes(self) -> None:
        """Raise ProblemError if all requests hold too much memory, and this one is not small."""
        is_small = self.held_bytes <= SMALL_REQUEST_BYTES
        if self.factory.held_bytes > self.max_held_bytes and not is_small:
            detail = "The server is receiving too many large requests."
            raise ProblemError(503, detail, {"Retry-After": "1"})

    def _count_unsent(self, size: int) -> None:
        """Count a piece of the response that was written and is still in memory.

        All of it is, until the last byte is sent.
        """
        if self.transport.get_write_buffer_size() > 0:
            self.factory.hold_unsent(self, size)

    def _unregister(self) -> None:
        """Remove this connection from the state that all connections share."""
        self._release()
        self.factory.release_unsent(self)
        self.factory.connections.pop(self, None)
