"""/metrics, read as Prometheus reads it."""

import re
from collections.abc import Iterable

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tools.checkout import PROJECT

COUNT = "http_request_duration_seconds_count"


async def families(client: httpx.AsyncClient) -> list[Metric]:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return list(text_string_to_metric_families(answer.text))


def count(found: Iterable[Metric], **labels: str) -> float:
    """How many requests there have been with these labels."""
    samples = (sample for family in found for sample in family.samples)
    return sum(s.value for s in samples if s.name == COUNT and s.labels.items() >= labels.items())


async def test_requests_are_counted_by_method_route_and_status(things: httpx.AsyncClient) -> None:
    before = await families(things)
    await things.get("/things/7")
    await things.get("/things/8")
    await things.get("/things/x")
    await things.delete("/things/7")
    after = await families(things)
    expected = {("GET", "200"): 2, ("GET", "422"): 1, ("DELETE", "500"): 1, ("DELETE", "200"): 0}
    for (method, status), number in expected.items():
        labels = {"method": method, "route": "/things/{thing_id}", "status": status}
        assert count(after, **labels) - count(before, **labels) == number


async def test_unknown_paths_share_one_label(client: httpx.AsyncClient) -> None:
    before = await families(client)
    for path in ("/made-up-1", "/made-up-2", "/things/made-up"):
        await client.get(path)
    after = await families(client)
    labels = {"method": "GET", "route": "none", "status": "404"}
    assert count(after, **labels) - count(before, **labels) == 3
    assert "made-up" not in str(after)


async def test_bodies_refused_by_their_size_are_counted(things: httpx.AsyncClient) -> None:
    before = await families(things)
    await things.post("/things", content=b" " * 1_000_000)
    after = await families(things)
    assert (
        count(after, method="POST", status="413") - count(before, method="POST", status="413") == 1
    )


async def test_metrics_follow_the_rules_of_promtool(client: httpx.AsyncClient) -> None:
    """https://github.com/prometheus/prometheus: `promtool check metrics`."""
    await client.get("/version")
    found = await families(client)
    assert found
    for family in found:
        assert family.documentation
        assert re.fullmatch("[a-z][a-z0-9_]*", family.name)  # no camelCase, no colon
        assert not re.search(
            "_(milli|micro|nano)?(minutes|hours|days|ms|us|bits)(_|$)", family.name
        )
        assert not re.search(f"_({family.type}|metric)(_|$)", family.name)
        assert (family.type == "counter") == family.name.endswith("_total")
        if family.type != "histogram":
            assert not family.name.endswith(("_bucket", "_count", "_sum"))
        for sample in family.samples:
            reserved = {"le"} if sample.name.endswith("_bucket") else set()
            assert {"le", "quantile"} & set(sample.labels) == reserved


async def test_the_documented_queries_ask_for_metrics_that_there_are(
    client: httpx.AsyncClient,
) -> None:
    await client.get("/version")
    exposed = {sample.name for family in await families(client) for sample in family.samples}
    page = (PROJECT / "docs" / "observability.md").read_text()
    asked = set(re.findall(r"\bhttp_\w+_(?:count|bucket|sum|total)\b", page))
    assert asked
    assert asked <= exposed
