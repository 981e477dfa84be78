"""How the container starts, stays healthy and ends."""

import json
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic

import httpx
import pytest
from python_on_whales import Container, DockerClient

from tests.container.conftest import LABELS, Serve, Service, answers, settings
from tools.dev.servers import wait_until

WORKERS = "import pathlib; print(*pathlib.Path('/proc/1/task/1/children').read_text().split())"

REFUSED = "DATABASE_URL: Value error, has no password, or a password for development, in production"


def health(container: Container) -> str | None:
    """What Docker makes of the image's HEALTHCHECK."""
    return container.state.health.status if container.state.health else None


def send(service: Service, number: signal.Signals, process: int) -> None:
    """Send a signal to a process, as the container numbers it."""
    service.python(f"import os; os.kill({process}, {int(number)})")


def worker(service: Service) -> int:
    """The one worker's process."""
    return int(service.python(WORKERS))


@contextmanager
def locked_items(postgres: Container) -> Iterator[None]:  # example
    """Let every request for items wait until the block ends."""
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


def waiting(postgres: Container) -> bool:  # example
    """Whether a statement waits for a lock."""
    count = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return postgres.execute(["psql", "-U", "app", "-Atc", count]) == "1"


def test_the_container_turns_healthy(serve: Serve) -> None:
    with serve() as service:
        wait_until(lambda: health(service.container) == "healthy", 30, "health")


def test_the_container_turns_unhealthy_while_the_worker_hangs_and_healthy_again(
    serve: Serve,
) -> None:
    with serve(health_interval=1, health_retries=1) as service:
        wait_until(lambda: health(service.container) == "healthy", 30, "health")
        hanging = worker(service)
        send(service, signal.SIGSTOP, hanging)
        wait_until(lambda: health(service.container) == "unhealthy", 30, "its loss")
        send(service, signal.SIGCONT, hanging)
        wait_until(lambda: health(service.container) == "healthy", 30, "its return")


@pytest.mark.parametrize("port", ["1", "8000"], ids=["no answer", "answer is not 200"])
def test_the_check_fails_on(docker: DockerClient, image: str, port: str) -> None:
    """Nobody listens on port 1; on 8000 a server answers 404."""
    container = docker.run(
        image, ["python", "-m", "http.server", "8000"], detach=True, labels=LABELS, workdir="/tmp"
    )
    check = ["docker", "exec", "--env", f"PORT={port}", container.id]
    check += ["python", "-IS", "/app/healthcheck.py"]
    told = {
        "1": "GET /health failed: [Errno 111] Connection refused\n",
        "8000": "GET /health returned status 404\n",
    }[port]

    def fails_as_told() -> bool:
        done = subprocess.run(check, capture_output=True, text=True, check=False)
        return (done.returncode, done.stderr) == (1, told)

    wait_until(fails_as_told, 30, "the check's failure")
    container.remove(force=True)


def test_sigterm_lets_the_request_in_flight_finish_and_ends_with_0(  # example
    serve: Serve, postgres: Container, redis: Container
) -> None:
    with (
        serve({"DATABASE_STATEMENT_TIMEOUT": "30"}) as service,
        ThreadPoolExecutor(2) as threads,
    ):
        stopping: Future[None]
        with locked_items(postgres):
            answer = threads.submit(service.client.get, "/items")
            wait_until(lambda: waiting(postgres), 30, "the request's wait for the lock")
            began = monotonic()
            stopping = threads.submit(service.container.stop, 60)
            wait_until(lambda: not answers_anew(service), 30, "the end of new connections")
            assert not answer.done()
        assert answer.result().status_code == httpx.codes.OK
        stopping.result()
        assert service.container.state.exit_code == 0
        assert monotonic() - began < 30


def answers_anew(service: Service) -> bool:  # example
    """Whether the service answers on a connection of its own."""
    with httpx.Client(base_url=service.client.base_url, timeout=5) as client:
        return answers(client)


def test_a_killed_worker_is_replaced(serve: Serve, postgres: Container, redis: Container) -> None:
    with serve() as service:
        killed = worker(service)
        send(service, signal.SIGKILL, killed)
        wait_until(lambda: answers(service.client, "/ready"), 30, "the next worker's answer")
        assert worker(service) != killed
        assert service.container.state.running


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({}, "DATABASE_URL: Field required"),
        (
            {"DATABASE_URL": "postgresql://app:@db/app"},
            REFUSED,
        ),
        (
            {"DATABASE_URL": "postgresql://app:development@db/app"},
            REFUSED,
        ),
        (
            {**settings(), "CACHE_TTL": "soon"},
            "CACHE_TTL: Input should be a valid integer, unable to parse string as an integer",
        ),
    ],
    ids=["none", "an empty password", "a development password", "no number"],
)
@pytest.mark.parametrize("command", [[], ["fastapi-k8s", "migrate"]], ids=["serve", "migrate"])
def test_wrong_settings_end_the_container_with_a_line_that_names_the_setting(
    image: str, wrong: dict[str, str], line: str, command: list[str]
) -> None:
    flags = [f"--env={name}={value}" for name, value in wrong.items()]
    done = subprocess.run(
        ["docker", "run", "--rm", *flags, image, *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode not in (0, 1)
    assert [each.strip() for each in done.stderr.splitlines()] == [
        "fastapi-k8s: these settings are wrong:",
        line,
    ]


def test_several_workers_share_the_port_and_the_metrics(
    serve: Serve, postgres: Container, redis: Container
) -> None:
    with serve({"WEB_CONCURRENCY": "2"}) as service:
        wait_until(lambda: len(service.python(WORKERS).split()) == 2, 30, "the second worker")
        for _ in range(20):
            service.client.get("/version")
        lines = service.client.get("/metrics").text.splitlines()
        counted = [line for line in lines if 'route="/version"' in line and "_count" in line]
        assert json.loads(counted[0].split()[-1]) == 20
