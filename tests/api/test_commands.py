"""What the two commands of the image print, and how they exit, if they cannot do their work."""

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
PRINT_TEMPORARY_FOLDERS_AND_SERVE = """
import sys
from gunicorn.app.wsgiapp import run

def print_temporary_folder(event, arguments):
    if event == "tempfile.mkdtemp":
        print(arguments[0])

sys.addaudithook(print_temporary_folder)
sys.argv = ["gunicorn", "-c", "python:fastapi_k8s.server"]
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
def test_each_invalid_setting_is_reported_in_one_line_and_the_exit_code_is_2(
    command: list[str], tmp_path: Path
) -> None:
    process = run(command, tmp_path, PORT=str(free_port()), CACHE_TTL="hidden")
    assert process.returncode == 2
    heading, missing, invalid = process.stderr.splitlines()
    assert heading == f"{NAME}: invalid settings:"
    assert missing.strip() == "DATABASE_URL: Field required"
    assert invalid.strip().startswith("CACHE_TTL: ")
    assert "hidden" not in process.stdout + process.stderr
    assert "Traceback" not in process.stdout


def test_the_server_does_not_create_its_metrics_folder_if_a_setting_is_invalid(
    tmp_path: Path,
) -> None:
    """Nothing would remove the folder."""
    command = [sys.executable, "-c", PRINT_TEMPORARY_FOLDERS_AND_SERVE]
    url = "mysql://user:hidden@db/name"
    process = run(command, tmp_path, PORT=str(free_port()), DATABASE_URL=url)
    assert process.returncode == 2
    assert "DATABASE_URL: " in process.stderr
    assert "hidden" not in process.stdout + process.stderr
    assert "metrics-" not in process.stdout


def test_migrate_reports_an_unreachable_database_in_one_line_and_exits_with_code_1(
    tmp_path: Path,
) -> None:
    url = f"postgresql://user:hidden@127.0.0.1:{free_port()}/name"
    process = run([*MIGRATE, "--wait", "0"], tmp_path, DATABASE_URL=url)
    assert process.returncode == 1
    [line] = process.stderr.splitlines()
    assert line.startswith(f"{NAME}: cannot use the database: ConnectionRefusedError(")
    assert "hidden" not in process.stdout + process.stderr
