"""What clients see while a server fails: statuses, durations, and the time until recovery."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from secrets import token_hex
from time import monotonic
from typing import TypeAlias
from uuid import uuid4

import httpx

from fastapi_k8s.settings import Settings
from tests.faults.faults import (
    Fault,
    lock_table,  # example
)
from tests.faults.stack import Stack

Send: TypeAlias = Callable[[], Awaitable[httpx.Response]]

READY = "`/ready`"
PAUSE_SECONDS = 0.05
"""The pause between two requests of one kind."""

RECOVERY_ROUNDS = 3
"""How many rounds in a row have to succeed: the pool may still have a connection that is dead."""

GIVE_UP_SECONDS = 60
POOL_SIZE = Settings.model_fields["database_pool_size"].default  # example


@dataclass
class Results:
    """The responses to the requests of one kind. Times are in seconds."""

    statuses: set[int] = field(default_factory=set)
    longest_seconds: float = 0
    lacks_retry_after: bool = False

    @property
    def worst_status(self) -> int:
        return max(self.statuses)

    def add(self, response: httpx.Response, seconds: float) -> None:
        self.statuses.add(response.status_code)
        self.longest_seconds = max(self.longest_seconds, seconds)
        is_unavailable = response.status_code == HTTPStatus.SERVICE_UNAVAILABLE
        if is_unavailable and "retry-after" not in response.headers:
            self.lacks_retry_after = True


@dataclass
class Observation:
    """What clients saw during a fault, and how long after it.

    `failures` are the results of the server's check in /ready other than `ok`.
    """

    results: dict[str, Results]
    failures: set[str]
    recovery_seconds: float


async def make_requests(client: httpx.AsyncClient, stack: Stack) -> dict[str, Send]:
    """How to send a request, by the kind of the request. The kinds are columns of the tables."""
    # example
    create_items = (
        "INSERT INTO items (name) SELECT 'Lamp' FROM generate_series(1, 500) RETURNING id"
    )
    unread_paths = iter([f"/items/{row['id']}" for row in await stack.fetch_rows(create_items)])
    cached_path = next(unread_paths)
    replaced_path = next(unread_paths)
    # PostgreSQL stores a long text outside of the row, in pages that a full disk does not have.
    content = {"name": "Lamp", "description": token_hex(1500)}

    async def post() -> httpx.Response:
        headers = {"Idempotency-Key": uuid4().hex}
        return await client.post("/items", json=content, headers=headers)

    async def put() -> httpx.Response:
        return await client.put(replaced_path, json=content, headers={"If-Match": "*"})

    # end example
    return {
        "`/health`": lambda: client.get("/health"),
        READY: lambda: client.get("/ready"),
        # example
        "cached read": lambda: client.get(cached_path),
        "uncached read": lambda: client.get(next(unread_paths)),
        "list": lambda: client.get("/items"),
        "`POST`": post,
        "`PUT`": put,
        # end example
    }


async def observe(stack: Stack, fault: Fault) -> Observation:
    """Send requests of every kind, one after the other, while the fault lasts and until it is over.

    The duration of a request that was sent before the fault counts from the beginning of the fault.
    """
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=stack.url, timeout=60, limits=limits) as client:
        requests = await make_requests(client, stack)
        await fill_pool(stack, requests)  # example
        await measure_recovery(requests, fault.check)
        results = {kind: Results() for kind in requests}
        checks: set[str] = set()
        begun_at = monotonic()
        is_over = False

        async def send_repeatedly(kind: str) -> None:
            while not is_over:
                sent_at = monotonic()
                response = await requests[kind]()
                ended_at = monotonic()
                results[kind].add(response, ended_at - max(sent_at, begun_at))
                if kind == READY:
                    checks.add(response.json()["checks"][fault.check])
                await asyncio.sleep(PAUSE_SECONDS)

        async with asyncio.TaskGroup() as group:
            for kind in requests:
                group.create_task(send_repeatedly(kind))
            async with fault.begin(stack):
                begun_at = monotonic()
                await asyncio.sleep(fault.seconds)
                is_over = True
            recovery_seconds = await measure_recovery(requests, fault.check)
    return Observation(results, checks - {"ok"}, recovery_seconds)


async def fill_pool(stack: Stack, requests: dict[str, Send]) -> None:  # example
    """Let all connections of the pool be open, with all statements prepared, as under load.

    While the table is locked, each of the requests needs its own connection.
    """
    find_waiting = "SELECT 1 FROM pg_locks WHERE NOT granted"
    for kind in ("uncached read", "list", "`POST`", "`PUT`"):
        async with asyncio.TaskGroup() as group, lock_table(stack, stack.postgres):
            for _ in range(POOL_SIZE):
                group.create_task(send_until_success(requests[kind]))
            while len(await stack.fetch_rows(find_waiting)) < POOL_SIZE:
                await asyncio.sleep(PAUSE_SECONDS)


async def send_until_success(send: Send) -> None:  # example
    """Send a request until it succeeds. On a busy machine, the pool refuses some at first."""
    while not (await send()).is_success:
        await asyncio.sleep(PAUSE_SECONDS)


async def measure_recovery(requests: dict[str, Send], check: str) -> float:
    """Return the seconds from now until requests of every kind succeed, and a check is `ok`."""
    ended_at = monotonic()
    recovered_at = ended_at
    rounds_in_a_row = 0
    while rounds_in_a_row < RECOVERY_ROUNDS:
        if await succeed(requests, check):
            if rounds_in_a_row == 0:
                recovered_at = monotonic()
            rounds_in_a_row += 1
        else:
            rounds_in_a_row = 0
        assert monotonic() - ended_at < GIVE_UP_SECONDS, "the application did not recover"
        await asyncio.sleep(PAUSE_SECONDS)
    return recovered_at - ended_at


async def succeed(requests: dict[str, Send], check: str) -> bool:
    """Send a request of every kind. Return whether all succeed, and a check in /ready is `ok`."""
    responses = await asyncio.gather(*[send() for send in requests.values()])
    if not all(response.is_success for response in responses):
        return False
    ready = responses[list(requests).index(READY)]
    return bool(ready.json()["checks"][check] == "ok")
