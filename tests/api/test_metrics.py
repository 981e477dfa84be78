"""The metrics of /metrics: how requests are counted, and how metrics are named."""

import asyncio
import re
from pathlib import Path

import httpx
from fastapi import APIRouter, BackgroundTasks, FastAPI
from fastapi.staticfiles import StaticFiles
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from fastapi_k8s.main import create_app
from tests.conftest import LogLines, MakeSettings, Serve

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


async def test_each_route_has_its_whole_path_as_label(
    make_settings: MakeSettings, serve: Serve, tmp_path: Path
) -> None:
    """Also /docs, the routes of a router that is included twice, and mounted applications."""
    router = APIRouter(prefix="/things")

    @router.get("/{thing_id}")
    async def read_thing(thing_id: int) -> int:
        return thing_id

    mounted_app = FastAPI()
    mounted_app.include_router(router)
    (tmp_path / "file").touch()
    app = create_app(make_settings())
    app.mount("/static", StaticFiles(directory=tmp_path))
    app.mount("/mounted/{name}", mounted_app)
    app.include_router(router, prefix="/v1")
    app.include_router(router, prefix="/v2", include_in_schema=False)  # operation ids are unique
    labels = {
        "/docs": "/docs",
        "/openapi.json": "/openapi.json",
        "/v1/things/1": "/v1/things/{thing_id}",
        "/v2/things/1": "/v2/things/{thing_id}",
        "/static/file": "/static",
        "/mounted/random/things/1": "/mounted/{name}",
    }
    async with serve(app) as client:
        for path, route in labels.items():
            before = await count_requests(client, method="GET", route=route, status="200")
            assert (await client.get(path)).status_code == 200
            after = await count_requests(client, method="GET", route=route, status="200")
            assert after - before == 1, path


async def test_a_route_that_is_added_while_the_application_runs_has_its_path_as_label(
    make_settings: MakeSettings, serve: Serve
) -> None:
    app = create_app(make_settings())
    async with serve(app) as client:
        for method in ("GET", "POST"):
            app.add_api_route("/late", lambda: "late", methods=[method])
        await client.post("/late")
        labels = {"method": "POST", "route": "/late", "status": "200"}
        assert await count_requests(client, **labels) == 1


async def test_unknown_methods_are_counted_together(things: httpx.AsyncClient) -> None:
    """A client could otherwise create a time series with each method that the parser accepts."""
    labels = {"method": "_OTHER", "route": "/things/{thing_id}", "status": "405"}
    before = await count_requests(things, **labels)
    for method in ("PROPFIND", "M-SEARCH"):
        await things.request(method, "/things/7")
    assert await count_requests(things, **labels) - before == 2
    assert "PROPFIND" not in str(await read_metrics(things))


async def test_the_duration_does_not_include_background_tasks(
    make_settings: MakeSettings, serve: Serve, log_lines: LogLines
) -> None:
    app = create_app(make_settings())
    may_end = asyncio.Event()

    @app.get("/with-task")
    async def respond(tasks: BackgroundTasks) -> str:
        tasks.add_task(may_end.wait)
        return "done"

    async with serve(app) as client:
        await client.get("/with-task")
        # The task still runs, and the request is already counted and logged.
        assert await count_requests(client, route="/with-task") == 1
        lines = [line for line in log_lines() if line["message"] == "request"]
        assert [line["path"] for line in lines] == ["/with-task"]
        may_end.set()


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
        if metric.type != "histogram":
            assert not metric.name.endswith(("_bucket", "_count", "_sum"))
        for sample in metric.samples:
            if not sample.name.endswith("_created"):
                assert (metric.type == "counter") == sample.name.endswith("_total")
            allowed = {"le"} if sample.name.endswith("_bucket") else set()
            assert {"le", "quantile"} & set(sample.labels) == allowed
