"""After outages and clients that leave, the service has all of its connections again."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from random import Random
from uuid import uuid4

import httpx
from redis.asyncio import Redis

from fastapi_k8s.cache import VALUE_PREFIX
from tests.faults.durable_service import DurableService, running_service
from tests.integration.conftest import fetch_rows
from tools.dev.servers import Server

POOL_SIZE = 3
SETTINGS = {
    "DATABASE_POOL_SIZE": f"{POOL_SIZE}",
    "DATABASE_POOL_TIMEOUT": "0.5",
    "DATABASE_STATEMENT_TIMEOUT": "1",
    "REQUEST_TIMEOUT": "1.5",
    "REDIS_POOL_SIZE": "1",
}
"""With one connection to Redis, the cache cannot be used again if it is not released."""

CLIENTS = 30
ROUNDS = 2
OUTAGE_SECONDS = 2.0
"""Longer than a statement and a request may take."""

PAUSE_SECONDS = 0.5
MAX_PATIENCE_SECONDS = 1.0
PATHS = ("/query/0.02", "/transaction/0.02", "/transaction/0.3", "/cached/{key}")
QUERY_SECONDS = 0.9
COUNT_QUERIES = (
    "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep($1)'"
)
COUNT_ABANDONED_TRANSACTIONS = """
SELECT count(*) FROM pg_stat_activity WHERE state ~ '^idle in transaction'
"""


@contextmanager
def freeze(server: Server) -> Iterator[None]:
    """Suspend the server in the block."""
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@contextmanager
def kill(server: Server) -> Iterator[None]:
    """Kill the server with SIGKILL, and start it again at the end of the block."""
    server.stop(signal.SIGKILL)
    try:
        yield
    finally:
        server.start()


class ImpatientClients:
    """Clients that send requests all the time, and close many connections before the response."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.stopped = False

    async def run_client(self, seed: int) -> None:
        random = Random(seed)
        async with httpx.AsyncClient(base_url=self.url) as client:
            for path in cycle(PATHS):
                if self.stopped:
                    return
                patience_seconds = random.uniform(0.01, MAX_PATIENCE_SECONDS)
                try:
                    response = await client.get(path.format(key=uuid4()), timeout=patience_seconds)
                except httpx.TransportError:
                    continue
                assert response.status_code in {200, 503}, response.text
                await asyncio.sleep(0.01)


async def cause_outages(service: DurableService) -> None:
    """Suspend and kill PostgreSQL and Valkey, one after the other."""
    for _ in range(ROUNDS):
        for begin_outage in (freeze, kill):
            for server in (service.postgres, service.valkey):
                await asyncio.sleep(PAUSE_SECONDS)
                with begin_outage(server):
                    await asyncio.sleep(OUTAGE_SECONDS)


async def count(service: DurableService, query: str) -> int:
    [(number,)] = await fetch_rows(service.postgres.url, query)
    return int(number)


async def wait_for_concurrent_queries(service: DurableService, client: httpx.AsyncClient) -> None:
    """Wait until as many queries run at the same time as the pool has connections."""
    async with asyncio.timeout(30):
        while True:
            async with asyncio.TaskGroup() as tasks:
                queries = [
                    tasks.create_task(client.get(f"/query/{QUERY_SECONDS}"))
                    for _ in range(POOL_SIZE)
                ]
                await asyncio.sleep(QUERY_SECONDS / 2)
                running = await count(service, COUNT_QUERIES)
            if running == POOL_SIZE and all(query.result().is_success for query in queries):
                return


async def wait_until_cached(service: DurableService, client: httpx.AsyncClient) -> None:
    """Wait until a value that was read is in the cache."""
    key = f"{uuid4()}"
    value = VALUE_PREFIX + b"key" + key.encode()
    async with asyncio.timeout(30), Redis.from_url(service.valkey.url) as redis:
        while await redis.get(key) != value:
            response = await client.get(f"/cached/{key}")
            assert response.json() == key
            await asyncio.sleep(0.1)


async def test_all_connections_can_be_used_after_outages(tmp_path: Path) -> None:
    async with (
        running_service(
            tmp_path, "tests.faults.inspected_app:create_inspected_app()", **SETTINGS
        ) as service,
        httpx.AsyncClient(base_url=service.url, timeout=60) as client,
    ):
        clients = ImpatientClients(service.url)
        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                tasks.create_task(clients.run_client(number))
            await cause_outages(service)
            clients.stopped = True
        await wait_for_concurrent_queries(service, client)
        await wait_until_cached(service, client)
        assert await count(service, COUNT_ABANDONED_TRANSACTIONS) == 0
