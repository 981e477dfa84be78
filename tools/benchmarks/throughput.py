"""What is asked of whom, and how often they answer."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from tools.dev.servers import Valkey, running

from . import items  # example
from .load import Case, Sample
from .processes import SERVICE, Gunicorn

ROUNDS, SECONDS = 5, 3

Samples = dict[str, list[Sample]]
"""A sample per round, by the name of the case."""


def throughput(folder: Path, url: str, valkey: Valkey) -> Samples:
    """Ask each in turn, in rounds, after a short round to warm up."""
    service = Gunicorn(folder / "service", *SERVICE, DATABASE_URL=url, REDIS_URL=valkey.url)
    with ExitStack() as servers:
        cases = servers.enter_context(_cases(folder, url, service))
        cases += servers.enter_context(items.cases(folder, url, valkey, service))  # example
        for case in cases:
            case.measure(1)
        rounds = [[case.measure(SECONDS) for case in cases] for _ in range(ROUNDS)]
        names = [case.name for case in cases]
    return dict(zip(names, map(list, zip(*rounds, strict=True)), strict=True))


@contextmanager
def _cases(folder: Path, url: str, service: Gunicorn) -> Iterator[list[Case]]:
    """What every service can be asked for, with the servers running."""
    bare = Gunicorn(
        folder / "bare", *SERVICE, "tools.benchmarks.bare:application()", DATABASE_URL=url
    )
    addons = Gunicorn(
        folder / "addons", *SERVICE, "tools.benchmarks.addons:application()", DATABASE_URL=url
    )
    with running(bare, addons, service):
        yield [
            Case("bare", bare),
            Case("add-ons", addons),
            Case("health", service),
            Case("version", service, "/version"),
        ]


def share(samples: Samples, name: str) -> float:
    """The throughput of `name` as a share of the bare application's in the same round."""
    pairs = zip(samples[name], samples["bare"], strict=True)
    return median(mine.rate / bare.rate for mine, bare in pairs)
