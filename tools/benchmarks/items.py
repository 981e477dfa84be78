"""Cases of the items: read from PostgreSQL, read through the cache, and created."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import asyncpg
from redis import Redis

from .containers import SERVICE, Container, Image, run_containers
from .measurement import Case, Comparison
from .overload.measurement import LoadCase

ITEMS = 100_000
"""More than wrk can read in one round, so that each read in the cache-miss case is a miss."""

INSERT = """
INSERT INTO items (name, description)
SELECT 'Lamp', 'For the desk.' FROM generate_series(1, $1) RETURNING id
"""
BARE = "tools.benchmarks.bare_items:create_app()"
READ_EACH_ONCE = Path(__file__).with_name("read_items.lua")
CREATE_EACH = Path(__file__).with_name("create_items.lua")
ITEM_CONTENT = b'{"name": "Lamp", "description": "For the desk."}'

BARE_READ = "bare FastAPI + asyncpg: `GET /items/{id}`"
READ = "`GET /items/{id}`, cache off"
CACHED_READ = "`GET /items/{id}`, cache hit"
BARE_CREATE = "bare FastAPI + asyncpg: `POST /items`"
CREATE = "`POST /items` without an `Idempotency-Key`"
PAGE = "`GET /items`, 20 items"


class ItemCases(NamedTuple):
    """The cases of CPU time per request, and those under overload."""

    cases: list[Case]
    load_cases: list[LoadCase]


@contextmanager
def item_cases(
    image: Image, database_url: str, cache_url: str, service_with_cache: Container, folder: Path
) -> Iterator[ItemCases]:
    """The cases, on a migrated database, with their servers running.

    `service_with_cache` uses the cache at `cache_url` and has to run already. `folder` is for
    temporary files.
    """
    ids = insert_items(database_url, ITEMS)
    ids_file = folder / "ids"
    ids_file.write_text("\n".join(ids))
    item = f"/items/{ids[0]}"
    bare = image.container(*SERVICE, BARE, DATABASE_URL=database_url)
    service = image.container(*SERVICE, DATABASE_URL=database_url)
    misses = CacheMisses(
        "`GET /items/{id}`, cache miss",
        service_with_cache,
        comparison=Comparison(READ),
        script=READ_EACH_ONCE,
        script_arguments=(str(ids_file),),
        cache_url=cache_url,
    )
    creates = Comparison(BARE_CREATE, target=0.70)
    cases = [
        Case(BARE_READ, bare, item),
        Case(READ, service, item, Comparison(BARE_READ, target=0.85)),
        Case(CACHED_READ, service_with_cache, item, Comparison(READ, target=1.00)),
        misses,
        Case(PAGE, service, "/items", Comparison(READ, target=0.75)),
        Case(BARE_CREATE, bare, "/items", script=CREATE_EACH),
        Case(CREATE, service, "/items", creates, script=CREATE_EACH),
    ]
    load_cases = [
        LoadCase(CACHED_READ, service_with_cache, item),
        LoadCase(READ, service, item),
        LoadCase("`POST /items`", service, "/items", ITEM_CONTENT),
    ]
    with run_containers(bare, service):
        yield ItemCases(cases, load_cases)


@dataclass(frozen=True, kw_only=True)
class CacheMisses(Case):
    """Reads that find an empty cache, each of another item."""

    cache_url: str

    def measure(self, seconds: int) -> float:
        with Redis.from_url(self.cache_url) as client:
            client.flushall()
        return super().measure(seconds)


def insert_items(database_url: str, number: int) -> list[str]:
    """Insert items into a migrated database and return their ids."""
    return asyncio.run(_insert_items(database_url, number))


async def _insert_items(database_url: str, number: int) -> list[str]:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(INSERT, number)
    finally:
        await connection.close()
    return [str(row["id"]) for row in rows]
