"""Clients of the server-sent events in docs/streams.md, which check each event and each end.

As a program (``event_streams.py URL CLIENTS``) it needs only Python, so that it can run in a pod.
It prints its statistics as JSON for each line that it reads, until its standard input ends.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

END_OF_EVENT = b"\n\n"


@dataclass
class Statistics:
    """What has become of the streams so far."""

    open_streams: int = 0
    """Streams that have received an event and not ended."""
    ended_streams: int = 0
    """Streams that the server has ended with the last chunk."""
    event_count: int = 0
    refused_connections: int = 0
    failures: list[str] = field(default_factory=list)
    """Streams that ended in another way, and events that are missing, doubled or incomplete."""


@asynccontextmanager
async def event_streams(url: str, clients: int) -> AsyncIterator[Statistics]:
    """Receive the events of `url` with `clients` clients, which reconnect as browsers do."""
    statistics = Statistics()
    tasks = [asyncio.create_task(_Client(url, statistics).run()) for _ in range(clients)]
    try:
        yield statistics
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


class _Client:
    def __init__(self, url: str, statistics: Statistics) -> None:
        self._url = urlsplit(url)
        self._statistics = statistics
        self._last_event_id: int | None = None
        self._retry_seconds = 1.0

    async def run(self) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection(
                    self._url.hostname, self._url.port or 80
                )
            except OSError:
                self._statistics.refused_connections += 1
                await asyncio.sleep(self._retry_seconds)
                continue
            try:
                await self._receive_stream(reader, writer)
                self._statistics.ended_streams += 1
            except (OSError, EOFError, ValueError) as error:
                self._statistics.failures.append(repr(error))
            finally:
                writer.close()
            await asyncio.sleep(self._retry_seconds)

    async def _receive_stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Return after the last chunk. Raises ValueError if an event is incomplete."""
        lines = [f"GET {self._url.path} HTTP/1.1", f"Host: {self._url.netloc}"]
        if self._last_event_id is not None:
            lines.append(f"Last-Event-ID: {self._last_event_id}")
        writer.write("\r\n".join([*lines, "", ""]).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ValueError(head.decode())
        self._statistics.open_streams += 1
        try:
            incomplete_event = b""
            async for chunk in _read_chunks(reader):
                *events, incomplete_event = (incomplete_event + chunk).split(END_OF_EVENT)
                for event in events:
                    self._receive_event(event)
        finally:
            self._statistics.open_streams -= 1
        if incomplete_event:
            raise ValueError(f"The stream ended in an event: {incomplete_event!r}")

    def _receive_event(self, event: bytes) -> None:
        fields = dict(line.split(": ", maxsplit=1) for line in event.decode().splitlines())
        if "retry" in fields:
            self._retry_seconds = int(fields["retry"]) / 1000
        if "id" not in fields:  # the comment `: ping`
            return
        event_id = int(fields["id"])
        # The first event of a stream has the id that the client has, and no data.
        step = 1 if "data" in fields else 0
        if self._last_event_id is not None and event_id != self._last_event_id + step:
            self._statistics.failures.append(f"{event_id} after {self._last_event_id}")
        self._last_event_id = event_id
        self._statistics.event_count += step


async def _read_chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield the chunks of a body. Raises EOFError or ValueError if the last chunk is missing."""
    while size := int(await reader.readline(), base=16):
        chunk = await reader.readexactly(size + len(b"\r\n"))
        yield chunk[:size]


def measure_exit_seconds(log: str) -> float:
    """Return the time from SIGTERM to the end of Gunicorn, from the log of a container."""
    lines = [json.loads(line) for line in log.splitlines()]
    times = {line["message"]: datetime.fromisoformat(line["time"]) for line in lines}
    return (times["Shutting down: Master"] - times["Handling signal: term"]).total_seconds()


async def _main(url: str, clients: int) -> None:
    async with event_streams(url, clients) as statistics:
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(asdict(statistics)), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2])))
