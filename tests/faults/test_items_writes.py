"""No acknowledged write is lost, and none is executed twice.

Clients create, replace and delete items, and repeat each request until it is acknowledged.
Meanwhile PostgreSQL, Valkey and the workers of Gunicorn are killed with SIGKILL, and PostgreSQL is
suspended.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import sleep
from uuid import UUID, uuid4

import httpx

from tests.faults.durable_service import DurableService, running_service
from tests.integration.conftest import fetch_rows

WRITERS = 8
READERS = 4
ROUNDS = 3
"""How often each fault happens."""

REQUESTS_AFTER_FAULT = 30
"""How many requests are acknowledged before the next fault."""

VERSIONS = 3
SETTINGS = {
    "WEB_CONCURRENCY": "2",
    "CACHE_TTL": "300",
    "REDIS_TIMEOUT": "5",
    "REQUEST_TIMEOUT": "1.5",
    "DATABASE_STATEMENT_TIMEOUT": "1",
}
"""With these, no read may be stale, and requests are cancelled in the middle of a transaction.

REDIS_TIMEOUT is so long that an invalidation fails only if Valkey was killed, and Valkey is empty
after a restart. CACHE_TTL is so long that a stale value would stay until the end of the test.
"""

FROZEN_SECONDS = 2
"""Longer than a statement and a request may take."""

REPLAYS = 200
DURABILITY_SETTINGS = "'fsync', 'full_page_writes', 'synchronous_commit'"


@dataclass
class ItemHistory:
    """What was sent for one item, and what was acknowledged when."""

    key: str
    path: str = ""
    sent_version: int = 0
    acknowledged_version: int = 0
    delete_was_sent: bool = False
    delete_was_acknowledged: bool = False

    @property
    def item_id(self) -> UUID:
        return UUID(self.path.removeprefix("/items/"))

    def content(self, version: int) -> dict[str, str]:
        return {"name": f"{self.key} {version}"}

    def name(self) -> str:
        """The name in the version that was acknowledged last."""
        return self.content(self.acknowledged_version)["name"]


class Clients:
    """Writers, each with its own items, and readers of the items of all writers."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.histories: list[ItemHistory] = []
        self.acknowledged_requests = 0
        self.repetitions = 0
        self.reads = 0
        self.stopped = False

    async def write(self) -> None:
        """Create, replace and delete items, each request until it is acknowledged."""
        while not self.stopped:
            history = ItemHistory(key=str(uuid4()))
            await self.create(history)
            self.histories.append(history)
            for version in range(1, VERSIONS + 1):
                await self.replace(history, version)
            if len(self.histories) % 4 == 0:
                await self.delete(history)

    async def create(self, history: ItemHistory) -> None:
        response = await self.send_until(
            {201},
            "POST",
            "/items",
            json=history.content(0),
            headers={"Idempotency-Key": history.key},
        )
        history.path = response.headers["location"]

    async def replace(self, history: ItemHistory, version: int) -> None:
        history.sent_version = version
        content = history.content(version)
        await self.send_until({200}, "PUT", history.path, json=content, headers={"If-Match": "*"})
        history.acknowledged_version = version

    async def delete(self, history: ItemHistory) -> None:
        history.delete_was_sent = True
        # 404 acknowledges too: an earlier request has deleted the item, and its response was lost.
        await self.send_until({204, 404}, "DELETE", history.path)
        history.delete_was_acknowledged = True

    async def send_until(
        self, statuses: set[int], method: str, path: str, **options: object
    ) -> httpx.Response:
        """The first response with one of `statuses`. All others are 409 or 503, or get lost."""
        while True:
            response = await self.send(method, path, **options)
            if response is not None and response.status_code in statuses:
                self.acknowledged_requests += 1
                return response
            self.repetitions += 1
            await asyncio.sleep(0.02)

    async def send(self, method: str, path: str, **options: object) -> httpx.Response | None:
        """The response, or None if the connection failed."""
        try:
            response = await self.client.request(method, path, **options)  # type: ignore[arg-type]
        except httpx.TransportError:
            return None
        assert response.status_code in {200, 201, 204, 404, 409, 503}, response.text
        return response

    async def read(self) -> None:
        """Read random items, and check that none is older than what was acknowledged before."""
        random = Random(0)
        while not self.stopped:
            await asyncio.sleep(0)
            if not self.histories:
                continue
            history = random.choice(self.histories[-100:])
            oldest_version = history.acknowledged_version
            is_deleted = history.delete_was_acknowledged
            response = await self.send("GET", history.path)
            if response is None or response.status_code == 503:
                await asyncio.sleep(0.02)
                continue
            self.reads += 1
            if response.status_code == 404:
                assert history.delete_was_sent
                continue
            assert not is_deleted
            version = int(response.json()["name"].removeprefix(history.key))
            assert oldest_version <= version <= history.sent_version

    async def wait_for_acknowledgements(self, number: int) -> None:
        """Wait until `number` further requests are acknowledged."""
        target = self.acknowledged_requests + number
        async with asyncio.timeout(60):
            while self.acknowledged_requests < target:
                await asyncio.sleep(0.02)


def kill_and_restart_postgres(service: DurableService) -> None:
    service.postgres.stop(signal.SIGKILL)
    service.postgres.start()


def freeze_postgres(service: DurableService) -> None:
    """Suspend PostgreSQL, so that statements and commits exceed their time limits."""
    service.postgres.freeze()
    sleep(FROZEN_SECONDS)
    service.postgres.thaw()


def kill_and_restart_valkey(service: DurableService) -> None:
    service.valkey.stop(signal.SIGKILL)
    service.valkey.start()


def kill_worker(service: DurableService) -> None:
    """Kill the oldest worker. Gunicorn starts another one."""
    os.kill(min(service.gunicorn.find_children()), signal.SIGKILL)


def kill_all(service: DurableService) -> None:
    for worker in service.gunicorn.find_children():
        os.kill(worker, signal.SIGKILL)
    service.valkey.stop(signal.SIGKILL)
    kill_and_restart_postgres(service)
    service.valkey.start()


FAULTS: list[Callable[[DurableService], None]] = [
    kill_and_restart_postgres,
    kill_worker,
    freeze_postgres,
    kill_and_restart_valkey,
    kill_all,
]


async def cause_faults(service: DurableService, clients: Clients) -> None:
    """Cause each fault several times, at random moments between requests that succeed."""
    random = Random(0)
    for fault in FAULTS * ROUNDS:
        await clients.wait_for_acknowledgements(REQUESTS_AFTER_FAULT)
        await asyncio.sleep(random.uniform(0, 2))
        await asyncio.to_thread(fault, service)
    await clients.wait_for_acknowledgements(REQUESTS_AFTER_FAULT)


async def check_database(url: str, histories: list[ItemHistory]) -> None:
    """Each item is there exactly once, as it was acknowledged last, and nothing else is."""
    expected = {
        history.item_id: history.name()
        for history in histories
        if not history.delete_was_acknowledged
    }
    rows = await fetch_rows(url, "SELECT id, name FROM items")
    assert len(rows) == len(expected)
    assert dict(rows) == expected
    keys = await fetch_rows(url, "SELECT key FROM idempotency_keys")
    assert sorted(key for (key,) in keys) == sorted(history.key for history in histories)


async def check_reads(clients: Clients) -> None:
    """Reads return what was acknowledged last: from PostgreSQL first, then from the cache."""
    for history in clients.histories:
        for _ in range(2):
            response = await clients.send_until({200, 404}, "GET", history.path)
            if history.delete_was_acknowledged:
                assert response.status_code == 404
            else:
                assert response.json()["name"] == history.name()


async def check_replays(clients: Clients) -> None:
    """A retry of a create gets the response that was acknowledged."""
    for history in clients.histories[:REPLAYS]:
        path = history.path
        await clients.create(history)
        assert history.path == path


async def test_no_acknowledged_write_is_lost_or_repeated_during_crashes(
    tmp_path: Path,
) -> None:
    async with (
        running_service(tmp_path, **SETTINGS) as service,
        httpx.AsyncClient(base_url=service.url, timeout=60) as client,
    ):
        database_url = service.postgres.url
        settings = await fetch_rows(
            database_url, f"SELECT setting FROM pg_settings WHERE name IN ({DURABILITY_SETTINGS})"
        )
        assert settings == [("on",)] * 3

        clients = Clients(client)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WRITERS):
                tasks.create_task(clients.write())
            for _ in range(READERS):
                tasks.create_task(clients.read())
            await cause_faults(service, clients)
            clients.stopped = True
        print(
            f"{clients.acknowledged_requests} acknowledged requests,"
            f" {clients.repetitions} repetitions, {clients.reads} reads"
        )
        assert clients.repetitions > 0

        await check_database(database_url, clients.histories)
        await check_reads(clients)
        await check_replays(clients)
        await check_database(database_url, clients.histories)
