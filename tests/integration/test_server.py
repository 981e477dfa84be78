"""The service under Gunicorn, as it runs in production."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from time import monotonic
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fastapi_k8s import server
from tests.conftest import MakeSettings
from tools.benchmarks.load_generator import steady_load
from tools.dev.servers import free_port, wait_until


class Gunicorn:
    """A running server, whose output goes to files in `folder`."""

    def __init__(self, folder: Path, environment: dict[str, str], *arguments: str) -> None:
        self.url = f"http://127.0.0.1:{environment['PORT']}"
        self.stdout, self.stderr = folder / "stdout", folder / "stderr"
        command = [sys.executable, "-m", "gunicorn", "-c", f"python:{server.__name__}", *arguments]
        with self.stdout.open("w") as stdout, self.stderr.open("w") as stderr:
            self.process = subprocess.Popen(command, env=environment, stdout=stdout, stderr=stderr)
        wait_until(self.answers, 30, "the first answer")

    def answers(self) -> bool:
        assert self.process.poll() is None, self.stderr.read_text()
        try:
            return httpx.get(f"{self.url}/health").status_code == 200
        except httpx.TransportError:
            return False

    def get(self, path: str) -> Any:
        return httpx.get(f"{self.url}{path}").raise_for_status().json()

    def count(self, route: str) -> float:
        """How many requests of `route` the metrics tell."""
        text = httpx.get(f"{self.url}/metrics").raise_for_status().text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.endswith("_count") and sample.labels["route"] == route
        )

    def workers(self) -> set[int]:
        """The processes that answer; enough requests that each has probably answered one."""
        return {self.get("/process") for _ in range(40)}

    def stop(self) -> int:
        """Send SIGTERM, wait, and give the exit code."""
        self.process.terminate()
        return self.process.wait(40)


@pytest.fixture
def environment(make_settings: MakeSettings) -> dict[str, str]:
    settings = make_settings()
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": ".",
        **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")},
        "PORT": str(free_port()),
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "REDIS_URL": settings.redis_url.get_secret_value(),
    }


@contextmanager
def running(environment: dict[str, str], *arguments: str) -> Iterator[Gunicorn]:
    with TemporaryDirectory() as folder:
        gunicorn = Gunicorn(Path(folder), environment, *arguments)
        try:
            yield gunicorn
        finally:
            gunicorn.stop()


PROBES = "tests.integration.apps:with_probes()"


def metric_files(gunicorn: Gunicorn) -> set[Path]:
    folder = Path(server.worker_tmp_dir or gettempdir())
    return set(folder.glob(f"metrics-{gunicorn.process.pid}-*/*"))


async def test_it_serves_and_stops_with_code_0_and_leaves_nothing(
    environment: dict[str, str],
) -> None:
    with running(environment) as gunicorn:
        assert gunicorn.get("/ready")["status"] == "ready"
        assert metric_files(gunicorn)
        assert gunicorn.stop() == 0
        assert not metric_files(gunicorn)


async def test_another_application_stops_too_without_a_drain(environment: dict[str, str]) -> None:
    """As `make bench` runs some."""
    with running(environment, "tests.integration.apps:bare()") as gunicorn:
        assert gunicorn.stop() == 0


async def test_every_line_of_output_is_json_on_stdout_without_a_secret(
    environment: dict[str, str],
) -> None:
    with running(environment) as gunicorn:
        httpx.get(f"{gunicorn.url}/version", headers={"X-Request-ID": "my-request"})
        gunicorn.stop()
        output = gunicorn.stdout.read_text()
        assert gunicorn.stderr.read_text() == ""
    lines = [json.loads(line) for line in output.splitlines()]
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, lines))
    [access] = [line for line in lines if line["message"] == "request"]
    assert (access["request_id"], access["path"], access["status"]) == (
        "my-request",
        "/version",
        200,
    )
    secrets = [
        environment[name].split(":")[2].split("@")[0] for name in ("DATABASE_URL", "REDIS_URL")
    ]
    assert not any(secret in output for secret in secrets)


async def test_what_uvicorn_logs_is_json_on_stdout_too(environment: dict[str, str]) -> None:
    """Its traceback of a start that fails, here."""
    command = [
        "-m",
        "gunicorn",
        "-c",
        f"python:{server.__name__}",
        "tests.integration.apps:failing()",
    ]
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert done.stderr == ""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [1 for line in lines if "RuntimeError: no start" in line["message"]] == [1]


async def test_a_request_in_flight_at_sigterm_is_answered(environment: dict[str, str]) -> None:
    with running(environment, PROBES) as gunicorn:
        process = subprocess.Popen(
            [sys.executable, "-c", f"import httpx; print(httpx.get('{gunicorn.url}/slow/1').text)"],
            stdout=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: connections(gunicorn.url) > 0, 20, "the request")
        assert gunicorn.stop() == 0
    assert process.communicate()[0] == '"done"\n'


def connections(url: str) -> int:
    """How many TCP connections the server of `url` has."""
    port = f":{int(url.rsplit(':', 1)[1]):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(port) and row[3] == "01" for row in rows)


async def test_any_worker_shows_the_requests_of_all(environment: dict[str, str]) -> None:
    with running(environment | {"WEB_CONCURRENCY": "3"}, PROBES) as gunicorn:
        asked = 0

        def all_have_answered() -> bool:
            nonlocal asked
            asked += 40
            return len(gunicorn.workers()) == 3

        wait_until(all_have_answered, 20, "the answers of three workers")
        assert {gunicorn.count("/process") for _ in range(20)} == {asked}


async def test_a_killed_worker_is_replaced_and_no_count_is_lost_and_no_file_left(
    environment: dict[str, str],
) -> None:
    with running(environment | {"WEB_CONCURRENCY": "2"}, PROBES) as gunicorn:
        workers, files = gunicorn.workers(), metric_files(gunicorn)
        for _ in range(3):
            os.kill(min(workers), signal.SIGKILL)
            wait_until(partial(gone, gunicorn, min(workers)), 20, "the replacement")
            workers = gunicorn.workers()
        assert gunicorn.count("/process") >= 4 * 40
        assert metric_files(gunicorn) == files


def gone(gunicorn: Gunicorn, worker: int) -> bool:
    """Whether all answers come from other workers."""
    try:
        return worker not in gunicorn.workers()
    except httpx.TransportError:  # accepted by the worker that was killed
        return False


async def test_a_reload_replaces_the_workers_and_keeps_the_counts(
    environment: dict[str, str],
) -> None:
    with running(environment, PROBES) as gunicorn:
        [before] = gunicorn.workers()
        gunicorn.process.send_signal(signal.SIGHUP)
        wait_until(partial(gone, gunicorn, before), 20, "the new worker")
        assert gunicorn.count("/process") >= 2 * 40


async def test_a_worker_that_has_served_its_share_is_replaced_and_keeps_the_counts(
    environment: dict[str, str],
) -> None:
    with running(environment, PROBES, "--max-requests", "25") as gunicorn:
        for round_ in (1, 2):
            assert len(gunicorn.workers()) > 1
            assert gunicorn.count("/process") == round_ * 40
        assert len(metric_files(gunicorn)) == 1


async def test_a_taken_port_leaves_nothing_behind(environment: dict[str, str]) -> None:
    with running(environment) as gunicorn:
        command = gunicorn.process.args
        assert isinstance(command, list)
        second = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        assert second.wait(30) == 1
        folder = Path(server.worker_tmp_dir or gettempdir())
        assert not list(folder.glob(f"metrics-{second.pid}-*"))


async def test_one_worker_is_the_default(environment: dict[str, str]) -> None:
    with running(environment, PROBES) as gunicorn:
        assert len(gunicorn.workers()) == 1


async def test_after_sigterm_it_is_unready_alive_and_serves_for_drain_seconds(
    environment: dict[str, str],
) -> None:
    with running(environment | {"DRAIN_SECONDS": "5", "WEB_CONCURRENCY": "2"}, PROBES) as gunicorn:
        began = monotonic()
        gunicorn.process.terminate()
        wait_until(partial(unready, gunicorn), 4, "the drain")
        with httpx.Client(base_url=gunicorn.url) as client:
            while monotonic() < began + 4:
                for path, status in (("/health", 200), ("/version", 200), ("/ready", 503)):
                    answer = client.get(path)
                    assert answer.status_code == status
                    assert answer.headers["Connection"] == "close"
                    if path == "/ready":
                        assert answer.json() == {"status": "draining", "checks": {}}
        assert gunicorn.process.wait(20) == 0
        assert 5 < monotonic() - began < 20


def unready(gunicorn: Gunicorn) -> bool:
    """Whether none of the workers is ready any more."""
    return {httpx.get(f"{gunicorn.url}/ready").status_code for _ in range(20)} == {503}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
async def test_sigint_or_sigquit_ends_a_drain_early(
    environment: dict[str, str], number: signal.Signals
) -> None:
    with running(environment | {"DRAIN_SECONDS": "60"}) as gunicorn:
        gunicorn.process.terminate()
        wait_until(partial(unready, gunicorn), 3, "the drain")
        gunicorn.process.send_signal(number)
        assert gunicorn.process.wait(10) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
async def test_sigint_or_sigquit_stops_without_a_drain(
    environment: dict[str, str], number: signal.Signals
) -> None:
    with running(environment | {"DRAIN_SECONDS": "60"}) as gunicorn:
        gunicorn.process.send_signal(number)
        assert gunicorn.process.wait(10) == 0


def ended_by_sigint(process: int) -> bool:
    """Send another SIGINT, unless the process has ended already."""
    try:
        os.kill(process, signal.SIGINT)
    except ProcessLookupError:
        return True
    return False


async def test_the_second_signal_does_not_wait_for_requests_in_flight(
    environment: dict[str, str],
) -> None:
    with running(environment, PROBES) as gunicorn:
        [worker] = gunicorn.workers()
        client = subprocess.Popen(
            [sys.executable, "-c", f"import httpx; httpx.get('{gunicorn.url}/slow/20')"],
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: connections(gunicorn.url) > 0, 20, "the request")
        wait_until(partial(ended_by_sigint, worker), 10, "the worker's end")
        client.wait(10)


async def test_a_reload_under_load_loses_nothing(environment: dict[str, str]) -> None:
    with running(environment | {"DRAIN_SECONDS": "2"}, PROBES) as gunicorn:
        async with steady_load(f"{gunicorn.url}/process", clients=8, pause=0.01) as load:
            [before] = await asyncio.to_thread(gunicorn.workers)
            gunicorn.process.send_signal(signal.SIGHUP)
            await asyncio.to_thread(
                wait_until, lambda: not Path(f"/proc/{before}").exists(), 20, "its end"
            )
            await asyncio.sleep(0.5)
        assert load.sent > 100
        assert load.failures == []


async def test_a_sigterm_while_a_worker_is_being_forked_is_not_lost(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """The hook holds the new worker before Gunicorn has reset the handlers of its signals."""
    (tmp_path / "slowly.py").write_text(
        f"import time\nfrom {server.__name__} import *\n"
        "def post_fork(arbiter, worker): time.sleep(0.3)\n"
    )
    environment |= {"PYTHONPATH": f".:{tmp_path}"}
    with running(environment, PROBES, "-c", "python:slowly") as gunicorn:
        [worker] = gunicorn.workers()
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: children(gunicorn) - {worker} != set(), 20, "the next worker")
        gunicorn.process.terminate()
        assert gunicorn.process.wait(10) == 0


def children(gunicorn: Gunicorn) -> set[int]:
    """The master's processes."""
    master = gunicorn.process.pid
    return {int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()}
