"""`make run` and `make revision` in a fresh copy of the project, as in the README's quick start."""

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
from tests.template.pages import read_blocks  # template
from tools.checkout import PROJECT, copy_checkout
from tools.dev.servers import Postgres, Valkey, free_port, wait_until

TEST_RUN_VARIABLES = re.compile(
    "VIRTUAL_ENV|COV.*|UV(_PROJECT.*|_RUN.*)?|MAKE.*|MFLAGS|PYTHONPATH|PYTEST.*"
)
"""Variables of this test run, which the shell of a developer does not have."""

FIRST_START_TIMEOUT_SECONDS = 300
"""The first start installs all packages."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout at a long path with a space."""
    return copy_checkout(tmp_path_factory.mktemp("a copy") / ("long" * 30))


def shell_environment() -> dict[str, str]:
    """The environment of this process without the variables of the test run."""
    return {
        name: value for name, value in os.environ.items() if not TEST_RUN_VARIABLES.fullmatch(name)
    }


class MakeRun:
    """A `make run` process in its own terminal session."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.port = environment.setdefault("PORT", str(free_port()))
        self.url = f"http://127.0.0.1:{self.port}"
        self._log_file = folder.parent / "output"
        with self._log_file.open("w") as log:
            self.process = subprocess.Popen(
                ["make", "run"],
                cwd=folder,
                env=shell_environment() | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._log_file.read_text()

    def wait_until_ready(self) -> None:
        wait_until(self.is_ready, FIRST_START_TIMEOUT_SECONDS, "the API")

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.output
        try:
            return httpx.get(f"{self.url}/ready").status_code == 200
        except httpx.TransportError:
            return False

    def press_ctrl_c(self) -> int:
        """Send SIGINT to every process of the session, and return the exit code of make."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(60)


@contextmanager
def make_run(folder: Path, **environment: str) -> Iterator[MakeRun]:
    """Run `make run` until it is ready, and stop it at the end of the block."""
    run = MakeRun(folder, **environment)
    try:
        run.wait_until_ready()
        yield run
    finally:
        run.press_ctrl_c()


def processes_of(folder: Path) -> list[str]:
    """The command lines that contain the folder's path."""
    command = ["ps", "-eww", "-o", "args"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line for line in result.stdout.splitlines() if str(folder) in line]


def output_pattern(expected: str) -> str:  # template
    """A regular expression for an expected output, in which … stands for any text."""
    return re.escape(expected.strip()).replace("…", '[^"]+')


def test_the_quick_start_of_the_readme_prints_what_it_shows(copy: Path) -> None:  # template
    """Runs its shell blocks; a JSON block is the output of the block before it."""
    if not shutil.which("curl"):
        pytest.skip("curl is not installed.")
    readme = read_blocks(PROJECT / "README.md")
    *steps, production = (block for block in readme if block[0] in {"sh", "json"})
    assert (steps[0], steps[-1]) == (("sh", "make run\n"), ("sh", "make test\n"))
    assert "gunicorn" in production[1]  # test_docs.py runs this block
    with make_run(copy) as run:
        printed = ""
        for language, text in steps[1:-1]:
            if language == "sh":
                command = text.replace("8000", run.port)
                printed = subprocess.check_output(["sh", "-c", command], text=True)
            else:
                assert json.loads(printed)
                assert re.fullmatch(output_pattern(text), printed.strip())
        for path in ("", "/docs", "/metrics"):
            assert f"{run.url}{path}\n" in run.output


def test_ctrl_c_leaves_no_process(copy: Path) -> None:
    with make_run(copy) as run:
        assert processes_of(copy)
        run.press_ctrl_c()
    wait_until(lambda: not processes_of(copy), 20, "the exit of all processes")


def test_the_data_survives_a_restart(copy: Path) -> None:  # example
    with make_run(copy) as run:
        created = httpx.post(f"{run.url}/items", json={"name": "Lamp"})
    with make_run(copy) as run:
        item = httpx.get(f"{run.url}{created.headers['location']}")
        assert item.json()["name"] == "Lamp"


def test_after_a_kill_the_next_run_starts_and_stops_the_orphaned_servers(copy: Path) -> None:
    with make_run(copy) as run:
        os.killpg(run.process.pid, signal.SIGKILL)
        run.process.wait()
    with make_run(copy):
        pass
    wait_until(lambda: not processes_of(copy), 20, "the exit of all processes")


def test_an_edit_appears_without_a_restart(copy: Path) -> None:
    [health] = (copy / "src").glob("*/health.py")
    with make_run(copy) as run:
        health.write_text(health.read_text().replace("Liveness: the", "Liveness, edited: the"))
        wait_until(lambda: is_edited(f"{run.url}/openapi.json"), 30, "the reload")


def test_a_new_and_a_deleted_file_appear_without_a_restart(copy: Path) -> None:
    """A new migration makes the schema outdated. Without it, the schema is up to date again."""
    [versions] = (copy / "src").glob("*/migrations/versions")
    migration = versions / "9999_new.py"
    with make_run(copy) as run:
        migration.write_text(f'revision = "9999"\ndown_revision = "{newest_revision()}"\n')
        try:
            wait_until(lambda: database_state(run) == "behind", 30, "the new migration")
        finally:
            migration.unlink()
        wait_until(lambda: database_state(run) == "ok", 30, "the migration's end")


def database_state(run: MakeRun) -> str | None:
    """The state of the database in the readiness report, or None while the API restarts."""
    try:
        report = httpx.get(f"{run.url}/ready").json()
    except httpx.TransportError:
        return None
    return str(report["checks"]["database"])


def is_edited(url: str) -> bool:
    try:
        return "edited" in httpx.get(url).text
    except httpx.TransportError:
        return False


def test_with_both_urls_set_it_starts_no_server(copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(copy / ".local", ignore_errors=True)
    postgres, valkey = Postgres(tmp_path / "postgresql"), Valkey(tmp_path / "valkey")
    try:
        postgres.start()
        valkey.start()
        with make_run(copy, DATABASE_URL=postgres.url, REDIS_URL=valkey.url) as run:
            ready = httpx.get(f"{run.url}/ready").json()
            assert ready["checks"] == {"database": "ok", "cache": "ok"}
            assert {path.name for path in (copy / ".local").iterdir()} == {"lock"}
    finally:
        postgres.stop()
        valkey.stop()


@pytest.mark.parametrize("port", ["occupied", "many", "70000", "0"])
def test_an_unusable_port_is_named_in_the_message(copy: Path, port: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        if port == "occupied":
            port = str(listener.getsockname()[1])
        run = MakeRun(copy, PORT=port)
        assert run.process.wait(60) != 0
    assert port in run.output
    assert "Traceback" not in run.output


def test_a_second_run_in_the_same_folder_is_refused(copy: Path) -> None:
    with make_run(copy):
        second = MakeRun(copy)
        assert second.process.wait(60) != 0
        assert "already running" in second.output


def make_revision(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `make revision` where Docker is not available."""
    return subprocess.run(
        ["make", "revision", *arguments],
        cwd=folder,
        env=shell_environment() | {"DOCKER_HOST": "unix:///nowhere.sock"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_revision_creates_the_next_migration_without_docker(copy: Path) -> None:
    newest = newest_revision()
    process = make_revision(copy, 'MESSAGE=add "orders"')
    assert process.returncode == 0, process.stderr
    [path] = copy.glob(f"src/*/migrations/versions/{int(newest) + 1:04}_add_orders.py")
    try:
        assert process.stdout.splitlines()[-1] == str(path.relative_to(copy))
        assert f'down_revision = "{newest}"' in path.read_text()
    finally:
        path.unlink()  # the other tests of this folder would migrate to it


def test_revision_without_a_message_shows_how_to_give_one(copy: Path) -> None:
    process = make_revision(copy)
    assert process.returncode != 0
    assert 'make revision MESSAGE="add orders"' in process.stderr
