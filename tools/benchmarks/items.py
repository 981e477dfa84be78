"""Cases of the items: read from PostgreSQL, read through the cache, and created."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from redis import Redis

from .containers import SERVICE, Container, Image, run_containers
from .measurement import Case, Comparison

ITEMS = 100_000
"""More than wrk can read in one round, so that each read in the cache-miss case is a miss."""

INSERT = """
INSERT INTO items (name, description)
SELECT 'Lamp', 'For the desk.' FROM generate_series(1, $1) RETURNING id
"""
BARE = "tools.benchmarks.bare_items:create_app()"
READ_EACH_ONCE = Path(__file__).with_name("read_items.lua")
CREATE = Path(__file__).with_name("create_items.lua")

BARE_READ = "bare FastAPI + asyncpg: read"
BARE_CREATE = "bare FastAPI + asyncpg: create"

ITEM_COMPARISONS = [
    Comparison("`GET /items/{id}`, cache off", "read, cache off", BARE_READ, target=0.65),
    Comparison("`GET /items/{id}`, cache hit", "read, cache hit", BARE_READ),
    Comparison("`GET /items/{id}`, cache miss", "read, cache miss", BARE_READ),
    Comparison("`POST /items` without an `Idempotency-Key`", "create", BARE_CREATE),
]


@contextmanager
def item_cases(
    image: Image, database_url: str, cache_url: str, service_with_cache: Container, folder: Path
) -> Iterator[list[Case]]:
    """The cases, on a migrated database, with their servers running.

    `service_with_cache` uses the cache at `cache_url` and has to run already. `folder` is for
    temporary files.
    """
    ids = asyncio.run(_insert_items(database_url))
    ids_file = folder / "ids"
    ids_file.write_text("\n".join(ids))
    item = f"/items/{ids[0]}"
    bare = image.container(*SERVICE, BARE, DATABASE_URL=database_url)
    service_without_cache = image.container(*SERVICE, DATABASE_URL=database_url)
    misses = CacheMisses(
        "read, cache miss",
        service_with_cache,
        script=READ_EACH_ONCE,
        script_arguments=(str(ids_file),),
        cache_url=cache_url,
    )
    with run_containers(bare, service_without_cache):
        yield [
            Case(BARE_READ, bare, item),
            Case("read, cache off", service_without_cache, item),
            Case("read, cache hit", service_with_cache, item),
            misses,
            Case(BARE_CREATE, bare, "/items", CREATE),
            Case("create", service_without_cache, "/items", CREATE),
        ]


@dataclass(frozen=True, kw_only=True)
class CacheMisses(Case):
    """Reads that find an empty cache, each of another item."""

    cache_url: str

    def measure(self, seconds: int) -> float:
        with Redis.from_url(self.cache_url) as client:
            client.flushall()
        return super().measure(seconds)


async def _insert_items(database_url: str) -> list[str]:
    """Insert `ITEMS` items and return their ids."""
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(INSERT, ITEMS)
    finally:
        await connection.close()
    return [str(row["id"]) for row in rows]
