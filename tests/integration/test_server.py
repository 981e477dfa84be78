"""The application under Gunicorn, as in production: signals, drain, workers, metrics and logs."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fastapi_k8s import NAME, server
from tests.conftest import MakeSettings
from tools.benchmarks.load_generator import steady_load
from tools.dev.servers import free_port, wait_until

GUNICORN = [sys.executable, "-m", "gunicorn", "-c", f"python:{server.__name__}"]
APP_WITH_TEST_ROUTES = "tests.integration.apps:create_app_with_test_routes()"
APP_WITH_METRICS = "tests.integration.metrics_of_a_fork:create_app()"
APP_WITHOUT_SETTINGS = "tests.integration.apps:create_app_without_settings()"
WRAPPED_APP = "tests.integration.apps:create_wrapped_app()"
APP_THAT_DOES_NOT_STOP = "tests.integration.apps:create_app_that_does_not_stop()"
APP_THAT_FAILS_TO_START = "tests.integration.apps:create_app_that_fails_to_start()"
METRICS_FOLDER = Path(server.worker_tmp_dir or gettempdir())

PRINTED_CHARACTERS = 500_000
"""How much of the output of a server is printed. Under load it can be many megabytes."""

REQUESTS_TO_FIND_WORKERS = 40
"""After this number of requests, each of a few workers has probably responded to one."""


class Gunicorn:
    """A Gunicorn process. Its output goes to files in `folder`."""

    def __init__(self, folder: Path, environment: dict[str, str], *arguments: str) -> None:
        self.url = f"http://127.0.0.1:{environment['PORT']}"
        self.stdout = folder / "stdout"
        self.stderr = folder / "stderr"
        self.command = [*GUNICORN, *arguments]
        self.process_requests = 0
        with self.stdout.open("w") as stdout, self.stderr.open("w") as stderr:
            self.process = subprocess.Popen(
                self.command, env=environment, stdout=stdout, stderr=stderr
            )
        # Each request opens a connection, so that any worker can accept it.
        headers = {"Connection": "close"}
        self.client = httpx.Client(base_url=self.url, headers=headers, timeout=30)

    def is_alive(self) -> bool:
        assert self.process.poll() is None, self.stderr.read_text()
        try:
            return self.client.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def get(self, path: str) -> Any:
        return self.client.get(path).raise_for_status().json()

    def get_worker(self) -> int:
        """The process id of the worker that responds to /process. Counts the responses."""
        worker = int(self.get("/process"))
        self.process_requests += 1
        return worker

    def count_requests(self, route: str) -> float:
        """The number of requests of `route`, from the metrics."""
        metrics = self.client.get("/metrics").raise_for_status().text
        requests = 0.0
        for metric in text_string_to_metric_families(metrics):
            for sample in metric.samples:
                is_count = sample.name == "http_server_request_duration_seconds_count"
                if is_count and sample.labels["http_route"] == route:
                    requests += sample.value
        return requests

    def read_samples(self) -> dict[str, float]:
        """The values of all samples without labels, and of those with, by `name{value}`."""
        text = self.client.get("/metrics").raise_for_status().text
        samples = {}
        for metric in text_string_to_metric_families(text):
            for sample in metric.samples:
                labels = ",".join(sample.labels.values())
                samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return samples

    def wait_until_counted(self) -> None:
        """Wait until the metrics include all responses to /process.

        A worker counts a request after it has sent the response.
        """

        def are_counted() -> bool:
            return self.count_requests("/process") >= self.process_requests

        wait_until(are_counted, 10, "the metrics of the last request")

    def find_workers(self) -> set[int]:
        """The process ids of the workers that respond."""
        return {self.get_worker() for _ in range(REQUESTS_TO_FIND_WORKERS)}

    def wait_for_workers(self, number: int) -> set[int]:
        """Send requests until `number` workers have responded, and return their process ids."""
        workers: set[int] = set()

        def have_responded() -> bool:
            workers.update(self.find_workers())
            return len(workers) >= number

        wait_until(have_responded, 20, f"responses of {number} workers")
        return workers

    def is_replaced(self, worker: int) -> bool:
        """Whether only other workers respond."""
        try:
            return worker not in self.find_workers()
        except httpx.TransportError:  # The killed worker had accepted the connection.
            return False

    def is_unready(self) -> bool:
        """Whether every worker is unready."""
        return {self.client.get("/ready").status_code for _ in range(20)} == {503}

    def find_children(self) -> set[int]:
        """The process ids of the master's child processes."""
        master = self.process.pid
        children = Path(f"/proc/{master}/task/{master}/children").read_text()
        return {int(pid) for pid in children.split()}

    def find_metrics_files(self) -> set[Path]:
        return set(METRICS_FOLDER.glob(f"metrics-{self.process.pid}-*/*"))

    def is_busy(self) -> bool:
        """Whether a slow request has begun. There must be one worker."""
        return bool(self.get("/is-busy"))

    def read_lines(self) -> list[dict[str, Any]]:
        """The log lines so far."""
        return [json.loads(line) for line in self.stdout.read_text().splitlines()]

    def stop(self) -> int:
        """Send SIGTERM, wait for the exit and return its code."""
        self.process.terminate()
        return self.process.wait(40)


def process_environment(**variables: str) -> dict[str, str]:
    """The variables of a Gunicorn process, and those that let coverage measure it."""
    coverage = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    required = {"PATH": os.environ["PATH"], "PYTHONPATH": ".", "PORT": str(free_port())}
    return coverage | required | variables


@pytest.fixture
def environment(make_settings: MakeSettings) -> dict[str, str]:
    settings = make_settings()
    return process_environment(
        DATABASE_URL=settings.database_url.get_secret_value(),
        REDIS_URL=settings.redis_url.get_secret_value(),
    )


@contextmanager
def running_gunicorn(environment: dict[str, str], *arguments: str) -> Iterator[Gunicorn]:
    with TemporaryDirectory() as folder:
        gunicorn = Gunicorn(Path(folder), environment, *arguments)
        try:
            wait_until(gunicorn.is_alive, 30, "the first response")
            yield gunicorn
        finally:
            gunicorn.client.close()
            try:
                gunicorn.stop()
            finally:
                gunicorn.process.kill()  # if it has not stopped; its workers then stop, too
                gunicorn.process.wait()
                # pytest shows it if the test has failed.
                print(gunicorn.stdout.read_text()[-PRINTED_CHARACTERS:])


async def test_it_serves_with_one_worker_and_stops_with_code_0_and_without_files(
    environment: dict[str, str],
) -> None:
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        assert gunicorn.get("/ready")["status"] == "ready"
        assert len(gunicorn.find_workers()) == 1
        assert len(gunicorn.find_children()) == 1
        assert gunicorn.find_metrics_files()
        assert gunicorn.stop() == 0
        assert not gunicorn.find_metrics_files()


@pytest.mark.parametrize("app", [APP_WITHOUT_SETTINGS, WRAPPED_APP])
async def test_an_application_without_settings_stops_without_a_drain(
    environment: dict[str, str], app: str
) -> None:
    with running_gunicorn(environment, app) as gunicorn:
        assert gunicorn.stop() == 0


async def test_the_middleware_is_built_once_before_the_workers_are_forked(
    environment: dict[str, str],
) -> None:
    """What a worker builds itself takes memory in each worker."""
    environment["WEB_CONCURRENCY"] = "2"
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        gunicorn.wait_for_workers(2)
        processes = {gunicorn.get("/process-of-middleware") for _ in range(20)}
        assert processes == {gunicorn.process.pid}


async def test_workers_rarely_collect_garbage_and_never_visit_the_imported_code(
    environment: dict[str, str],
) -> None:
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        garbage_collection = gunicorn.get("/garbage-collection")
        assert garbage_collection["threshold"] == server.GC_THRESHOLD
        assert garbage_collection["frozen_objects"] > 10_000


async def test_every_line_of_output_is_json_on_stdout_without_a_secret(
    environment: dict[str, str],
) -> None:
    with running_gunicorn(environment) as gunicorn:
        gunicorn.client.get("/version", headers={"X-Request-ID": "my-request"})
        gunicorn.stop()
        output = gunicorn.stdout.read_text()
        assert gunicorn.stderr.read_text() == ""
    lines = [json.loads(line) for line in output.splitlines()]
    for line in lines:
        assert {"time", "level", "logger", "message"} <= line.keys()
    [access_line] = [line for line in lines if line["message"] == "request"]
    assert access_line["request_id"] == "my-request"
    assert access_line["path"] == "/version"
    assert access_line["status"] == 200
    for name in ("DATABASE_URL", "REDIS_URL"):
        password = urlsplit(environment[name]).password
        assert password
        assert password not in output


async def test_a_killed_worker_loses_no_access_log_line_but_those_of_its_last_turn(
    environment: dict[str, str],
) -> None:
    """The next request is served in a later turn of the event loop."""
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        for _ in range(20):
            gunicorn.get("/version")
        os.kill(gunicorn.get_worker(), signal.SIGKILL)
        lines = [json.loads(line) for line in gunicorn.stdout.read_text().splitlines()]
        assert [line.get("path") for line in lines].count("/version") == 20


async def test_errors_that_uvicorn_logs_are_json_on_stdout_too(
    environment: dict[str, str],
) -> None:
    """Uvicorn logs the traceback of a lifespan that fails."""
    process = subprocess.run(
        [*GUNICORN, APP_THAT_FAILS_TO_START],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode != 0
    assert process.stderr == ""
    messages = [json.loads(line)["message"] for line in process.stdout.splitlines()]
    tracebacks = [message for message in messages if "RuntimeError: no start" in message]
    assert len(tracebacks) == 1


@pytest.mark.parametrize("is_option", [False, True], ids=["variable", "option"])
async def test_a_server_without_workers_does_not_start(
    environment: dict[str, str], is_option: bool
) -> None:
    if is_option:
        environment["GUNICORN_CMD_ARGS"] = "--workers=0"
    else:
        environment["WEB_CONCURRENCY"] = "0"
    process = subprocess.run(
        GUNICORN, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert process.returncode == 2
    assert process.stderr == f"{NAME}: WEB_CONCURRENCY and --workers must be at least 1\n"


async def test_a_request_in_flight_at_sigterm_is_completed(environment: dict[str, str]) -> None:
    with (
        running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn,
        ThreadPoolExecutor() as executor,
    ):
        request = executor.submit(gunicorn.get, "/slow/1")
        wait_until(gunicorn.is_busy, 20, "the request")
        assert gunicorn.stop() == 0
        assert request.result() == "done"


async def test_the_metrics_of_each_worker_include_the_requests_of_all(
    environment: dict[str, str],
) -> None:
    environment["WEB_CONCURRENCY"] = "3"
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        gunicorn.wait_for_workers(3)
        gunicorn.wait_until_counted()
        counts = {gunicorn.count_requests("/process") for _ in range(20)}
        assert counts == {gunicorn.process_requests}


async def test_gauges_are_those_of_all_workers_and_counters_outlive_a_killed_worker(
    environment: dict[str, str],
) -> None:
    environment.update(WEB_CONCURRENCY="2", DATABASE_POOL_SIZE="3", APP_VERSION="4.5.6")
    active = "http_server_active_requests{GET}"
    with (
        running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn,
        ThreadPoolExecutor() as executor,
    ):
        workers = gunicorn.wait_for_workers(2)
        samples = gunicorn.read_samples()
        assert samples["db_client_connection_max"] == 2 * 3
        [release] = [name for name in samples if name.startswith("build_info{")]
        assert release.endswith(",4.5.6}")
        assert samples[release] == 1
        for slot in ("0", "1"):
            assert samples[f"process_resident_memory_bytes{{{slot}}}"] > 1e7
            assert (
                0 < samples[f"process_open_fds{{{slot}}}"] < samples[f"process_max_fds{{{slot}}}"]
            )

        requests = [executor.submit(gunicorn.client.get, "/slow/60") for _ in range(6)]

        def are_active() -> bool:
            # The other worker has written its number a second ago, without a request.
            return gunicorn.read_samples()[active] == len(requests) + 1

        wait_until(are_active, 20, "the active requests")
        cpu_seconds = gunicorn.read_samples()["process_cpu_seconds_total"]
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        for request in requests:
            assert isinstance(request.exception(), httpx.TransportError)
        wait_until(gunicorn.is_alive, 20, "the first response")
        gunicorn.wait_for_workers(2)
        wait_until(lambda: gunicorn.read_samples()[active] == 1, 20, "the metrics of both workers")
        samples = gunicorn.read_samples()
        assert samples["process_cpu_seconds_total"] >= cpu_seconds
        assert samples["db_client_connection_max"] == 2 * 3


@pytest.mark.parametrize("preload", [True, False])
async def test_metrics_that_are_created_at_import_are_summed_over_all_workers(
    environment: dict[str, str], tmp_path: Path, preload: bool
) -> None:
    (tmp_path / "own_config.py").write_text(
        f"from {server.__name__} import *\npreload_app = {preload}\n"
    )
    environment.update(WEB_CONCURRENCY="2", PYTHONPATH=f".:{tmp_path}")
    with running_gunicorn(environment, APP_WITH_METRICS, "-c", "python:own_config") as gunicorn:
        wait_until(lambda: len(gunicorn.find_children()) == 2, 20, "the workers")
        workers = gunicorn.find_children()
        unused = gunicorn.read_samples()
        for name in ("unused_total", "orders_shipped_total", "orders_total{small}", "stock"):
            assert unused[name] == 0, name
        assert unused["release{one}"] == 1
        assert unused["release_time_seconds"] == 1_700_000_000
        number = 0
        busy_workers: set[int] = set()
        while busy_workers != workers:
            busy_workers.add(gunicorn.client.post("/orders").raise_for_status().json())
            number += 1
        samples = gunicorn.read_samples()
        assert samples["orders_shipped_total"] == number
        assert samples["orders_total{small}"] == number
        assert samples["order_size_count"] == samples["order_size_bucket{1.0}"] == number
        assert samples["order_weight_sum"] == 5 * number
        assert samples["orders_in_progress"] == number
        assert samples["stock"] == 3
        # A killed worker has no orders in progress any more, but its counts remain.
        for worker in workers:
            os.kill(worker, signal.SIGKILL)

        def are_replaced() -> bool:
            return len(gunicorn.find_children() - workers) == 2 and gunicorn.is_alive()

        wait_until(are_replaced, 20, "the new workers")
        samples = gunicorn.read_samples()
        assert samples["orders_in_progress"] == 0
        assert samples["orders_shipped_total"] == number
        assert samples["release{one}"] == 1


async def test_a_killed_worker_is_replaced_without_losing_a_count_or_leaving_a_file(
    environment: dict[str, str],
) -> None:
    environment["WEB_CONCURRENCY"] = "2"
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        workers = gunicorn.wait_for_workers(2)
        files = gunicorn.find_metrics_files()
        for _ in range(3):
            killed_worker = min(workers)
            gunicorn.wait_until_counted()
            os.kill(killed_worker, signal.SIGKILL)
            wait_until(partial(gunicorn.is_replaced, killed_worker), 20, "the replacement")
            workers = gunicorn.wait_for_workers(2)
            assert killed_worker not in workers
        gunicorn.wait_until_counted()
        assert gunicorn.find_metrics_files() == files


async def test_after_the_master_was_killed_the_worker_stops_and_another_master_can_start(
    environment: dict[str, str],
) -> None:
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        worker = gunicorn.get_worker()
        gunicorn.process.kill()
        wait_until(partial(has_exited, worker), 20, "the exit")
        assert "master was killed" in gunicorn.stdout.read_text()
        for folder in {file.parent for file in gunicorn.find_metrics_files()}:
            shutil.rmtree(folder)
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        assert gunicorn.get_worker() != worker


async def test_a_reload_replaces_the_workers_and_keeps_the_counts(
    environment: dict[str, str],
) -> None:
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        [worker] = gunicorn.find_workers()
        gunicorn.process.send_signal(signal.SIGHUP)
        wait_until(partial(gunicorn.is_replaced, worker), 20, "the new worker")
        gunicorn.wait_until_counted()
        assert gunicorn.count_requests("/process") == gunicorn.process_requests


async def test_a_worker_is_replaced_after_max_requests_and_loses_no_request_or_count(
    environment: dict[str, str],
) -> None:
    arguments = (APP_WITH_TEST_ROUTES, "--max-requests", "100")
    with running_gunicorn(environment, *arguments) as gunicorn:
        async with steady_load(f"{gunicorn.url}/process", clients=8, pause_seconds=0.01) as load:
            async with asyncio.timeout(30):
                while len(load.responses) < 4:  # the number of workers that have responded
                    await asyncio.sleep(0.05)
        assert load.failures == []
        gunicorn.process_requests = load.request_count
        await asyncio.to_thread(gunicorn.wait_until_counted)
        assert gunicorn.count_requests("/process") == gunicorn.process_requests
        slots = {file.stem.rpartition("_")[2] for file in gunicorn.find_metrics_files()}
        assert slots == {"0"}


async def test_a_worker_that_drains_after_max_requests_stays_ready(
    environment: dict[str, str],
) -> None:
    """Otherwise Kubernetes would remove the pod from the Service each time."""
    environment["DRAIN_SECONDS"] = "60"
    arguments = (APP_WITH_TEST_ROUTES, "--max-requests", "1")
    with running_gunicorn(environment, *arguments) as gunicorn:
        with httpx.Client(base_url=gunicorn.url) as client:

            def is_draining() -> bool:
                response = client.get("/health")
                return response.headers.get_list("Connection") == ["close"]

            wait_until(is_draining, 20, "the drain")
            assert client.get("/ready").json()["status"] == "ready"
        gunicorn.process.send_signal(signal.SIGINT)


async def test_a_start_on_a_used_port_fails_without_leaving_files(
    environment: dict[str, str],
) -> None:
    with running_gunicorn(environment) as gunicorn:
        process = subprocess.Popen(gunicorn.command, env=environment, stdout=subprocess.DEVNULL)
        assert process.wait(30) == 1
        assert not list(METRICS_FOLDER.glob(f"metrics-{process.pid}-*"))


async def test_after_sigterm_it_is_unready_and_alive_and_serves_for_drain_seconds(
    environment: dict[str, str],
) -> None:
    environment.update(DRAIN_SECONDS="5", WEB_CONCURRENCY="2")
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        started_at = monotonic()
        gunicorn.process.terminate()
        wait_until(gunicorn.is_unready, 4, "the drain")
        with httpx.Client(base_url=gunicorn.url) as client:
            while monotonic() < started_at + 4:
                for path in ("/health", "/version"):
                    response = client.get(path)
                    assert response.status_code == 200
                    assert response.headers["Connection"] == "close"
                readiness = client.get("/ready")
                assert readiness.status_code == 503
                assert readiness.headers["Connection"] == "close"
                assert readiness.json() == {"status": "draining", "checks": {}}
        assert gunicorn.process.wait(20) == 0
        assert 5 < monotonic() - started_at < 20


@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGQUIT])
async def test_sigint_and_sigquit_end_a_drain_early(
    environment: dict[str, str], stop_signal: signal.Signals
) -> None:
    environment["DRAIN_SECONDS"] = "60"
    with running_gunicorn(environment) as gunicorn:
        gunicorn.process.terminate()
        wait_until(gunicorn.is_unready, 3, "the drain")
        gunicorn.process.send_signal(stop_signal)
        assert gunicorn.process.wait(10) == 0


async def test_further_sigterms_change_nothing(environment: dict[str, str]) -> None:
    environment["DRAIN_SECONDS"] = "60"
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        [worker] = gunicorn.find_workers()
        for _ in range(3):
            os.kill(worker, signal.SIGTERM)
            wait_until(gunicorn.is_unready, 20, "the drain")
        response = gunicorn.client.get("/version")
        assert response.headers.get_list("Connection") == ["close"]
        gunicorn.process.send_signal(signal.SIGINT)


@pytest.mark.parametrize("first_signal", [signal.SIGTERM, signal.SIGINT])
async def test_a_request_in_flight_is_completed_if_sigint_follows(
    environment: dict[str, str], first_signal: signal.Signals
) -> None:
    """Ctrl-C in a terminal sends SIGINT to the worker and, by Gunicorn's master, SIGQUIT."""
    with (
        running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn,
        ThreadPoolExecutor() as executor,
    ):
        [worker] = gunicorn.find_workers()
        request = executor.submit(gunicorn.get, "/slow/1")
        wait_until(gunicorn.is_busy, 20, "the request")
        os.kill(worker, first_signal)
        gunicorn.process.send_signal(signal.SIGINT)
        assert gunicorn.process.wait(20) == 0
        assert request.result() == "done"


@contextmanager
def running_gunicorn_with_short_shutdown(
    environment: dict[str, str], folder: Path, app: str = APP_WITH_TEST_ROUTES
) -> Iterator[Gunicorn]:
    """Requests in flight have half a second, and then time to respond to their cancellation."""
    (folder / "short_shutdown.py").write_text(
        f"from {server.__name__} import *\n"
        f"from {server.__name__} import worker\n"
        "worker.GRACEFUL_SHUTDOWN_SECONDS = 0.5\n"
        "worker.CANCELLATION_SECONDS = 20\n"
        "worker.EXIT_SECONDS = 1\n"
    )
    environment["PYTHONPATH"] = f".:{folder}"
    with running_gunicorn(environment, app, "-c", "python:short_shutdown") as gunicorn:
        yield gunicorn


async def test_a_request_that_outlasts_the_shutdown_gets_a_response(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """It waits for PostgreSQL, so that its cancellation takes a round trip."""
    with (
        running_gunicorn_with_short_shutdown(environment, tmp_path) as gunicorn,
        ThreadPoolExecutor() as executor,
    ):
        request = executor.submit(gunicorn.client.get, "/slow-query")
        wait_until(gunicorn.is_busy, 20, "the request")
        gunicorn.process.terminate()
        response = request.result()
        assert response.status_code == 503
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["connection"] == "close"


async def test_a_response_that_outlasts_the_shutdown_ends_without_its_last_chunk(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Its access log line contains who cut the response. No line has a traceback."""
    with (
        running_gunicorn_with_short_shutdown(environment, tmp_path) as gunicorn,
        gunicorn.client.stream("GET", "/slow-stream") as response,
    ):
        gunicorn.process.terminate()
        with pytest.raises(httpx.RemoteProtocolError):
            response.read()
        assert gunicorn.process.wait(20) == 0
        lines = gunicorn.read_lines()
    [access_line] = [line for line in lines if line.get("path") == "/slow-stream"]
    assert (access_line["status"], access_line["cut_by"]) == (200, "shutdown")
    [error] = [line for line in lines if line["level"] == "ERROR"]
    assert error["message"] == "shutdown: cancelled 1 requests or background tasks"
    assert "exception" not in error


@pytest.mark.parametrize("path", ["/background-task", "/background-thread"])
async def test_a_background_task_that_outlasts_the_shutdown_is_cancelled_and_logged(
    environment: dict[str, str], tmp_path: Path, path: str
) -> None:
    """The process does not wait for a thread, which cannot be cancelled."""
    with running_gunicorn_with_short_shutdown(environment, tmp_path) as gunicorn:
        response = gunicorn.client.get(path, headers={"X-Request-ID": "abc"})
        assert response.json() == "accepted"
        assert gunicorn.stop() == 0
        lines = gunicorn.read_lines()
    errors = [line for line in lines if line["level"] == "ERROR"]
    assert [line["message"] for line in errors] == [
        "shutdown: cancelled 1 requests or background tasks",
        "background task cancelled",
    ]
    assert errors[1]["request_id"] == "abc"
    assert not [line for line in lines if "exception" in line]


async def test_a_lifespan_that_does_not_end_does_not_delay_the_exit(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Otherwise the master would kill the worker, after 100 s."""
    with running_gunicorn_with_short_shutdown(
        environment, tmp_path, APP_THAT_DOES_NOT_STOP
    ) as gunicorn:
        assert gunicorn.stop() == 0
        messages = [line["message"] for line in gunicorn.read_lines()]
    assert "shutdown: the lifespan or a thread has not ended after 1 s" in messages


async def test_a_stream_ends_completely_when_the_drain_begins(
    environment: dict[str, str],
) -> None:
    environment["DRAIN_SECONDS"] = "60"
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        with gunicorn.client.stream("GET", "/events") as response:
            gunicorn.process.terminate()
            assert response.read() == b"data: first\n\ndata: last\n\n"
        assert gunicorn.client.get("/ready").json()["status"] == "draining"
        gunicorn.process.send_signal(signal.SIGINT)


async def test_a_stream_ends_completely_when_its_worker_has_served_max_requests(
    environment: dict[str, str],
) -> None:
    environment["DRAIN_SECONDS"] = "60"
    arguments = (APP_WITH_TEST_ROUTES, "--max-requests", "10")
    with running_gunicorn(environment, *arguments) as gunicorn:
        with gunicorn.client.stream("GET", "/events") as response:
            for _ in range(10):
                gunicorn.get("/process")
            assert response.read() == b"data: first\n\ndata: last\n\n"
        assert gunicorn.get("/ready")["status"] == "ready"
        gunicorn.process.send_signal(signal.SIGINT)


async def test_a_stream_ends_completely_at_a_stop_without_a_drain(
    environment: dict[str, str],
) -> None:
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        with gunicorn.client.stream("GET", "/events") as response:
            gunicorn.process.send_signal(signal.SIGINT)
            assert response.read() == b"data: first\n\ndata: last\n\n"
        assert gunicorn.process.wait(20) == 0


async def test_the_shutdown_does_not_wait_longer_for_a_client_that_reads_nothing(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """The request is complete, and the response is in the server's buffer."""
    with (
        running_gunicorn_with_short_shutdown(environment, tmp_path) as gunicorn,
        socket.create_connection(("127.0.0.1", int(environment["PORT"]))) as connection,
    ):
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: gunicorn.count_requests("/large") == 1, 20, "the response")
        assert gunicorn.stop() == 0
        assert "shutdown: cancelled" not in gunicorn.stdout.read_text()


async def test_the_heartbeat_continues_after_the_clock_was_set_back(
    environment: dict[str, str],
) -> None:
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        [worker] = gunicorn.find_workers()
        gunicorn.client.post("/set-clock-back").raise_for_status()
        start = heartbeat_time(worker)
        # The first heartbeat may have been sent before.
        wait_until(lambda: heartbeat_time(worker) > start + 1, 20, "two heartbeats")


def heartbeat_time(worker: int) -> float:
    """When the worker sent its last heartbeat: the time of a file that Gunicorn has deleted."""
    for descriptor in Path(f"/proc/{worker}/fd").iterdir():
        if "/wgunicorn-" in str(descriptor.readlink()):
            return descriptor.stat().st_mtime
    raise AssertionError("no heartbeat file")


@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGQUIT])
async def test_sigint_and_sigquit_stop_without_a_drain(
    environment: dict[str, str], stop_signal: signal.Signals
) -> None:
    environment["DRAIN_SECONDS"] = "60"
    with running_gunicorn(environment) as gunicorn:
        gunicorn.process.send_signal(stop_signal)
        assert gunicorn.process.wait(10) == 0


async def test_the_second_sigint_cancels_the_requests_in_flight(
    environment: dict[str, str],
) -> None:
    with (
        running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn,
        ThreadPoolExecutor() as executor,
        socket.create_connection(("127.0.0.1", int(environment["PORT"])), 20) as idle_connection,
    ):
        [worker] = gunicorn.find_workers()
        request = executor.submit(gunicorn.client.get, "/slow/60")
        wait_until(gunicorn.is_busy, 20, "the request")
        os.kill(worker, signal.SIGINT)
        assert idle_connection.recv(1) == b"", "the first signal closes idle connections"
        os.kill(worker, signal.SIGINT)
        assert request.result().status_code == 503
        wait_until(partial(has_exited, worker), 20, "the exit")
        assert not [line for line in gunicorn.read_lines() if "exception" in line]


@pytest.mark.parametrize("drain_seconds", ["0", "2"])
async def test_a_reload_under_load_loses_no_request(
    environment: dict[str, str], drain_seconds: str
) -> None:
    environment["DRAIN_SECONDS"] = drain_seconds
    with running_gunicorn(environment, APP_WITH_TEST_ROUTES) as gunicorn:
        async with steady_load(f"{gunicorn.url}/process", clients=8, pause_seconds=0.01) as load:
            [worker] = await asyncio.to_thread(gunicorn.find_workers)
            gunicorn.process.send_signal(signal.SIGHUP)
            await asyncio.to_thread(wait_until, partial(has_exited, worker), 20, "the exit")
            await asyncio.sleep(0.5)
        assert load.request_count > 100
        assert load.failures == []
        gunicorn.stop()
        assert "Error while closing socket" not in gunicorn.stdout.read_text()


def has_exited(pid: int) -> bool:
    """Whether a process has exited. Nobody may have waited for it: it can be a zombie."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_a_sigterm_while_a_worker_is_forked_is_not_lost(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """The hook delays the new worker before Gunicorn resets its signal handlers."""
    (tmp_path / "slow_fork.py").write_text(
        f"import time\nfrom {server.__name__} import *\n"
        "def post_fork(arbiter, worker): time.sleep(0.3)\n"
    )
    environment["PYTHONPATH"] = f".:{tmp_path}"
    arguments = (APP_WITH_TEST_ROUTES, "-c", "python:slow_fork")
    with running_gunicorn(environment, *arguments) as gunicorn:
        [worker] = gunicorn.find_workers()
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: gunicorn.find_children() - {worker} != set(), 20, "the next worker")
        gunicorn.process.terminate()
        assert gunicorn.process.wait(10) == 0


def supports_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return server.all_interfaces("80").startswith("[::]")
    except OSError:
        return False


@pytest.mark.skipif(not supports_ipv6(), reason="This machine does not support IPv6.")
async def test_with_a_port_it_listens_for_clients_of_ipv4_and_ipv6(
    environment: dict[str, str],
) -> None:
    """An IPv4 address is trusted as a proxy and logged in its own form, on the IPv6 socket too."""
    environment["FORWARDED_ALLOW_IPS"] = "127.0.0.1"
    with running_gunicorn(environment) as gunicorn:
        proxied = {"X-Forwarded-For": "192.0.2.1"}
        gunicorn.client.get("/version", headers=proxied).raise_for_status()
        gunicorn.client.get(f"http://[::1]:{environment['PORT']}/version").raise_for_status()
        with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2")) as client:
            client.get(f"{gunicorn.url}/version", headers=proxied).raise_for_status()
        gunicorn.stop()
        lines = [json.loads(line) for line in gunicorn.stdout.read_text().splitlines()]
    clients = [line["client"] for line in lines if line["message"] == "request"]
    assert clients == ["192.0.2.1", "::1", "127.0.0.2"]
