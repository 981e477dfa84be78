"""Steady load that notices every request that is lost: no client's retry hides one.

As a program, `load.py URL CLIENTS PAUSE`, it needs Python alone, so that it can run in a pod. It
begins when the service has answered for a second. From then on it prints what it has seen, as JSON,
at each line that it is given, until its standard input ends.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from time import monotonic
from urllib.parse import urlsplit


@dataclass
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
    answers: dict[str, int] = field(default_factory=dict)
    """How often each body came, of answers with 200."""
    longest: float = 0
    """Seconds, of the slowest request."""
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
        if streams and streams[0].at_eof():  # closed while idle: nothing was sent on it
            streams[1].close()
            streams = None
        sent = monotonic()
        load.sent += 1
        try:
            async with asyncio.timeout(10):
                if streams is None:
                    streams = await asyncio.open_connection(url.hostname, url.port or 80)
                head, body = await _exchange(*streams, request.encode())
            if head.startswith(b"http/1.1 200"):
                answer = body.decode()
                load.answers[answer] = load.answers.get(answer, 0) + 1
            else:
                load.failures.append(Failure(sent, kept_alive, head[:40].decode()))
        except (OSError, EOFError, ValueError) as error:
            load.failures.append(Failure(sent, kept_alive, repr(error)))
            head = b"connection: close"
        load.longest = max(load.longest, monotonic() - sent)
        if streams and b"connection: close" in head:
            streams[1].close()
            streams = None
        await asyncio.sleep(pause)
    if streams:
        streams[1].close()


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[bytes, bytes]:
    """Send a request and read its answer: the head, in lower case, and the body."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    (length,) = (line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
    return head, await reader.readexactly(int(length.partition(b":")[2]))


async def _main(url: str, clients: int, pause: float) -> None:
    healthy = 0.0
    while healthy < 1:
        began = monotonic()
        async with steady_load(url, clients, pause) as trial:
            await asyncio.sleep(0.25)
        healthy = 0 if trial.failures else healthy + monotonic() - began
    async with steady_load(url, clients, pause) as load:
        print(json.dumps(asdict(load)), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(asdict(load)), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
