"""The tables of the load curves in Markdown."""

from collections.abc import Iterator, Mapping, Sequence

from ..report import table, yes_or_no
from .measurement import (
    MAX_HEALTH_SECONDS,
    MAX_LATENCY_FACTOR,
    MAX_REFUSAL_SECONDS,
    MIN_THROUGHPUT_SHARE,
    OVERLOADED_CONNECTIONS,
    LoadCurve,
    LoadPoint,
)


def load_table(curves: Mapping[str, LoadCurve]) -> str:
    """Every measured point of the curves, by the names of their requests."""
    columns = (
        "Request",
        "Connections",
        "2xx per second",
        "503",
        "p50 of 2xx, ms",
        "p99 of 2xx, ms",
        "p99 of 503, ms",
        "p99 of `GET /health`, ms",
    )
    return table(columns, _load_rows(curves))


def target_table(curves: Mapping[str, LoadCurve]) -> str:
    """The targets under overload, each with what was measured."""
    columns = (
        "Request",
        "Connections",
        f"Share of the best throughput (≥ {MIN_THROUGHPUT_SHARE:.2f})",
        "p99 of 2xx and its limit, ms",
        f"p99 of 503, ms (≤ {MAX_REFUSAL_SECONDS * 1000:.0f})",
        f"p99 of `GET /health`, ms (≤ {MAX_HEALTH_SECONDS * 1000:.0f})",
        "Met",
    )
    return table(columns, _target_rows(curves))


def _load_rows(curves: Mapping[str, LoadCurve]) -> Iterator[Sequence[str]]:
    for name, curve in curves.items():
        for point in curve:
            yield (
                name,
                str(point.connections),
                f"{point.throughput:,.0f}",
                f"{point.refused_share:.1%}" if point.refused_share else "",
                _milliseconds(point.p50),
                _milliseconds(point.p99),
                "" if point.refusal_p99 is None else _milliseconds(point.refusal_p99),
                _milliseconds(point.health_p99),
            )


def _target_rows(curves: Mapping[str, LoadCurve]) -> Iterator[Sequence[str]]:
    for name, curve in curves.items():
        best_throughput = max(point.throughput for point in curve)
        for point in curve:
            if point.connections in OVERLOADED_CONNECTIONS:
                yield name, *_target_cells(point, best_throughput)


def _target_cells(point: LoadPoint, best_throughput: float) -> Sequence[str]:
    share = point.throughput / best_throughput
    limit = MAX_LATENCY_FACTOR * point.queue_seconds
    is_met = (
        share >= MIN_THROUGHPUT_SHARE
        and point.p99 <= limit
        and (point.refusal_p99 is None or point.refusal_p99 <= MAX_REFUSAL_SECONDS)
        and point.health_p99 <= MAX_HEALTH_SECONDS
    )
    return (
        str(point.connections),
        f"{share:.2f}",
        f"{_milliseconds(point.p99)} (≤ {_milliseconds(limit)})",
        "none" if point.refusal_p99 is None else _milliseconds(point.refusal_p99),
        _milliseconds(point.health_p99),
        yes_or_no(is_met),
    )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f}" if seconds < 0.01 else f"{seconds * 1000:.0f}"
