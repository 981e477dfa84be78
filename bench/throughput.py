"""What is asked of whom, and how often they answer."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
from redis import Redis

from dev.servers import Postgres, Valkey, running

from .load import Case, Sample
from .processes import Gunicorn

ROUNDS, SECONDS = 5, 3
ITEMS = 100_000
"""More than are asked for in SECONDS, so that each is asked for once."""

SERVICE = ("-c", "python:fastapi_k8s.server")


@contextmanager
def cases(folder: Path, postgres: Postgres, valkey: Valkey) -> Iterator[list[Case]]:
    """Every case, with its server running. `postgres` is migrated."""
    ids = folder / "ids"
    ids.write_text("\n".join(found := asyncio.run(_insert(postgres.url))))
    item = f"/items/{found[0]}"
    bare = Gunicorn(folder / "bare", *SERVICE, "bench.bare:application()")
    addons = Gunicorn(folder / "addons", *SERVICE, "bench.addons:application()")
    uncached = Gunicorn(folder / "uncached", *SERVICE, DATABASE_URL=postgres.url)
    urls = {"DATABASE_URL": postgres.url, "REDIS_URL": valkey.url}
    cached = Gunicorn(folder / "cached", *SERVICE, **urls)
    with running(bare, addons, uncached, cached):
        yield [
            Case("bare", bare),
            Case("addons", addons),
            Case("health", cached),
            Case("version", cached, "/version"),
            Case("uncached", uncached, item),
            Case("hit", cached, item),
            Case("miss", cached, ids=ids, prepare=lambda: _empty(valkey.url)),
        ]


async def _insert(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    query = """
    INSERT INTO items (name, description)
    SELECT 'Lamp', 'For the desk.' FROM generate_series(1, $1) RETURNING id
    """
    rows = await connection.fetch(query, ITEMS)
    await connection.close()
    return [str(row["id"]) for row in rows]


def _empty(url: str) -> None:
    with Redis.from_url(url) as client:
        client.flushall()


def measure(of: list[Case]) -> dict[str, list[Sample]]:
    """The samples of each case by its name, one per round, after a short round to warm up."""
    for case in of:
        case.measure(1)
    samples: dict[str, list[Sample]] = {case.name: [] for case in of}
    for _ in range(ROUNDS):
        for case in of:
            samples[case.name].append(case.measure(SECONDS))
    return samples
