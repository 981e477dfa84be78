"""The commands for production in README.md and docs/configuration.md start a ready service."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.template.pages import read_blocks
from tools.checkout import PROJECT, get_docker_environment
from tools.dev.servers import free_port, wait_until


def read_shell_blocks(page: str) -> list[str]:
    """Return the shell blocks of a page that need no more than Python."""
    return [text for info, text in read_blocks(PROJECT / page) if info == "sh"]


def run_until_ready(script: str, folder: Path, database_url: str) -> None:
    """Run the commands until the service that they start is ready, then end it."""
    port = str(free_port())
    environment = get_docker_environment()
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment["PORT"] = port
    environment["DATABASE_URL"] = database_url
    with subprocess.Popen(
        ["sh", "-ec", script], cwd=folder, env=environment, start_new_session=True
    ) as process:

        def is_ready() -> bool:
            assert process.poll() is None, "the server has ended"
            try:
                return httpx.get(f"http://127.0.0.1:{port}/ready").is_success
            except httpx.TransportError:
                return False

        try:
            wait_until(is_ready, 60, "the service")
        finally:
            os.killpg(process.pid, signal.SIGTERM)


async def test_the_pages_migrate_a_new_database_and_serve(
    empty_database: str, tmp_path: Path
) -> None:
    """The README shows both commands, docs/configuration.md only the one that serves."""
    # tests/integration/test_run.py runs the other blocks of the README.
    migrate_and_serve = read_shell_blocks("README.md")[-1]
    [serve] = read_shell_blocks("docs/configuration.md")
    run_until_ready(migrate_and_serve, tmp_path, empty_database)
    run_until_ready(serve, tmp_path, empty_database)
