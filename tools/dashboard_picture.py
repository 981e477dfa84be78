"""Draw deploy/observability/dashboard.json as an SVG picture, with the data of a Prometheus.

`python -m tools.dashboard_picture http://127.0.0.1:9090 >docs/dashboard.svg` draws the last five
minutes. Grafana would draw the same queries; no package registry has it.
"""

import json
import re
import sys
from collections.abc import Iterator
from math import isnan
from time import time
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import httpx

from fastapi_k8s import NAME

from .checkout import PROJECT

DASHBOARD = PROJECT / "deploy" / "observability" / "dashboard.json"
RANGE_SECONDS = 300
STEP_SECONDS = 5
LABEL = re.compile(r"\{\{(\w+)\}\}")
VARIABLES = {"$namespace": NAME, "$__rate_interval": "1m"}
"""The variables of Grafana, and their values."""

COLUMN_WIDTH, ROW_HEIGHT, GAP = 50, 28, 8
"""The size of one unit of Grafana's grid, which has 24 columns, in pixels."""

COLORS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#6e7781")
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #59636e }
.title { font-size: 13px; font-weight: 600; fill: #1f2328 }
.row { font-size: 15px; font-weight: 600; fill: #1f2328 }
.value { font-size: 30px; fill: #1a7f37 }
.background { fill: #f6f8fa }
.panel { fill: #ffffff; stroke: #d1d9e0 }
.grid { stroke: #d1d9e0 }
.line { fill: none; stroke-width: 1.5 }
"""
UNITS = {
    "percentunit": (100, " %"),
    "bytes": (1e-6, " MB"),
    "s": (1000, " ms"),
    "reqps": (1, "/s"),
    "ops": (1, "/s"),
    "short": (1, ""),
}
"""The factor and the text of each unit."""


class Series(NamedTuple):
    """A line of a panel: its name in the legend, and its points as times and values."""

    name: str
    points: list[tuple[float, float]]


class Box(NamedTuple):
    """The position and the size of a panel, in pixels."""

    x: float
    y: float
    width: float
    height: float


def draw_dashboard(client: httpx.Client, now: float) -> str:
    """The dashboard with the data of the RANGE_SECONDS before `now`, as SVG."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) * ROW_HEIGHT
    width = 24 * COLUMN_WIDTH
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        "<title>The dashboard of a run under load</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="background" width="{width}" height="{height}"/>',
    ]
    for panel in panels:
        lines += _draw_panel(client, panel, now)
    return "\n".join([*lines, "</svg>\n"])


def read_series(client: httpx.Client, target: dict[str, Any], now: float) -> list[Series]:
    """The data of a query of a panel."""
    parameters: dict[str, str | float] = {
        "query": replace_variables(target["expr"]),
        "start": now - RANGE_SECONDS,
        "end": now,
        "step": STEP_SECONDS,
    }
    response = client.get("/api/v1/query_range", params=parameters).raise_for_status()
    series = []
    for result in response.json()["data"]["result"]:
        name = _legend(target["legendFormat"], result["metric"])
        points = [(float(moment), float(value)) for moment, value in result["values"]]
        series.append(Series(name, [point for point in points if not isnan(point[1])]))
    return series


def _legend(template: str, labels: dict[str, str]) -> str:
    """The name of a series, in which a label that it does not have is empty, as in Grafana."""
    return LABEL.sub(lambda match: labels.get(match[1], ""), template)


def replace_variables(query: str) -> str:
    """A query of the dashboard without variables."""
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    return query


def _draw_panel(client: httpx.Client, panel: dict[str, Any], now: float) -> Iterator[str]:
    grid = panel["gridPos"]
    box = Box(
        grid["x"] * COLUMN_WIDTH + GAP / 2,
        grid["y"] * ROW_HEIGHT + GAP / 2,
        grid["w"] * COLUMN_WIDTH - GAP,
        grid["h"] * ROW_HEIGHT - GAP,
    )
    title = escape(panel["title"])
    if panel["type"] == "row":
        yield _text("row", box.x + 4, box.y + 17, title)
        return
    yield _rectangle(box)
    yield _text("title", box.x + 10, box.y + 20, title)
    series = [line for target in panel["targets"] for line in read_series(client, target, now)]
    unit = panel["fieldConfig"]["defaults"]["unit"]
    if panel["type"] == "stat":
        value = series[0].points[-1][1] if series and series[0].points else 0
        yield _text("value", box.x + 10, box.y + 70, _format(value, unit))
    else:
        yield from _draw_graph(box, series, unit, now)


def _draw_graph(box: Box, series: list[Series], unit: str, now: float) -> Iterator[str]:
    left, right = box.x + 64, box.x + box.width - 12
    top, bottom = box.y + 38, box.y + box.height - 34
    highest = max((value for line in series for _, value in line.points), default=0) or 1
    for share in (0, 0.5, 1):
        y = bottom - (bottom - top) * share
        yield f'<path class="grid" d="M{left} {y:.0f}H{right}"/>'
        yield _text("label", box.x + 8, y + 4, _format(highest * share, unit))
    legend = box.x + 10
    for number, line in enumerate(series):
        color = COLORS[number % len(COLORS)]
        points = [
            f"{right - (right - left) * (now - moment) / RANGE_SECONDS:.1f}"
            f" {bottom - (bottom - top) * value / highest:.1f}"
            for moment, value in line.points
        ]
        if points:
            yield f'<path class="line" stroke="{color}" d="M{"L".join(points)}"/>'
        width = 26 + 6 * len(line.name)
        if legend + width <= box.x + box.width:
            y = box.y + box.height - 12
            yield f'<path class="line" stroke="{color}" d="M{legend:.0f} {y - 4:.0f}h12"/>'
            yield _text("label", legend + 16, y, escape(line.name))
        legend += width


def _rectangle(box: Box) -> str:
    size = f'width="{box.width}" height="{box.height}"'
    return f'<rect class="panel" x="{box.x}" y="{box.y}" {size} rx="3"/>'


def _text(style: str, x: float, y: float, text: str) -> str:
    return f'<text class="{style}" x="{x:.0f}" y="{y:.0f}">{text}</text>'


def _format(value: float, unit: str) -> str:
    factor, text = UNITS[unit]
    return f"{value * factor:.3g}{text}"


if __name__ == "__main__":
    with httpx.Client(base_url=sys.argv[1], timeout=30) as prometheus:
        sys.stdout.write(draw_dashboard(prometheus, time()))
