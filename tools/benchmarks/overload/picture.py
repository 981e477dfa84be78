"""The load curves as an SVG picture: throughput on the left, p99 latency on the right."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log2, log10
from pathlib import Path

from .measurement import CONNECTIONS, MAX_LATENCY_FACTOR, LoadCurve, LoadPoint

PICTURE = Path("docs/load-curve.svg")

WIDTH, HEIGHT = 900, 420
PLOT_TOP, PLOT_BOTTOM = 100, 360
LEFT_PLOT, RIGHT_PLOT = (60, 430), (510, 880)
LEGEND_WIDTH = 260

# The picture has its own background: on some pages the colors of the text follow the settings of
# the page, and those of an embedded picture the settings of the browser.
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #59636e }
.title { font-size: 14px; font-weight: 600; fill: #1f2328 }
.background { fill: #ffffff }
.grid { stroke: #d1d9e0 }
.line { fill: none; stroke-width: 2 }
.limit { fill: none; stroke-width: 1.5; stroke-dasharray: 2 4 }
.series-0 { stroke: #0969da; color: #0969da }
.series-1 { stroke: #bc4c00; color: #bc4c00 }
.series-2 { stroke: #1a7f37; color: #1a7f37 }
.marker { fill: currentColor; stroke: none }
@media (prefers-color-scheme: dark) {
  text { fill: #9198a1 }
  .title { fill: #f0f6fc }
  .background { fill: #0d1117 }
  .grid { stroke: #3d444d }
  .series-0 { stroke: #58a6ff; color: #58a6ff }
  .series-1 { stroke: #f0883e; color: #f0883e }
  .series-2 { stroke: #3fb950; color: #3fb950 }
}
"""


@dataclass(frozen=True)
class Plot:
    """One of the two plots: its title, its horizontal range, and the marks of its vertical axis.

    `fraction` is the position of a value on this axis: 0 at the bottom, 1 at the top.
    """

    title: str
    left: float
    right: float
    marks: Sequence[float]
    fraction: Callable[[float], float]

    def x(self, connections: int) -> float:
        """The position of a number of connections, on a logarithmic axis."""
        return self.left + (self.right - self.left) * log2(connections) / log2(CONNECTIONS[-1])

    def y(self, value: float) -> float:
        """The position of a value on the vertical axis."""
        return PLOT_BOTTOM - (PLOT_BOTTOM - PLOT_TOP) * self.fraction(value)

    def axes(self) -> Iterator[str]:
        """The title, and a line of the grid for each mark of the axes."""
        yield f'<text class="title" x="{self.left}" y="{PLOT_TOP - 22}">{self.title}</text>'
        for mark in self.marks:
            y = self.y(mark)
            yield f'<path class="grid" d="M{self.left} {y:.1f}H{self.right}"/>'
            label = f'x="{self.left - 8}" y="{y + 4:.1f}" text-anchor="end"'
            yield f"<text {label}>{mark:,g}</text>"
        for connections in CONNECTIONS:
            label = f'x="{self.x(connections):.1f}" y="{PLOT_BOTTOM + 20}" text-anchor="middle"'
            yield f"<text {label}>{connections}</text>"
        label = f'x="{self.right}" y="{PLOT_BOTTOM + 42}" text-anchor="end"'
        yield f"<text {label}>connections</text>"

    def line(self, style: str, curve: LoadCurve, value: Callable[[LoadPoint], float]) -> str:
        """A line through the values of the points of a curve."""
        points = [f"{self.x(point.connections):.1f} {self.y(value(point)):.1f}" for point in curve]
        return f'<path class="{style}" d="M{"L".join(points)}"/>'

    def markers(self, series: int, curve: LoadCurve, value: Callable[[LoadPoint], float]) -> str:
        """A marker on each point of a curve, with another shape for each series."""
        return "".join(
            _marker(series, self.x(point.connections), self.y(value(point))) for point in curve
        )


def load_curves_svg(curves: Mapping[str, LoadCurve]) -> str:
    """The picture of at most three curves, which are named in its legend."""
    points = [point for curve in curves.values() for point in curve]
    throughput_plot = _throughput_plot(max(map(_throughput, points)))
    latency_plot = _latency_plot([*map(_p99, points), *map(_p99_limit, points)])
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            "<title>Throughput and p99 latency for 1 to 800 connections</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="background" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
            *_legend(curves),
            *throughput_plot.axes(),
            *latency_plot.axes(),
            *_series(throughput_plot, curves, _throughput),
            *_series(latency_plot, curves, _p99),
            *(
                latency_plot.line(f"limit series-{series}", curve, _p99_limit)
                for series, curve in enumerate(curves.values())
            ),
            _limit_note(latency_plot),
            "</svg>\n",
        ]
    )


def _throughput_plot(highest: float) -> Plot:
    step = 500 if highest <= 3000 else 1000
    top = ceil(highest / step) * step
    marks = range(0, top + 1, step)
    return Plot("Responses with 2xx per second", *LEFT_PLOT, marks, lambda value: value / top)


def _latency_plot(values: Sequence[float]) -> Plot:
    """A plot in which `values` fit. Its vertical axis is logarithmic."""
    bottom = floor(log10(min(values)))
    top = ceil(log10(max(values)))
    marks = [10**exponent for exponent in range(bottom, top + 1)]
    return Plot(
        "p99 latency of these responses, ms",
        *RIGHT_PLOT,
        marks,
        lambda value: (log10(value) - bottom) / (top - bottom),
    )


def _limit_note(plot: Plot) -> str:
    text = f"dotted: {MAX_LATENCY_FACTOR:g} \N{MULTIPLICATION SIGN} connections / throughput"
    return f'<text x="{plot.left}" y="{PLOT_BOTTOM + 42}">{text}</text>'


def _legend(curves: Mapping[str, LoadCurve]) -> Iterator[str]:
    for series, name in enumerate(curves):
        x = LEFT_PLOT[0] + LEGEND_WIDTH * series
        yield f'<path class="line series-{series}" d="M{x} 32h28"/>{_marker(series, x + 14, 32)}'
        yield f'<text x="{x + 36}" y="36">{name.replace("`", "")}</text>'


def _series(
    plot: Plot, curves: Mapping[str, LoadCurve], value: Callable[[LoadPoint], float]
) -> Iterator[str]:
    for series, curve in enumerate(curves.values()):
        yield plot.line(f"line series-{series}", curve, value)
        yield plot.markers(series, curve, value)


def _marker(series: int, x: float, y: float) -> str:
    """A circle, a square or a diamond, so that the series differ without colors too."""
    style = f'class="marker series-{series}"'
    if series == 0:
        return f'<circle {style} cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    angle = 45 * (series - 1)
    return (
        f'<rect {style} x="-3.5" y="-3.5" width="7" height="7" '
        f'transform="translate({x:.1f} {y:.1f}) rotate({angle})"/>'
    )


def _throughput(point: LoadPoint) -> float:
    return point.throughput


def _p99(point: LoadPoint) -> float:
    return point.p99 * 1000


def _p99_limit(point: LoadPoint) -> float:
    return MAX_LATENCY_FACTOR * point.queue_seconds * 1000
