"""docs/observability.md, docs/openapi.json and docs/streams.md are right."""

import asyncio
import json
import re
from time import time
from types import ModuleType

import httpx
import pytest
from fastapi import FastAPI, routing
from prometheus_client.parser import text_string_to_metric_families

import fastapi_k8s as package
from fastapi_k8s.dependencies import get_draining
from fastapi_k8s.main import create_app
from tests.conftest import LogLines, MakeSettings, Serve
from tests.template.pages import read_python_files
from tools import openapi
from tools.checkout import PROJECT

OBSERVABILITY = PROJECT / "docs" / "observability.md"
STREAMS = PROJECT / "docs" / "streams.md"
METRIC_ROW = re.compile(r"^\| (`.*?`) \| (counter|gauge|histogram) \|", re.MULTILINE)
QUERIED_METRIC = re.compile(r"rate\((\w+)")


@pytest.fixture
def pod_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that Kubernetes sets in a pod. The formatter reads them when it is created."""
    for name in ("POD_NAME", "POD_NAMESPACE", "NODE_NAME"):
        monkeypatch.setenv(name, "test")


@pytest.mark.usefixtures("pod_variables")
async def test_the_access_log_line_has_the_documented_fields_and_values(
    client: httpx.AsyncClient, log_lines: LogLines
) -> None:
    documented_line = json.loads(OBSERVABILITY.read_text().split("```json\n")[1].split("```")[0])
    headers = {"traceparent": documented_line["traceparent"]}
    await client.get(documented_line["path"], headers=headers)
    [line] = [line for line in log_lines() if line["message"] == "request"]
    assert list(line) == list(documented_line)
    constant = ("level", "logger", "message", "traceparent", "method", "path", "status", "client")
    for name in constant:
        assert line[name] == documented_line[name]


async def test_the_documented_metrics_and_those_of_the_queries_are_the_existing_ones(
    client: httpx.AsyncClient,
) -> None:
    await client.get("/version")
    await client.get("/version", headers={"Host": "not valid"})
    existing = set()
    samples = set()
    for metric in text_string_to_metric_families((await client.get("/metrics")).text):
        if not metric.name.endswith("_created"):
            suffix = "_total" if metric.type == "counter" else ""
            existing.add((f"{metric.name}{suffix}", metric.type))
            samples |= {sample.name for sample in metric.samples}
    documented = set()
    for names, kind in METRIC_ROW.findall(OBSERVABILITY.read_text()):
        documented |= {(name, kind) for name in re.findall(r"`(\w+)`", names)}
    assert documented == existing
    queried = set(QUERIED_METRIC.findall(OBSERVABILITY.read_text()))
    assert len(queried) > 3
    assert queried <= samples


def test_the_committed_openapi_document_is_current() -> None:
    """If this test fails, run `make openapi` and review the diff. `make lint` compares too."""
    assert (PROJECT / openapi.DOCUMENT).read_text() == openapi.render()


@pytest.fixture
def events(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """The application with the module of docs/streams.md, whose streams are pinged at once."""
    [(_, text)] = read_python_files(STREAMS)
    module = ModuleType(f"{package.__name__}.events")
    module.__package__ = package.__name__
    exec(text, vars(module))
    monkeypatch.setattr(routing, "_PING_INTERVAL", 0.1)
    app = create_app(make_settings())
    app.include_router(module.router)
    return app


async def test_a_client_of_the_documented_stream_continues_after_its_last_event(
    events: FastAPI, serve: Serve
) -> None:
    last_event_id = int(time()) - 3
    ids = range(last_event_id + 1, last_event_id + 4)
    expected = f"id: {last_event_id}\nretry: 1000\n\n"
    expected += "".join(f'data: {{"second": {each}}}\nid: {each}\n\n' for each in ids)
    received = ""
    async with (
        serve(events) as client,
        client.stream("GET", "/events", headers={"Last-Event-ID": str(last_event_id)}) as response,
    ):
        async for text in response.aiter_text():
            received += text
            if len(received) >= len(expected):
                break
    assert received.startswith(expected)


async def test_a_silent_stream_is_pinged(events: FastAPI, serve: Serve) -> None:
    """The id is that of an event in the future, so that none is sent."""
    headers = {"Last-Event-ID": str(int(time()) + 3600)}
    received = ""
    async with (
        serve(events) as client,
        client.stream("GET", "/events", headers=headers) as response,
    ):
        async for text in response.aiter_text():
            received += text
            if received.endswith(": ping\n\n"):
                break


async def test_the_documented_stream_ends_after_its_first_event_while_the_worker_drains(
    events: FastAPI, serve: Serve
) -> None:
    draining = asyncio.Event()
    draining.set()
    events.dependency_overrides[get_draining] = lambda: draining
    async with serve(events) as client:
        response = await client.get("/events")
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert re.fullmatch(r"id: \d+\nretry: 1000\n\n", response.text)
