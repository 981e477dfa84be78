"""The metrics of /metrics: how requests are counted, and how metrics are named."""

import re

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

REQUEST_COUNT = "http_request_duration_seconds_count"
UNIT_ABBREVIATIONS = "_(milli|micro|nano)?(minutes|hours|days|ms|us|bits)(_|$)"


async def read_metrics(client: httpx.AsyncClient) -> list[Metric]:
    """The metrics, parsed as Prometheus parses them."""
    response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return list(text_string_to_metric_families(response.text))


def get_samples(metrics: list[Metric]) -> list[Sample]:
    return [sample for metric in metrics for sample in metric.samples]


async def count_requests(client: httpx.AsyncClient, **labels: str) -> float:
    """The number of requests with these labels, of all tests in this process."""
    number = 0.0
    for sample in get_samples(await read_metrics(client)):
        if sample.name == REQUEST_COUNT and sample.labels.items() >= labels.items():
            number += sample.value
    return number


async def test_requests_are_counted_by_method_route_and_status(things: httpx.AsyncClient) -> None:
    increments = {("GET", "200"): 2, ("GET", "422"): 1, ("DELETE", "500"): 1, ("DELETE", "200"): 0}

    async def count_by_method_and_status() -> dict[tuple[str, str], float]:
        counts = {}
        for method, status in increments:
            labels = {"method": method, "route": "/things/{thing_id}", "status": status}
            counts[method, status] = await count_requests(things, **labels)
        return counts

    before = await count_by_method_and_status()
    await things.get("/things/7")
    await things.get("/things/8")
    await things.get("/things/x")
    await things.delete("/things/7")
    after = await count_by_method_and_status()
    for labels, increment in increments.items():
        assert after[labels] - before[labels] == increment


async def test_all_unknown_paths_have_the_route_none(client: httpx.AsyncClient) -> None:
    """With their paths as labels, clients could create any number of time series."""
    labels = {"method": "GET", "route": "none", "status": "404"}
    before = await count_requests(client, **labels)
    for path in ("/random-1", "/random-2", "/things/random"):
        await client.get(path)
    assert await count_requests(client, **labels) - before == 3
    assert "random" not in str(await read_metrics(client))


async def test_refused_bodies_are_counted(things: httpx.AsyncClient) -> None:
    labels = {"method": "POST", "status": "413"}
    before = await count_requests(things, **labels)
    await things.post("/things", content=b" " * 1_000_000)
    assert await count_requests(things, **labels) - before == 1


async def test_metrics_follow_the_rules_of_promtool(client: httpx.AsyncClient) -> None:
    """https://github.com/prometheus/prometheus: `promtool check metrics`."""
    await client.get("/version")
    metrics = await read_metrics(client)
    assert metrics
    for metric in metrics:
        assert metric.documentation
        assert re.fullmatch("[a-z][a-z0-9_]*", metric.name)  # no camelCase, no colon
        assert not re.search(UNIT_ABBREVIATIONS, metric.name)
        assert not re.search(f"_({metric.type}|metric)(_|$)", metric.name)
        assert (metric.type == "counter") == metric.name.endswith("_total")
        if metric.type != "histogram":
            assert not metric.name.endswith(("_bucket", "_count", "_sum"))
        for sample in metric.samples:
            allowed = {"le"} if sample.name.endswith("_bucket") else set()
            assert {"le", "quantile"} & set(sample.labels) == allowed
