"""Steady load that counts every lost request: no client library's retry hides one.

As a program (``load_generator.py URL CLIENTS PAUSE_SECONDS``) it needs only Python, so that it can
run in a pod. It waits until no request has failed for one second. Then it prints its statistics as
JSON for each line that it reads, until its standard input ends.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from time import monotonic
from urllib.parse import urlsplit

REQUEST_TIMEOUT_SECONDS = 10
TRIAL_SECONDS = 0.25
"""How long one trial lasts while the program waits for the service."""


@dataclass
class Failure:
    """A request without a 200: when it was sent, on which kind of connection, and what came back.

    ``sent_at_seconds`` is a time of the monotonic clock. ``reason`` is the status line or
    the exception.
    """

    sent_at_seconds: float
    kept_alive: bool
    reason: str


@dataclass
class Load:
    """What has become of the requests so far."""

    url: str
    request_count: int = 0
    failures: list[Failure] = field(default_factory=list)
    responses: dict[str, int] = field(default_factory=dict)
    """How often each body came with a 200."""
    longest_seconds: float = 0
    """Duration of the slowest request."""
    stopped: bool = False

    def add_response(self, body: str) -> None:
        """Count a response with status 200."""
        self.responses[body] = self.responses.get(body, 0) + 1


@asynccontextmanager
async def steady_load(url: str, clients: int, pause_seconds: float) -> AsyncIterator[Load]:
    """Send GET requests for `url` from `clients` clients while the block runs.

    Each client pauses for `pause_seconds` after a response. Half of the clients keep their
    connections alive, half open a connection for each request.
    """
    load = Load(url)
    tasks = [
        asyncio.create_task(_run_client(load, number % 2 == 0, pause_seconds))
        for number in range(clients)
    ]
    try:
        yield load
    finally:
        load.stopped = True
        await asyncio.gather(*tasks)


class _Connection:
    """An open connection to the service."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, url: str) -> "_Connection":
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
        return cls(reader, writer)

    @property
    def closed_by_server(self) -> bool:
        return self._reader.at_eof()

    async def exchange(self, request: bytes) -> tuple[bytes, bytes]:
        """Send a request. Returns the response's head in lower case, and its body."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        return head, await self._reader.readexactly(_content_length(head))

    def close(self) -> None:
        self._writer.close()


async def _run_client(load: Load, kept_alive: bool, pause_seconds: float) -> None:
    request = _request(load.url, kept_alive)
    connection: _Connection | None = None
    while not load.stopped:
        if connection and connection.closed_by_server:
            # It was closed while idle. No request was sent on it, so none is lost.
            connection.close()
            connection = None
        sent_at_seconds = monotonic()
        load.request_count += 1
        must_close = True
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                if connection is None:
                    connection = await _Connection.open(load.url)
                head, body = await connection.exchange(request)
            must_close = b"connection: close" in head
            if head.startswith(b"http/1.1 200"):
                load.add_response(body.decode())
            else:
                load.failures.append(Failure(sent_at_seconds, kept_alive, head[:40].decode()))
        except (OSError, EOFError, ValueError) as error:
            load.failures.append(Failure(sent_at_seconds, kept_alive, repr(error)))
        load.longest_seconds = max(load.longest_seconds, monotonic() - sent_at_seconds)
        if connection and must_close:
            connection.close()
            connection = None
        await asyncio.sleep(pause_seconds)
    if connection:
        connection.close()


def _request(url: str, kept_alive: bool) -> bytes:
    parts = urlsplit(url)
    connection = "keep-alive" if kept_alive else "close"
    lines = [f"GET {parts.path} HTTP/1.1", f"Host: {parts.netloc}", f"Connection: {connection}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _content_length(head: bytes) -> int:
    """The Content-Length in a response's head. Raises ValueError unless there is exactly one."""
    [line] = [line for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
    return int(line.partition(b":")[2])


async def _wait_until_steady(url: str, clients: int, pause_seconds: float) -> None:
    """Return when no request has failed for one second."""
    seconds_without_failure = 0.0
    while seconds_without_failure < 1:
        start_time = monotonic()
        async with steady_load(url, clients, pause_seconds) as trial:
            await asyncio.sleep(TRIAL_SECONDS)
        if trial.failures:
            seconds_without_failure = 0
        else:
            seconds_without_failure += monotonic() - start_time


async def _main(url: str, clients: int, pause_seconds: float) -> None:
    await _wait_until_steady(url, clients, pause_seconds)
    async with steady_load(url, clients, pause_seconds) as load:
        print(json.dumps(asdict(load)), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(asdict(load)), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
