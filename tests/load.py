"""Steady load that notices every request that is lost: no client's retry hides one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Failure:
    """A request that got no 200: when it was sent, on what connection, and what came instead."""

    sent: float
    kept_alive: bool
    reason: str


@dataclass
class Load:
    """What became of the requests so far. Times are of the monotonic clock, in seconds."""

    url: str
    sent: int = 0
    failures: list[Failure] = field(default_factory=list)
    stopped: bool = False


@asynccontextmanager
async def steady_load(url: str, clients: int, pause: float) -> AsyncIterator[Load]:
    """GET `url` from `clients` clients, each `pause` s after its last answer, while the block runs.

    Half of the clients keep their connections alive, half make one for each request.
    """
    load = Load(url)
    tasks = [asyncio.create_task(_client(load, n % 2 == 0, pause)) for n in range(clients)]
    try:
        yield load
    finally:
        load.stopped = True
        await asyncio.gather(*tasks)


async def _client(load: Load, kept_alive: bool, pause: float) -> None:
    url = urlsplit(load.url)
    wish = "keep-alive" if kept_alive else "close"
    request = f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: {wish}\r\n\r\n"
    streams = None
    while not load.stopped:
        sent = monotonic()
        load.sent += 1
        try:
            if streams is None:
                streams = await asyncio.open_connection(url.hostname, url.port or 80)
                sent = monotonic()
            head = await asyncio.wait_for(_exchange(*streams, request.encode()), 10)
            if not head.startswith(b"http/1.1 200"):
                load.failures.append(Failure(sent, kept_alive, head[:40].decode()))
        except (OSError, asyncio.IncompleteReadError) as error:
            load.failures.append(Failure(sent, kept_alive, repr(error)))
            head = b"connection: close"
        if streams and b"connection: close" in head:
            streams[1].close()
            streams = None
        await asyncio.sleep(pause)
    if streams:
        streams[1].close()


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> bytes:
    """Send a request and read its answer. Gives the head, in lower case."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))
    return head
