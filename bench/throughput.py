"""What is asked of whom, and how often they answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from redis import Redis

from dev.servers import Valkey, running

from .data import Data
from .load import Case, Sample
from .processes import SERVICE, Gunicorn

ROUNDS, SECONDS = 5, 3

Samples = dict[str, list[Sample]]
"""A sample per round, by the name of the case."""


def throughput(folder: Path, data: Data, valkey: Valkey) -> Samples:
    """Ask each in turn, in rounds, after a short round to warm up."""
    with _cases(folder, data, valkey) as cases:
        for case in cases:
            case.measure(1)
        rounds = [[case.measure(SECONDS) for case in cases] for _ in range(ROUNDS)]
        names = [case.name for case in cases]
    return dict(zip(names, map(list, zip(*rounds, strict=True)), strict=True))


@contextmanager
def _cases(folder: Path, data: Data, valkey: Valkey) -> Iterator[list[Case]]:
    """Every case, with its server running."""
    database, cache = {"DATABASE_URL": data.url}, {"REDIS_URL": valkey.url}
    bare = Gunicorn(folder / "bare", *SERVICE, "bench.bare:application()", **database)
    addons = Gunicorn(folder / "addons", *SERVICE, "bench.addons:application()", **database)
    items = Gunicorn(folder / "items", *SERVICE, "bench.bare_items:application()", **database)
    uncached = Gunicorn(folder / "uncached", *SERVICE, **database)
    cached = Gunicorn(folder / "cached", *SERVICE, **database, **cache)
    with running(bare, addons, items, uncached, cached):
        yield [
            Case("bare", bare),
            Case("add-ons", addons),
            Case("health", cached),
            Case("version", cached, "/version"),
            Case("bare item", items, data.item),
            Case("cache off", uncached, data.item),
            Case("cache hit", cached, data.item),
            Case("cache miss", cached, ids=data.ids, prepare=lambda: _empty(valkey)),
        ]


def _empty(valkey: Valkey) -> None:
    with Redis.from_url(valkey.url) as client:
        client.flushall()


def share(samples: Samples, name: str) -> float:
    """The throughput of `name` as a share of the bare application's in the same round."""
    pairs = zip(samples[name], samples["bare"], strict=True)
    return median(mine.rate / bare.rate for mine, bare in pairs)
