"""A worker leaks nothing if clients leave in the middle of a request, or under mixed load.

`make soak` runs this test with ten minutes of load, and shows what it measured.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from random import Random
from secrets import token_hex
from urllib.parse import urlsplit

import httpx
import pytest
from redis.asyncio import Redis

from fastapi_k8s.settings import Settings
from tests.faults.durable_service import DurableService, running_service
from tests.integration.conftest import fetch_rows
from tests.integration.proxies import RESET_ON_CLOSE

INSPECTED_APP = "tests.faults.inspected_app:create_inspected_app()"
LOAD_SECONDS = float(os.environ.get("SOAK_SECONDS", "15"))
WARM_UP_SECONDS = 5
CLIENTS = 20
PAUSE_SECONDS = 0.05

LEAVING_CLIENTS = 1000
LEAVING_AT_ONCE = 100
MAX_PATIENCE_SECONDS = 0.1

OBJECTS_TOLERANCE = 500
"""Less than LEAVING_CLIENTS, so that a leak of one object per client fails the test."""

SERIES_TOLERANCE = 200
"""Ten combinations of labels, because a rare status may occur for the first time."""

STORED_KEYS_TOLERANCE = 100
MEMORY_TOLERANCE_MIB = 10.0
MAX_DATABASE_CONNECTIONS = Settings.model_fields["database_pool_size"].default + 1
"""One for readiness is not in the pool."""

MAX_CACHE_CONNECTIONS = Settings.model_fields["redis_pool_size"].default
COUNT_CLIENTS = """
SELECT count(*) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""

HOST = b"Host: api\r\n\r\n"
UNFINISHED_REQUESTS = [
    b"GET /ver",
    b"GET /version HTTP/1.1\r\nHost: api\r\nX-Unfinished: ",
    b"POST /echo HTTP/1.1\r\nContent-Length: 100000\r\n" + HOST + bytes(50_000),
    b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HOST + b"ffff\r\n" + bytes(50_000),
    b"GET /slow/0.05 HTTP/1.1\r\n" + HOST,
    b"GET /query/0.05 HTTP/1.1\r\n" + HOST,
    b"GET /large-response HTTP/1.1\r\n" + HOST,
    (b"GET /query/0.05 HTTP/1.1\r\n" + HOST) * 5,
    b"POST /items HTTP/1.1\r\nContent-Length: 14\r\n" + HOST + b'{"name":"Lamp"}',  # example
]
"""What clients send before they leave. They read no response."""


@dataclass(frozen=True)
class Usage:
    """What a worker uses when it has only one connection."""

    connections: int
    held_bytes: int
    tasks: int
    objects: int
    descriptors: int
    """Without those of the connections to the database and to the cache."""
    database_connections: int
    cache_connections: int
    stored_keys: int
    series: int
    memory_mib: float


async def measure(service: DurableService, client: httpx.AsyncClient) -> Usage:
    """Measure the worker when only the connection of `client` is left."""
    async with asyncio.timeout(60):
        while True:
            internals = (await client.get("/internals")).raise_for_status().json()
            if internals["connections"] == 1:
                break
            await asyncio.sleep(0.2)
    [worker] = service.gunicorn.find_children()
    descriptors = len(list(Path(f"/proc/{worker}/fd").iterdir()))
    [(database_connections,)] = await fetch_rows(service.postgres.url, COUNT_CLIENTS)
    [(stored_keys,)] = await fetch_rows(
        service.postgres.url, "SELECT count(*) FROM idempotency_keys"
    )
    async with Redis.from_url(service.valkey.url) as redis:
        cache_connections = len(await redis.client_list()) - 1
    metrics = (await client.get("/metrics")).raise_for_status().text
    return Usage(
        **internals,
        descriptors=descriptors - database_connections - cache_connections,
        database_connections=database_connections,
        cache_connections=cache_connections,
        stored_keys=stored_keys,
        series=sum(not line.startswith("#") for line in metrics.splitlines()),
        memory_mib=measure_memory_mib(worker),
    )


def measure_memory_mib(pid: int) -> float:
    """The proportional set size of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no proportional set size of process {pid}")


async def leave_during(request: bytes, url: str, patience_seconds: float, reset: bool) -> None:
    """Send `request`, wait, and close the connection without reading a response."""
    _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
    writer.write(request)
    await asyncio.sleep(patience_seconds)
    if reset:
        client_socket = writer.get_extra_info("socket")
        client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


async def leave(url: str, clients: int) -> None:
    """Let `clients` clients leave in the middle of a request, many of them at the same time."""
    random = Random(0)
    requests = cycle(UNFINISHED_REQUESTS)
    for _ in range(0, clients, LEAVING_AT_ONCE):
        async with asyncio.TaskGroup() as tasks:
            for _ in range(LEAVING_AT_ONCE):
                patience = random.uniform(0, MAX_PATIENCE_SECONDS)
                reset = random.random() < 0.5
                tasks.create_task(leave_during(next(requests), url, patience, reset))


async def probe(client: httpx.AsyncClient) -> None:
    for path in ("/health", "/ready", "/metrics"):
        await client.get(path)


async def send_random_values(client: httpx.AsyncClient) -> None:
    """Send values that clients choose. None may become a label of a metric or stay in memory."""
    value = token_hex(16)
    await client.get("/version", headers={"X-Request-ID": value, "Host": f"{value}.example"})
    await client.get(f"/{value}?{value}", headers={f"X-{value}": value})
    await client.request(value.upper(), "/version")
    await client.options("/version", headers={"Origin": f"https://{value}.example"})
    await client.post("/echo", content=value * 1000, headers={"Content-Type": f"text/{value}"})
    await client.get("/version", headers={"Host": f"{value} invalid"})


async def use_the_database(client: httpx.AsyncClient) -> None:
    await client.get("/query/0.05")


# example
async def use_items(client: httpx.AsyncClient) -> None:
    """Create, read, replace and delete an item, also in ways that are refused."""
    content = {"name": token_hex(8), "description": token_hex(500)}
    headers = {"Idempotency-Key": token_hex(16)}
    response = await client.post("/items", json=content, headers=headers)
    if response.status_code != 201:
        assert response.status_code == 503
        return
    await client.post("/items", json=content, headers=headers)
    await client.post("/items", json={"name": ""})
    path, etag = response.headers["Location"], response.headers["ETag"]
    await client.get(path)
    await client.get(path, headers={"If-None-Match": etag})
    await client.get("/items", params={"limit": 5})
    await client.put(path, json=content, headers={"If-Match": etag})
    await client.put(path, json=content, headers={"If-Match": f'"{token_hex(8)}"'})
    await client.get(path)
    await client.delete(path)
    await client.get(path)


# end example
TRAFFIC: list[Callable[[httpx.AsyncClient], Awaitable[None]]] = [
    probe,
    send_random_values,
    use_the_database,
    use_items,  # example
]


@dataclass
class Load:
    """The requests of clients that do not leave."""

    url: str
    requests: int = 0
    stopped: bool = False

    async def count(self, response: httpx.Response) -> None:
        """Count a response. None may be an error of the application."""
        self.requests += 1
        assert response.status_code != 500, response.request.url

    async def run_client(self) -> None:
        hooks = {"response": [self.count]}
        async with httpx.AsyncClient(base_url=self.url, timeout=60, event_hooks=hooks) as client:
            for send in cycle(TRAFFIC):
                if self.stopped:
                    return
                await send(client)
                await asyncio.sleep(PAUSE_SECONDS)

    async def run(self, seconds: float) -> None:
        """Send all kinds of traffic from `CLIENTS` clients, each on its own connections."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS):
                tasks.create_task(self.run_client())
            await asyncio.sleep(seconds)
            self.stopped = True


def format_table(before: Usage, after: Usage) -> str:
    """The figures as a Markdown table."""
    rows = ["| Figure | Before | After |", "|---|---|---|"]
    after_figures = asdict(after)
    for name, value in asdict(before).items():
        rows.append(f"| {name.replace('_', ' ')} | {value:.0f} | {after_figures[name]:.0f} |")
    return "\n".join(rows)


async def test_nothing_grows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with (
        running_service(tmp_path, INSPECTED_APP, IDEMPOTENCY_TTL="1") as service,
        httpx.AsyncClient(base_url=service.url, timeout=60) as client,
    ):
        # Otherwise the fragmentation of the memory by the first load would look like a leak.
        await leave(service.url, LEAVING_CLIENTS)
        await Load(service.url).run(WARM_UP_SECONDS)
        before = await measure(service, client)

        await leave(service.url, LEAVING_CLIENTS)
        load = Load(service.url)
        await load.run(LOAD_SECONDS)
        after = await measure(service, client)

        with capsys.disabled():
            rate = load.requests / LOAD_SECONDS
            print(
                f"\n{LEAVING_CLIENTS} clients left, then {load.requests} requests"
                f" in {LOAD_SECONDS:.0f} s ({rate:.0f} per second)."
            )
            print(format_table(before, after))
        assert after.held_bytes <= before.held_bytes
        assert after.tasks <= before.tasks
        assert after.objects <= before.objects + OBJECTS_TOLERANCE
        assert after.descriptors <= before.descriptors
        assert after.database_connections <= MAX_DATABASE_CONNECTIONS
        assert after.cache_connections <= MAX_CACHE_CONNECTIONS
        assert after.stored_keys <= before.stored_keys + STORED_KEYS_TOLERANCE
        assert after.series <= before.series + SERIES_TOLERANCE
        assert after.memory_mib <= before.memory_mib + MEMORY_TOLERANCE_MIB
