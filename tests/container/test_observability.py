"""The alert rules and the dashboard of deploy/observability, in Debian's Prometheus.

Grafana is in no package registry. The test replaces the variables of the queries as Grafana would.
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from math import isnan
from time import time
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pytest
import yaml
from python_on_whales import Container, DockerClient

from fastapi_k8s import NAME
from tests.container.conftest import (
    Application,
    RunApplication,
    python_base_image,
    returns_200,
)
from tests.docker_session import LABELS, SESSION_NAME, BuildLock
from tools.checkout import PROJECT, run_command
from tools.dashboard_picture import draw_dashboard, replace_variables
from tools.dev.servers import wait_until

FOLDER = PROJECT / "deploy" / "observability"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
METRIC = re.compile(r"\b(?:http|db|cache|build|process|kube)_\w+(?=\{)")

DOCKERFILE = f"""
FROM {python_base_image()}
RUN apt-get update && apt-get install --yes --no-install-recommends prometheus
COPY . /observability
WORKDIR /observability
"""
SCRAPE_CONFIG = {
    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
    "rule_files": ["/observability/alerts.yml"],
    "scrape_configs": [
        {
            "job_name": "api",
            "static_configs": [
                {"targets": ["api:8000"], "labels": {"namespace": NAME, "pod": "api-1"}}
            ],
        }
    ],
}
"""Prometheus scrapes the container as it would scrape a pod."""

RUN_PROMETHEUS = (
    'echo "$CONFIG" > /tmp/prometheus.yml && exec prometheus --config.file=/tmp/prometheus.yml'
    " --storage.tsdb.path=/tmp/data --web.listen-address=:9090"
)
REQUESTS = 50
"""How often one load sends each of its requests."""

TITLE_STYLES = {"title", "row"}

COUNT_LOAD = 'sum(http_server_request_duration_seconds_count{http_route="/version"})'


@pytest.fixture(scope="module")
def prometheus_image(
    docker: DockerClient, tmp_path_factory: pytest.TempPathFactory, build_lock: BuildLock
) -> str:
    """The tag of an image with Prometheus, promtool and deploy/observability."""
    dockerfile = tmp_path_factory.mktemp("prometheus") / "Dockerfile"
    dockerfile.write_text(DOCKERFILE)
    tag = f"{SESSION_NAME}-prometheus"
    with build_lock():
        docker.build(FOLDER, file=dockerfile, labels=LABELS, tags=tag, progress=False)
    return tag


class Prometheus:
    """A running Prometheus, through its HTTP API."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def get(self, path: str, **parameters: str) -> Any:
        """Return `data` of a response. Raises HTTPStatusError if a query is not valid."""
        response = self.client.get(f"/api/v1/{path}", params=parameters)
        return response.raise_for_status().json()["data"]

    def query(self, expression: str) -> list[float]:
        """Return the present values of a query. They may be NaN."""
        result = self.get("query", query=expression)["result"]
        return [float(series["value"][1]) for series in result]


@contextmanager
def run_prometheus(docker: DockerClient, image: str, network: str) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes the host `api` of the network every second."""
    container = docker.run(
        image,
        ["sh", "-c", RUN_PROMETHEUS],
        detach=True,
        envs={"CONFIG": json.dumps(SCRAPE_CONFIG)},
        labels=LABELS,
        networks=[network],
        publish=[("127.0.0.1:", 9090)],
    )
    try:
        address = run_command(["docker", "port", container.id, "9090"]).strip()
        with httpx.Client(base_url=f"http://{address}", timeout=30) as client:
            wait_until(lambda: returns_200(client, "/-/ready"), 30, "Prometheus' start")
            yield Prometheus(client)
    finally:
        container.remove(force=True, volumes=True)


@pytest.fixture(scope="module")
def application_under_load(
    run_application: RunApplication, postgres: Container, redis: Container
) -> Iterator[Application]:
    """The application with two workers of one connection each. Its host name is `api`."""
    settings = {"WEB_CONCURRENCY": "2", "DATABASE_POOL_SIZE": "1"}
    with run_application(settings, network_aliases=["api"]) as application:
        yield application


@pytest.fixture(scope="module")
def prometheus(
    docker: DockerClient,
    prometheus_image: str,
    network: str,
    application_under_load: Application,
) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the application and has scraped all requests of the load."""
    with run_prometheus(docker, prometheus_image, network) as prometheus:
        # Prometheus does not count what happens before it has scraped a series for the first time.
        for number in (1, 2):
            send_load(application_under_load.client)
            sent = number * REQUESTS
            wait_until(partial(is_scraped, prometheus, sent), 30, "the last request of the load")
        yield prometheus


def is_scraped(prometheus: Prometheus, sent: int) -> bool:
    """Return whether Prometheus has the metrics of so many requests of each kind."""
    return prometheus.query(COUNT_LOAD) == [sent]


def send_load(client: httpx.Client) -> None:
    """Send requests of all kinds, many at a time. Each opens a connection, for either worker."""
    send = partial(client.request, "GET", headers={"Connection": "close"})
    paths = ["/version", "/ready", "/nowhere"]
    # example
    item = client.post("/items", json={"name": "Lamp"}).headers["Location"]
    paths += [item, "/items?limit=100"]
    # end example
    with ThreadPoolExecutor(16) as executor:
        list(executor.map(send, paths * REQUESTS))


def test_promtool_accepts_the_rules_and_their_unit_tests(
    docker: DockerClient, prometheus_image: str
) -> None:
    command = "promtool check config prometheus.yml && promtool test rules alerts.test.yml"
    output = docker.run(prometheus_image, ["sh", "-c", command], remove=True, labels=LABELS)
    assert "SUCCESS: 5 rules found" in str(output)


def test_each_alert_has_unit_tests_in_which_it_fires_and_in_which_it_does_not() -> None:
    alerts = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
    tests = yaml.safe_load((FOLDER / "alerts.test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    for alert in alerts:
        fires = {bool(case["exp_alerts"]) for case in cases if case["alertname"] == alert["alert"]}
        assert fires == {True, False}, alert["alert"]


def test_each_query_of_the_dashboard_returns_data_of_a_run_under_load(
    prometheus: Prometheus,
) -> None:
    assert len(QUERIES) > 20
    for query in QUERIES:
        values = prometheus.query(replace_variables(query))
        assert values, query
        assert not all(isnan(value) for value in values), query  # example
    assert prometheus.query(replace_variables(find_query("Pods"))) == [1]
    assert prometheus.query(replace_variables(find_query("Error share"))) == [0]
    assert min(prometheus.query(replace_variables(find_query("Hit share")))) > 0.5  # example
    assert len(prometheus.query("process_resident_memory_bytes")) == 2, "one for each worker"


def test_the_picture_of_the_dashboard_has_every_panel_and_its_data(
    prometheus: Prometheus,
) -> None:
    picture = ET.fromstring(draw_dashboard(prometheus.client, time()))
    titles = {element.text for element in picture.iter() if element.get("class") in TITLE_STYLES}
    classes = [element.get("class") for element in picture.iter()]
    assert titles == {panel["title"] for panel in DASHBOARD["panels"]}
    assert classes.count("line") > classes.count("panel")


def find_query(title: str) -> str:
    """Return the first query of the panel with this title."""
    [panel] = [panel for panel in DASHBOARD["panels"] if panel["title"] == title]
    return str(panel["targets"][0]["expr"])


def test_prometheus_evaluates_the_alerts_on_metrics_that_exist(prometheus: Prometheus) -> None:
    def are_evaluated() -> bool:
        return {rule["health"] for rule in prometheus.get("rules")["groups"][0]["rules"]} == {"ok"}

    wait_until(are_evaluated, 30, "the evaluation of the rules")
    existing = set(prometheus.get("label/__name__/values"))
    for rule in prometheus.get("rules")["groups"][0]["rules"]:
        names = set(METRIC.findall(rule["query"]))
        assert names
        # There are no pods, and no kube-state-metrics.
        assert {name for name in names - existing if not name.startswith("kube_")} == set()
