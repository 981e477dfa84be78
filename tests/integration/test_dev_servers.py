"""The PostgreSQL and Valkey that `make run` and the tests start."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_run import processes_of
from tools.checkout import PROJECT
from tools.dev.servers import wait_until

START_SERVERS = """
import sys, time
from pathlib import Path
from tools.dev.servers import Postgres, Valkey

folder = Path(sys.argv[1])
Postgres(folder / "postgresql").start()
Valkey(folder / "valkey").start()
print("started", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_the_servers_end_with_the_process_that_started_them(
    tmp_path: Path, signal_number: signal.Signals
) -> None:
    """A test run that is killed cannot stop its servers itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", START_SERVERS, str(tmp_path)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        server_folders = [tmp_path / "postgresql", tmp_path / "valkey"]
        assert all(processes_of(folder) for folder in server_folders)
        process.send_signal(signal_number)
        process.communicate()
    finally:
        process.kill()
    wait_until(lambda: not processes_of(tmp_path), 30, "the exit of the servers")
