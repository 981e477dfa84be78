"""Requests for items: from bare FastAPI, from PostgreSQL, and from the cache."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from redis import Redis

from tools.dev.servers import Valkey, running

from .load import Case, Sample, wrk
from .processes import SERVICE, Gunicorn

ITEMS = 100_000
"""More than can be asked for in a round, so that each is asked for once."""

INSERT = """
INSERT INTO items (name, description)
SELECT 'Lamp', 'For the desk.' FROM generate_series(1, $1) RETURNING id
"""
BARE = "tools.benchmarks.bare_items:application()"
EACH_ONCE = Path(__file__).with_name("items.lua")


@contextmanager
def cases(folder: Path, url: str, valkey: Valkey, cached: Gunicorn) -> Iterator[list[Case]]:
    """Cases on the migrated database at `url`, with their servers running. `cached` uses both."""
    found = asyncio.run(_insert(url))
    ids = folder / "ids"
    ids.write_text("\n".join(found))
    item = f"/items/{found[0]}"
    bare = Gunicorn(folder / "bare-items", *SERVICE, BARE, DATABASE_URL=url)
    uncached = Gunicorn(folder / "uncached", *SERVICE, DATABASE_URL=url)
    with running(bare, uncached):
        yield [
            Case("bare item", bare, item),
            Case("cache off", uncached, item),
            Case("cache hit", cached, item),
            Misses("cache miss", cached, valkey=valkey, ids=ids),
        ]


@dataclass(frozen=True, kw_only=True)
class Misses(Case):
    """Each of the items once whose ids are in a file, beginning with an empty cache."""

    valkey: Valkey
    ids: Path

    def measure(self, seconds: int) -> Sample:
        with Redis.from_url(self.valkey.url) as client:
            client.flushall()
        return super().measure(seconds)

    def ask(self, seconds: int) -> tuple[int, float]:
        script = ("-s", str(EACH_ONCE))
        return wrk(seconds, *script, self.server.url, "--", str(self.ids))


async def _insert(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch(INSERT, ITEMS)
    await connection.close()
    return [str(row["id"]) for row in rows]
