"""How the container starts, reports its health, and stops."""

import json
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic

import httpx
import pytest
from python_on_whales import Container, DockerClient

from fastapi_k8s import NAME
from tests.container.conftest import (
    Application,
    RunApplication,
    application_environment,
    returns_200,
)
from tests.docker_session import LABELS
from tools.dev.servers import wait_until

REFUSED_PASSWORD = (
    "DATABASE_URL: has an empty password, or a password for development, in production"
)

PRINT_WORKERS = """
import pathlib
print(pathlib.Path("/proc/1/task/1/children").read_text())
"""


def get_health(container: Container) -> str | None:
    """Return the result of the image's `HEALTHCHECK`: starting, healthy or unhealthy."""
    health = container.state.health
    return health.status if health else None


def wait_for_health(container: Container, status: str) -> None:
    """Wait until the image's `HEALTHCHECK` has this result."""
    wait_until(lambda: get_health(container) == status, 30, f"the container to be {status}")


def get_workers(application: Application) -> list[int]:
    """Return the process ids of Gunicorn's workers, inside the container."""
    return [int(pid) for pid in application.run_python(PRINT_WORKERS).split()]


def send_signal(application: Application, number: signal.Signals, pid: int) -> None:
    """Send a signal to a process of the container."""
    application.run_python(f"import os; os.kill({pid}, {int(number)})")


@contextmanager
def lock_items_table(postgres: Container) -> Iterator[None]:  # example
    """Hold a lock on the table, so that every request for items waits until the block ends."""
    command = ["docker", "exec", "-i", postgres.id, "psql", "-U", "app", "-q"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as psql:
        assert psql.stdin
        assert psql.stdout
        psql.stdin.write("BEGIN; LOCK TABLE items IN ACCESS EXCLUSIVE MODE;\n\\echo locked\n")
        psql.stdin.flush()
        assert psql.stdout.readline() == "locked\n"
        yield
        psql.stdin.write("ROLLBACK;\n")


def has_waiting_statement(postgres: Container) -> bool:  # example
    """Return whether exactly one statement waits for a lock."""
    count = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return postgres.execute(["psql", "-U", "app", "-Atc", count]) == "1"


def test_the_container_is_unhealthy_while_its_worker_hangs(
    run_application: RunApplication,
) -> None:
    with run_application(health_interval=1, health_retries=1) as application:
        wait_for_health(application.container, "healthy")
        [worker] = get_workers(application)
        send_signal(application, signal.SIGSTOP, worker)
        wait_for_health(application.container, "unhealthy")
        send_signal(application, signal.SIGCONT, worker)
        wait_for_health(application.container, "healthy")


def test_the_container_is_healthy_with_the_intervals_of_the_image(
    run_application: RunApplication,
) -> None:
    with run_application() as application:
        wait_for_health(application.container, "healthy")


@pytest.mark.parametrize(
    ("port", "message"),
    [
        ("1", "GET /health failed: [Errno 111] Connection refused\n"),
        ("8000", "GET /health returned status 404\n"),
    ],
    ids=["a refused connection", "a status other than 200"],
)
def test_the_health_check_fails_because_of(
    docker: DockerClient, image: str, port: str, message: str
) -> None:
    """Python's file server listens on port 8000 and has no file `health`."""
    container = docker.run(
        image, ["python", "-m", "http.server", "8000"], detach=True, labels=LABELS, workdir="/tmp"
    )
    check = ["docker", "exec", "--env", f"PORT={port}", container.id]
    check += ["python", "-IS", "/app/healthcheck.py"]

    def fails_with_the_message() -> bool:
        process = subprocess.run(check, capture_output=True, text=True, check=False)
        return (process.returncode, process.stderr) == (1, message)

    try:
        wait_until(fails_with_the_message, 30, "the failure of the health check")
    finally:
        container.remove(force=True)


def test_on_sigterm_a_request_in_flight_finishes_and_the_exit_code_is_0(  # example
    run_application: RunApplication, postgres: Container, redis: Container
) -> None:
    environment = {"DATABASE_STATEMENT_TIMEOUT": "30"}
    with run_application(environment) as application, ThreadPoolExecutor(2) as threads:
        with lock_items_table(postgres):
            response = threads.submit(application.client.get, "/items")
            wait_until(lambda: has_waiting_statement(postgres), 30, "the request to wait")
            stop_time = monotonic()
            stop = threads.submit(application.container.stop, 60)
            wait_until(lambda: not accepts_connections(application), 30, "the listener to close")
            assert not response.done()
        assert response.result().status_code == httpx.codes.OK
        stop.result()
        assert application.container.state.exit_code == 0
        assert monotonic() - stop_time < 30


def accepts_connections(application: Application) -> bool:  # example
    """Return whether a request on a new connection gets a response."""
    with httpx.Client(base_url=application.client.base_url, timeout=5) as client:
        return returns_200(client)


def test_sigterm_ends_a_container_that_starts(docker: DockerClient, image: str) -> None:
    """Before Gunicorn handles signals, it imports its configuration and the application.

    The kernel discards the signals that arrive before Python runs, so the test sends several.
    """
    program = "import fastapi_k8s.server, time; time.sleep(60)"
    container = docker.run(image, ["python", "-c", program], detach=True, labels=LABELS)
    kill = ["docker", "kill", "--signal", "TERM", container.id]

    def has_exited() -> bool:
        subprocess.run(kill, capture_output=True, check=False)
        return not container.state.running

    try:
        wait_until(has_exited, 20, "the exit")
        assert container.state.exit_code == 128 + signal.SIGTERM
        assert "Traceback" not in container.logs()
    finally:
        container.remove(force=True)


def test_it_serves_without_shared_memory(run_application: RunApplication) -> None:
    """`ipc="none"`: Docker mounts no /dev/shm."""
    with run_application(ipc="none", tmpfs=["/tmp"]) as application:
        assert returns_200(application.client, "/metrics")


def test_without_a_writable_folder_it_ends_with_one_line_that_names_the_folder(
    image: str,
) -> None:
    flags = ["--rm", "--read-only", "--ipc=none"]
    flags += [f"--env={name}={value}" for name, value in application_environment().items()]
    process = subprocess.run(
        ["docker", "run", *flags, image], capture_output=True, text=True, check=False
    )
    assert process.returncode == 1
    message = "no writable folder for temporary files: mount a tmpfs at /tmp"
    assert process.stderr.splitlines() == [f"{NAME}: {message}"]


def test_a_killed_worker_is_replaced(
    run_application: RunApplication, postgres: Container, redis: Container
) -> None:
    with run_application() as application:
        [killed_pid] = get_workers(application)
        send_signal(application, signal.SIGKILL, killed_pid)
        wait_until(lambda: returns_200(application.client, "/ready"), 30, "the new worker")
        assert get_workers(application) != [killed_pid]
        assert application.container.state.running


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "DATABASE_URL: Field required"),
        ({"DATABASE_URL": "postgresql://app:@db/app"}, REFUSED_PASSWORD),
        ({"DATABASE_URL": "postgresql://app:development@db/app"}, REFUSED_PASSWORD),
        (
            {**application_environment(), "CACHE_TTL": "soon"},
            "CACHE_TTL: Input should be a valid integer, unable to parse string as an integer",
        ),
    ],
    ids=["a missing setting", "an empty password", "a development password", "not a number"],
)
@pytest.mark.parametrize("command", [[], ["fastapi-k8s", "migrate"]], ids=["serve", "migrate"])
def test_an_invalid_setting_ends_the_container_with_one_line_that_names_it(
    image: str, environment: dict[str, str], message: str, command: list[str]
) -> None:
    flags = [f"--env={name}={value}" for name, value in environment.items()]
    process = subprocess.run(
        ["docker", "run", "--rm", *flags, image, *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode not in (0, 1)
    assert [line.strip() for line in process.stderr.splitlines()] == [
        "fastapi-k8s: invalid settings:",
        message,
    ]


def test_migrate_ends_at_once_on_sigterm_while_it_waits_for_postgresql(
    docker: DockerClient, image: str
) -> None:
    """The kernel ignores SIGTERM for the first process of a container without a handler."""
    container = docker.run(
        image,
        ["fastapi-k8s", "migrate", "--wait=3600"],
        detach=True,
        envs=application_environment(),
        labels=LABELS,
    )
    try:
        wait_until(lambda: "waiting: " in str(container.logs()), 30, "the first attempt")
        container.kill("SIGTERM")
        wait_until(lambda: not is_running(container), 30, "the exit")
        assert container.state.exit_code == 128 + signal.SIGTERM
        assert "Traceback" not in str(container.logs())
    finally:
        container.remove(force=True)


def is_running(container: Container) -> bool:
    """Return whether the container runs."""
    return bool(container.state.running)


def test_two_workers_share_the_port_and_the_metrics(
    run_application: RunApplication, postgres: Container, redis: Container
) -> None:
    with run_application({"WEB_CONCURRENCY": "2"}) as application:
        wait_until(lambda: len(get_workers(application)) == 2, 30, "the second worker")
        for _ in range(20):
            application.client.get("/version")
        lines = application.client.get("/metrics").text.splitlines()
        [count] = [line for line in lines if 'http_route="/version"' in line and "_count{" in line]
        assert json.loads(count.split()[-1]) == 20
