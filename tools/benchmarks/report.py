"""What was measured, in Markdown."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from .footprint import MEMORY_ROUNDS, STARTS, WORKERS
from .load import CONNECTIONS
from .throughput import ROUNDS, SECONDS, Samples, share

SHARES = {
    "health": ("`GET /health`", 0.80),
    "add-ons": ("the same from bare FastAPI with the usual add-ons, which log it", None),
    "version": ("`GET /version`, which is logged", None),
    "bare item": ("an item from bare FastAPI with asyncpg and nothing else", None),  # example
    "cache off": ("`GET /items/{id}` without a cache", 0.40),  # example
    "cache hit": ("`GET /items/{id}` from the cache", None),  # example
    "cache miss": ("`GET /items/{id}`, each of another item: a miss", None),  # example
}
"""What is a share of the bare application's throughput by the name of the case, and its target."""

NOTES = f"""
`make bench`: medians of {ROUNDS} rounds of {SECONDS} s with {CONNECTIONS} connections, of {STARTS}
starts, and of {MEMORY_ROUNDS} times {WORKERS} workers under load. Shares are of the bare
application's throughput in the same round. It answers `GET /health` alone, under the same Gunicorn.
"""


@dataclass(frozen=True)
class Measured:
    """`starts` in seconds: the service's, bare. `memory` in MiB: with preload, without."""

    samples: Samples
    starts: tuple[float, float]
    memory: tuple[float, float]


def markdown(measured: Measured) -> str:
    """The ratios beside their targets, and what they were made of."""
    return "\n".join(
        [
            "| What | Ratio | Target | Met |\n|---|---|---|---|",
            *_ratios(measured),
            "\n| Case | Requests/s | CPU µs/request | Share of bare, by CPU |\n|---|---|---|---|",
            *_cases(measured.samples),
            "\n| | The service | Compared with |\n|---|---|---|",
            "| Start, s | {:.2f} | {:.2f} |".format(*measured.starts),
            "| Memory, MiB | {:.0f} | {:.0f} |".format(*measured.memory),
            NOTES,
        ]
    )


def _ratios(measured: Measured) -> Iterator[str]:
    for name, (what, target) in SHARES.items():
        yield _at_least(f"Throughput: {what}", share(measured.samples, name), target)
    ours, bare = measured.starts
    yield _at_most("Start to the first 200, as a multiple of bare FastAPI's", ours / bare, 2.0)
    preloaded, separate = measured.memory
    what = f"Memory of {WORKERS} workers with preload, as a share of that without"
    yield _at_most(what, preloaded / separate, 0.6)


def _at_least(what: str, ratio: float, target: float | None) -> str:
    if target is None:
        return f"| {what} | {ratio:.2f} | | |"
    return f"| {what} | {ratio:.2f} | ≥ {target:.2f} | {'yes' if ratio >= target else 'no'} |"


def _at_most(what: str, ratio: float, target: float) -> str:
    return f"| {what} | {ratio:.2f} | ≤ {target:.2f} | {'yes' if ratio <= target else 'no'} |"


def _cases(samples: Samples) -> Iterator[str]:
    bare = median(sample.cpu for sample in samples["bare"])
    for name, of in samples.items():
        rate, cpu = (median(values) for values in zip(*of, strict=True))
        yield f"| {name} | {rate:.0f} | {cpu:.0f} | {bare / cpu:.2f} |"
