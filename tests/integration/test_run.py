"""`make run` in a fresh copy of the project, as the README's quick start has it."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from fastapi_k8s.migrations import newest_revision
from tests.checkout import PROJECT, copy_checkout
from tests.template.pages import read_blocks  # template
from tools.dev.servers import Postgres, Valkey, free_port, wait_until

OURS = re.compile(r"VIRTUAL_ENV|COV.*|UV(_PROJECT.*|_RUN.*)?|MAKE.*|MFLAGS|PYTHONPATH|PYTEST.*")
"""Variables of this test run, which a person's shell would not have."""

START_TIMEOUT = 300
"""Seconds for the first start, which installs everything."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git knows, at a long path with a space."""
    return copy_checkout(tmp_path_factory.mktemp("a copy") / ("long" * 30))


def as_in_a_terminal() -> dict[str, str]:
    """The environment of this process without the variables of the test run."""
    return {name: value for name, value in os.environ.items() if not OURS.fullmatch(name)}


class Run:
    """A `make run` in a terminal of its own."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.port = environment.setdefault("PORT", str(free_port()))
        self.log = folder.parent / "output"
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                ["make", "run"],
                cwd=folder,
                env=as_in_a_terminal() | environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait(self) -> None:
        wait_until(self.ready, START_TIMEOUT, "the service")

    def ready(self) -> bool:
        assert self.process.poll() is None, self.output
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/ready").status_code == 200
        except httpx.TransportError:
            return False

    def end(self) -> int:
        """Press Ctrl-C, which reaches every process of the terminal, and give the exit code."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(60)


@contextmanager
def running(folder: Path, **environment: str) -> Iterator[Run]:
    run = Run(folder, **environment)
    try:
        run.wait()
        yield run
    finally:
        run.end()


def processes_of(folder: Path) -> list[str]:
    shown = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True)
    return [line for line in shown.stdout.splitlines() if str(folder) in line]


def as_pattern(text: str) -> str:  # template
    """A regular expression for an expected output, in which … stands for anything."""
    return re.escape(text.strip()).replace("…", '[^"]+')


def test_the_quick_start_of_the_readme_does_what_it_shows(copy: Path) -> None:  # template
    """Its shell blocks are run; a JSON block is what the one before it prints."""
    readme = read_blocks(PROJECT / "README.md")
    *steps, production = (block for block in readme if block[0] in {"sh", "json"})
    assert (steps[0], steps[-1]) == (("sh", "make run\n"), ("sh", "make test\n"))
    assert "gunicorn" in production[1]  # test_docs.py follows it
    with running(copy) as run:
        printed = ""
        for language, text in steps[1:-1]:
            if language == "sh":
                command = text.replace("8000", run.port)
                printed = subprocess.check_output(["sh", "-c", command], text=True)
            else:
                assert json.loads(printed)
                assert re.fullmatch(as_pattern(text), printed.strip())
        url = f"http://127.0.0.1:{run.port}"
        assert all(f"{url}{path}\n" in run.output for path in ("", "/docs", "/metrics"))


def test_revision_creates_the_next_migration_without_docker(copy: Path) -> None:
    environment = as_in_a_terminal() | {"DOCKER_HOST": "unix:///nowhere.sock"}
    newest = newest_revision()
    printed = subprocess.check_output(
        ["make", "revision", 'MESSAGE=add "orders"'], cwd=copy, env=environment, text=True
    )
    [path] = copy.glob(f"src/*/migrations/versions/{int(newest) + 1:04}_add_orders.py")
    try:
        assert printed.splitlines()[-1] == str(path.relative_to(copy))
        assert f'down_revision = "{newest}"' in path.read_text()
    finally:
        path.unlink()


def test_revision_without_a_message_shows_how_to_give_one(copy: Path) -> None:
    done = subprocess.run(
        ["make", "revision"],
        cwd=copy,
        env=as_in_a_terminal(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert 'make revision MESSAGE="add orders"' in done.stderr


def test_ctrl_c_leaves_no_process(copy: Path) -> None:
    with running(copy) as run:
        assert processes_of(copy)
        run.end()
    wait_until(lambda: not processes_of(copy), 20, "the end of its processes")


def test_the_data_survives_a_restart(copy: Path) -> None:  # example
    with running(copy) as run:
        answer = httpx.post(f"http://127.0.0.1:{run.port}/items", json={"name": "Kept"})
    with running(copy) as run:
        kept = httpx.get(f"http://127.0.0.1:{run.port}{answer.headers['location']}")
        assert kept.json()["name"] == "Kept"


def test_a_leftover_of_a_killed_run_does_not_keep_the_next_from_starting(copy: Path) -> None:
    with running(copy) as run:
        os.killpg(run.process.pid, signal.SIGKILL)
        run.process.wait()
    with running(copy):
        pass
    wait_until(lambda: not processes_of(copy), 20, "the end of the leftover")


def test_an_edit_shows_in_the_next_answers(copy: Path) -> None:
    [health] = (copy / "src").glob("*/health.py")
    with running(copy) as run:
        health.write_text(health.read_text().replace("Liveness: the", "Liveness, edited: the"))
        wait_until(lambda: edited(f"http://127.0.0.1:{run.port}/openapi.json"), 30, "the reload")


def edited(url: str) -> bool:
    try:
        return "edited" in httpx.get(url).text
    except httpx.TransportError:
        return False


def test_with_urls_given_it_starts_no_server(copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(copy / ".local", ignore_errors=True)
    postgres, valkey = Postgres(tmp_path / "postgresql"), Valkey(tmp_path / "valkey")
    try:
        postgres.start()
        valkey.start()
        with running(copy, DATABASE_URL=postgres.url, REDIS_URL=valkey.url) as run:
            ready = httpx.get(f"http://127.0.0.1:{run.port}/ready").json()
            assert ready["checks"] == {"database": "ok", "cache": "ok"}
            assert {path.name for path in (copy / ".local").iterdir()} == {"lock"}
    finally:
        postgres.stop()
        valkey.stop()


@pytest.mark.parametrize("port", ["taken", "many", "70000", "0"])
def test_an_unusable_port_is_named(copy: Path, port: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        given = str(taken.getsockname()[1]) if port == "taken" else port
        run = Run(copy, PORT=given)
        assert run.process.wait(60) != 0
    assert given in run.output
    assert "Traceback" not in run.output


def test_two_at_once_in_one_folder_are_refused(copy: Path) -> None:
    with running(copy):
        second = Run(copy)
        assert second.process.wait(60) != 0
