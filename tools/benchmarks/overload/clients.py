"""Clients that keep a fixed number of requests in flight, and record every response.

wrk cannot report the latency of each status: a refusal takes milliseconds, and would lower the
percentiles of the requests that are served.
"""

import asyncio
from time import perf_counter
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import httptools
import uvloop

ACCEPT_SECONDS = 0.2
"""How long the server has to accept the connections before the first request."""

MAX_REMAINING_SECONDS = 30
"""How long the requests in flight may take when the clients stop."""


class Response(NamedTuple):
    """A response. `sent_at` is the time of the request, in seconds since the clients started."""

    sent_at: float
    seconds: float
    status: int

    @property
    def received_at(self) -> float:
        """The time of the response, like `sent_at`."""
        return self.sent_at + self.seconds


def run_clients(
    url: str, connections: int, seconds: float, pause_seconds: float = 0, body: bytes = b""
) -> list[Response]:
    """Send requests for `seconds` on each of `connections`, and return the responses.

    Each client sends its next request `pause_seconds` after a response, whatever its status. Those
    with a body are POST requests. Raises ConnectionError if the server closes a connection, and
    TimeoutError if a response does not arrive.
    """
    return uvloop.run(_run_clients(url, connections, seconds, pause_seconds, body))


async def _run_clients(
    url: str, connections: int, seconds: float, pause_seconds: float, body: bytes
) -> list[Response]:
    loop = asyncio.get_running_loop()
    host, _, port = urlsplit(url).netloc.partition(":")
    clients: list[_Client] = []
    try:
        for _ in range(connections):
            _, client = await loop.create_connection(_Client, host, int(port))
            clients.append(client)
        # The server accepts them at once only while it has nothing else to do.
        await asyncio.sleep(ACCEPT_SECONDS)
        start = perf_counter()
        run = _Run(_request(url, body), pause_seconds, start, start + seconds, [])
        for client in clients:
            client.start(run)
        async with asyncio.timeout(seconds + MAX_REMAINING_SECONDS):
            await asyncio.gather(*(client.done for client in clients))
    finally:
        for client in clients:
            client.transport.close()
    return run.responses


class _Run(NamedTuple):
    """What the clients share. Times are those of `perf_counter`."""

    request: bytes
    pause_seconds: float
    start: float
    end: float
    responses: list[Response]


class _Client(asyncio.Protocol):
    """One connection with at most one request in flight."""

    transport: asyncio.Transport
    _run: _Run

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._sent_at = 0.0
        self.done: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def start(self, run: _Run) -> None:
        """Send the first request of a run."""
        self._run = run
        self._send_request()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            error = ConnectionError("the server has closed a connection")
            error.__cause__ = exc
            self.done.set_exception(error)

    def on_message_complete(self) -> None:
        """Record a response. The parser calls it."""
        run = self._run
        now = perf_counter()
        status = self._parser.get_status_code()
        run.responses.append(Response(self._sent_at - run.start, now - self._sent_at, status))
        if now + run.pause_seconds >= run.end:
            self.done.set_result(None)
        elif run.pause_seconds:
            self._loop.call_later(run.pause_seconds, self._send_request)
        else:
            self._send_request()

    def _send_request(self) -> None:
        self._sent_at = perf_counter()
        self.transport.write(self._run.request)


def _request(url: str, body: bytes) -> bytes:
    parts = urlsplit(url)
    lines = [f"{'POST' if body else 'GET'} {parts.path} HTTP/1.1", f"Host: {parts.netloc}"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body
