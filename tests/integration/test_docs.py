"""README.md and docs/configuration.md: the commands that production runs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.checkout import PROJECT, inherited
from tests.template.pages import read_blocks
from tools.dev.servers import free_port, wait_until


def follow(block: str, folder: Path, database_url: str) -> None:
    """Run a block until the service is ready, then end it."""
    port = str(free_port())
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PATH": path, "PORT": port, "DATABASE_URL": database_url}
    with subprocess.Popen(
        ["sh", "-ec", block], cwd=folder, env=inherited() | own, start_new_session=True
    ) as process:

        def ready() -> bool:
            assert process.poll() is None, "the server has ended"
            try:
                return httpx.get(f"http://127.0.0.1:{port}/ready").is_success
            except httpx.TransportError:
                return False

        try:
            wait_until(ready, 60, "the service")
        finally:
            os.killpg(process.pid, signal.SIGTERM)


async def test_a_new_database_is_migrated_and_served_as_the_pages_say(
    empty_database: str, tmp_path: Path
) -> None:
    """The README does both, docs/configuration.md only serves."""
    pages = (PROJECT / "README.md", PROJECT / "docs" / "configuration.md")
    readme, configuration = (
        [text for info, text in read_blocks(page) if info == "sh"] for page in pages
    )
    *_, both = readme  # test_run.py follows the others
    [serve] = configuration
    for block in (both, serve):
        follow(block, tmp_path, empty_database)
