"""The metrics of /metrics: how requests are counted, and how metrics are named."""

import asyncio
import os
import platform
import re
import resource
from pathlib import Path
from time import process_time, time

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI
from fastapi.staticfiles import StaticFiles
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from fastapi_k8s.main import create_app
from tests.conftest import LogLines, MakeSettings, Serve

REQUEST_COUNT = "http_server_request_duration_seconds_count"
ADVISED_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
"""https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#metric-httpserverrequestduration"""

CONVENTIONAL_NAMES = {"db_client_connection_count"}
"""Names of OpenTelemetry's conventions that promtool does not like."""

UNIT_ABBREVIATIONS = "_(milli|micro|nano)?(minutes|hours|days|ms|us|bits)(_|$)"


async def read_metrics(client: httpx.AsyncClient) -> list[Metric]:
    """The metrics, parsed as Prometheus parses them."""
    response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return list(text_string_to_metric_families(response.text))


def get_samples(metrics: list[Metric]) -> list[Sample]:
    return [sample for metric in metrics for sample in metric.samples]


async def read_value(client: httpx.AsyncClient, name: str, **labels: str) -> float:
    """The value of the only sample with this name and these labels."""
    samples = get_samples(await read_metrics(client))
    [value] = [
        sample.value
        for sample in samples
        if sample.name == name and sample.labels.items() >= labels.items()
    ]
    return value


async def count_requests(
    client: httpx.AsyncClient,
    route: str | None = None,
    method: str | None = None,
    status: str | None = None,
) -> float:
    """The number of requests with these labels, of all tests in this process."""
    labels = {
        "http_route": route,
        "http_request_method": method,
        "http_response_status_code": status,
    }
    labels = {name: value for name, value in labels.items() if value is not None}
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


async def test_all_unknown_paths_have_no_route(client: httpx.AsyncClient) -> None:
    """With their paths as labels, clients could create any number of time series."""
    labels = {"method": "GET", "route": "", "status": "404"}
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


async def test_the_duration_has_the_advised_buckets(client: httpx.AsyncClient) -> None:
    await client.get("/version")
    bounds = set()
    for sample in get_samples(await read_metrics(client)):
        if sample.name == "http_server_request_duration_seconds_bucket":
            bounds.add(float(sample.labels["le"]))
    assert sorted(bounds) == [*ADVISED_BUCKETS, float("inf")]


async def test_a_request_is_active_until_its_response_is_complete(
    make_settings: MakeSettings, serve: Serve
) -> None:
    app = create_app(make_settings())
    has_begun = asyncio.Event()
    may_end = asyncio.Event()

    @app.delete("/waiting")
    async def wait() -> str:
        has_begun.set()
        await may_end.wait()
        return "done"

    async with serve(app) as client:

        async def count_active(method: str) -> float:
            name = "http_server_active_requests"
            return await read_value(client, name, http_request_method=method)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(client.delete("/waiting"))
            await has_begun.wait()
            assert await count_active("DELETE") == 1
            assert await count_active("GET") == 1, "the request for the metrics"
            may_end.set()
        assert await count_active("DELETE") == 0
        await client.request("PROPFIND", "/waiting")
        assert await count_active("_OTHER") == 0


async def test_a_request_that_fails_is_active_no_more(things: httpx.AsyncClient) -> None:
    assert (await things.delete("/things/7")).status_code == 500
    with pytest.raises(httpx.RemoteProtocolError):
        await things.get("/things")  # the connection closes in the middle of the response
    name = "http_server_active_requests"
    assert await read_value(things, name, http_request_method="DELETE") == 0
    assert await read_value(things, name, http_request_method="GET") == 1


async def test_the_release_is_in_build_info(make_settings: MakeSettings, serve: Serve) -> None:
    settings = make_settings(app_version="4.5.6", git_sha="0123abc")
    async with serve(create_app(settings)) as client:
        labels = {
            "version": "4.5.6",
            "commit": "0123abc",
            "python": platform.python_version(),
        }
        assert await read_value(client, "build_info", **labels) == 1


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="This system has no /proc.")
async def test_the_process_figures_are_those_of_the_process(client: httpx.AsyncClient) -> None:
    cpu_seconds = process_time()
    assert cpu_seconds <= await read_value(client, "process_cpu_seconds_total") <= process_time()
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert await read_value(client, "process_max_fds") == limit
    assert 0 < time() - await read_value(client, "process_start_time_seconds") < 24 * 3600
    pages = [int(number) for number in Path("/proc/self/statm").read_text().split()]
    virtual, resident = (number * resource.getpagesize() for number in pages[:2])
    assert await read_value(client, "process_virtual_memory_bytes") >= virtual
    assert await read_value(client, "process_resident_memory_bytes") >= resident / 2
    open_files = await read_value(client, "process_open_fds")
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(50)]
    assert await read_value(client, "process_open_fds") == open_files + 50
    for file in files:
        os.close(file)


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
        if metric.type != "histogram" and metric.name not in CONVENTIONAL_NAMES:
            assert not metric.name.endswith(("_bucket", "_count", "_sum"))
        for sample in metric.samples:
            if not sample.name.endswith("_created"):
                assert (metric.type == "counter") == sample.name.endswith("_total")
            allowed = {"le"} if sample.name.endswith("_bucket") else set()
            assert {"le", "quantile"} & set(sample.labels) == allowed
