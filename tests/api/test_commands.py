"""The two commands of the service, run as the image runs them, when they cannot do their work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastapi_k8s import NAME
from tools.dev.servers import free_port

PROGRAMS = Path(sys.executable).parent
MIGRATE = [str(PROGRAMS / NAME), "migrate"]
SERVE = [str(PROGRAMS / "gunicorn"), "-c", "python:fastapi_k8s.server"]
WATCHED_SERVE = """
import sys
sys.addaudithook(lambda event, arguments: event == "tempfile.mkdtemp" and print(arguments[0]))
sys.argv = ["gunicorn", "-c", "python:fastapi_k8s.server"]
from gunicorn.app.wsgiapp import run
run()
"""


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder without `.env`."""
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", [MIGRATE, SERVE], ids=["migrate", "serve"])
def test_without_a_database_url_it_says_so_and_ends_with_code_2(
    command: list[str], tmp_path: Path
) -> None:
    done = run(command, tmp_path, PORT=str(free_port()))
    assert done.returncode == 2
    assert [line.strip() for line in done.stderr.splitlines()] == [
        f"{NAME}: invalid settings:",
        "DATABASE_URL: Field required",
    ]
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("command", [MIGRATE, SERVE], ids=["migrate", "serve"])
def test_a_bad_setting_is_named_and_no_value_is_shown(command: list[str], tmp_path: Path) -> None:
    wrong = {"DATABASE_URL": "mysql://user:hidden@db/name", "CACHE_TTL": "hidden"}
    done = run(command, tmp_path, PORT=str(free_port()), **wrong)
    assert done.returncode == 2
    names = [line.split(":")[0].strip() for line in done.stderr.splitlines()[1:]]
    assert names == ["DATABASE_URL", "CACHE_TTL"]
    assert "hidden" not in done.stdout + done.stderr


def test_serving_with_wrong_settings_makes_no_directory_to_leave_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WATCHED_SERVE]
    done = run(command, tmp_path, PORT=str(free_port()))
    assert done.returncode == 2
    assert "metrics-" not in done.stdout


def test_migrating_without_a_server_is_one_message_and_code_1(tmp_path: Path) -> None:
    url = f"postgresql://user:hidden@127.0.0.1:{free_port()}/name"
    done = run([*MIGRATE, "--wait", "0"], tmp_path, DATABASE_URL=url)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"{NAME}: cannot use the database: ConnectionRefusedError(")
    assert "hidden" not in done.stdout + done.stderr
