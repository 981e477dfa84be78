"""The command line program: subcommands, exit codes and messages."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastapi_k8s import NAME, cli
from fastapi_k8s.migrations.migrate import MigrationError
from tools.dev.servers import free_port

COMMAND = Path(sys.executable).parent / NAME

RunMigrate = Callable[[Exception], None]


@pytest.fixture
def run_migrate(monkeypatch: pytest.MonkeyPatch) -> RunMigrate:
    """A function that runs `migrate`, which fails with this exception."""

    def run(error: Exception) -> None:
        async def fail(*_: object) -> None:
            raise error

        monkeypatch.setenv("DATABASE_URL", "postgresql://db/name")
        monkeypatch.setattr(sys, "argv", [NAME, "migrate"])
        monkeypatch.setattr(cli, "migrate", fail)
        monkeypatch.setattr("logging.config.dictConfig", lambda _: None)
        monkeypatch.setattr("signal.signal", lambda *_: None)
        cli.main()

    return run


@pytest.mark.parametrize("arguments", [[], ["unknown"]], ids=["no subcommand", "unknown"])
def test_without_a_valid_subcommand_the_exit_code_is_2_and_the_subcommands_are_named(
    arguments: list[str],
) -> None:
    process = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert process.stdout == ""
    usage, error = process.stderr.splitlines()
    assert usage.startswith(f"usage: {NAME} ")
    assert error.startswith(f"{NAME}: error: ")
    assert "migrate" in error


def test_a_migration_that_cannot_run_now_ends_with_its_message(run_migrate: RunMigrate) -> None:
    with pytest.raises(SystemExit, match=f"^{NAME}: another process is migrating$"):
        run_migrate(MigrationError("another process is migrating"))


@pytest.mark.parametrize("error", [FileNotFoundError("versions"), PermissionError("/tmp")])
def test_an_error_in_a_migration_is_not_reported_as_an_unavailable_database(
    run_migrate: RunMigrate, error: Exception
) -> None:
    with pytest.raises(type(error)):
        run_migrate(error)


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_migrate_without_a_traceback_while_it_waits(
    signal_number: signal.Signals,
) -> None:
    url = f"postgresql://user:hidden@127.0.0.1:{free_port()}/name"
    with subprocess.Popen(
        [COMMAND, "migrate"],
        env=os.environ | {"DATABASE_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            assert "waiting: cannot use the database" in process.stdout.readline()
            process.send_signal(signal_number)
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 128 + signal_number
    assert "Traceback" not in output + errors
