"""The results in Markdown."""

from collections.abc import Iterator, Sequence
from statistics import median

from .footprint import MEMORY_ROUNDS, STARTS, WORKERS, Footprint
from .measurement import ROUND_SECONDS, ROUNDS, Comparison, Samples, shares
from .wrk import CONNECTIONS

MAX_START_RATIO = 2.0
MAX_PRELOAD_RATIO = 0.6

NOTES = f"""
Medians of {ROUNDS} interleaved rounds of {ROUND_SECONDS} s with {CONNECTIONS} connections, with the
lowest and highest in parentheses; of {STARTS} starts; of {MEMORY_ROUNDS} measurements of memory."""


def markdown(samples: Samples, comparisons: Sequence[Comparison], footprint: Footprint) -> str:
    """Three tables: shares with their targets, CPU time per request, start and memory."""
    lines = [
        "| CPU time per request, as a share | Measured | Target | Met |",
        "|---|---|---|---|",
        *(_share_row(samples, comparison) for comparison in comparisons),
        "",
        "| CPU time per request | µs |",
        "|---|---|",
        *(f"| {name} | {_median_and_range(values, '.0f')} |" for name, values in samples.items()),
        "",
        "| Start and memory | Measured | Target | Met |",
        "|---|---|---|---|",
        *_footprint_rows(footprint),
        NOTES,
    ]
    return "\n".join(lines)


def _share_row(samples: Samples, comparison: Comparison) -> str:
    rounds = shares(samples, comparison)
    description = f"{comparison.description}, of {comparison.baseline}"
    measured_text = _median_and_range(rounds, ".2f")
    if comparison.target is None:
        return f"| {description} | {measured_text} | | |"
    is_met = median(rounds) >= comparison.target
    target_cells = f"≥ {comparison.target:.2f} | {_yes_or_no(is_met)}"
    return f"| {description} | {measured_text} | {target_cells} |"


def _footprint_rows(footprint: Footprint) -> Iterator[str]:
    start_ratio = footprint.start_seconds / footprint.bare_start_seconds
    preload_ratio = footprint.preloaded_workers_mib / footprint.separate_workers_mib
    yield f"| start of the service, s | {footprint.start_seconds:.2f} | | |"
    yield f"| start of bare FastAPI, s | {footprint.bare_start_seconds:.2f} | | |"
    yield _at_most("start as a multiple of bare FastAPI's", start_ratio, MAX_START_RATIO)
    yield f"| memory of one worker, MiB | {footprint.one_worker_mib:.0f} | | |"
    yield f"| memory of {WORKERS} workers, MiB | {footprint.preloaded_workers_mib:.0f} | | |"
    without_preload = f"memory of {WORKERS} workers without preload, MiB"
    yield f"| {without_preload} | {footprint.separate_workers_mib:.0f} | | |"
    yield _at_most(
        "memory with preload as a share of that without", preload_ratio, MAX_PRELOAD_RATIO
    )


def _at_most(description: str, value: float, target: float) -> str:
    return f"| {description} | {value:.2f} | ≤ {target:.2f} | {_yes_or_no(value <= target)} |"


def _yes_or_no(condition: bool) -> str:
    return "yes" if condition else "no"


def _median_and_range(values: Sequence[float], number_format: str) -> str:
    numbers = (median(values), min(values), max(values))
    middle, lowest, highest = (format(number, number_format) for number in numbers)
    return f"{middle} ({lowest} to {highest})"
