"""The tables in Markdown."""

from collections.abc import Iterator, Sequence
from statistics import median

from .footprint import WORKERS, Footprint
from .measurement import Case, Samples, shares


def table(columns: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """A table whose first column is text, and whose other columns are aligned to the right."""
    lines = [_row(columns), f"|---|{'---:|' * (len(columns) - 1)}", *map(_row, rows)]
    return "\n".join(lines)


def case_table(cases: Sequence[Case], samples: Samples) -> str:
    """CPU time per request of each case, and its share of the case that it is compared with."""
    columns = ("Request", "CPU time, µs", "Compared with", "Share", "Target", "Met")
    return table(columns, (_case_row(case, samples) for case in cases))


def footprint_table(footprint: Footprint) -> str:
    """Start, memory and size, with their targets."""
    return table(("Figure", "Measured", "Target", "Met"), _footprint_rows(footprint))


def yes_or_no(condition: bool) -> str:
    """The text of the column `Met`."""
    return "yes" if condition else "no"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |")


def _case_row(case: Case, samples: Samples) -> Sequence[str]:
    time = _median_and_range(samples[case.name], ".0f")
    comparison = case.comparison
    if comparison is None:
        return case.name, time, "", "", "", ""
    rounds = shares(samples, case.name, comparison.name)
    share = _median_and_range(rounds, ".2f")
    if comparison.target is None:
        return case.name, time, comparison.name, share, "", ""
    is_met = yes_or_no(median(rounds) >= comparison.target)
    return case.name, time, comparison.name, share, f"≥ {comparison.target:.2f}", is_met


def _footprint_rows(footprint: Footprint) -> Iterator[Sequence[str]]:
    start_ratio = footprint.start_seconds / footprint.bare_start_seconds
    preload_ratio = footprint.preloaded_workers_mb / footprint.separate_workers_mb
    yield _at_most("`docker start` to the first 200, s", footprint.docker_start_seconds, ".2f", 0.6)
    yield "first process to the first 200, s", f"{footprint.start_seconds:.2f}", "", ""
    yield "the same of bare FastAPI, s", f"{footprint.bare_start_seconds:.2f}", "", ""
    yield _at_most("start as a multiple of bare FastAPI's", start_ratio, ".2f", 2.0)
    yield _at_most("memory of one worker, MB", footprint.one_worker_mb, ".0f", 75)
    yield "the same of bare FastAPI, MB", f"{footprint.bare_worker_mb:.0f}", "", ""
    preloaded = f"memory of {WORKERS} workers, MB"
    yield preloaded, f"{footprint.preloaded_workers_mb:.0f}", "", ""
    separate = f"memory of {WORKERS} workers without preload, MB"
    yield separate, f"{footprint.separate_workers_mb:.0f}", "", ""
    yield _at_most("memory with preload as a share of that without", preload_ratio, ".2f", 0.6)
    yield _at_most("image, compressed, MB", footprint.image_mb, ".1f", 40)


def _at_most(description: str, value: float, number_format: str, target: float) -> Sequence[str]:
    return description, format(value, number_format), f"≤ {target:g}", yes_or_no(value <= target)


def _median_and_range(values: Sequence[float], number_format: str) -> str:
    numbers = (median(values), min(values), max(values))
    middle, lowest, highest = (format(number, number_format) for number in numbers)
    return f"{middle} ({lowest} to {highest})"
