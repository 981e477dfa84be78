"""`make fuzz`: run Schemathesis against the service, with its own PostgreSQL and Valkey.

The arguments are options of `schemathesis run`, such as `--max-examples 1000` or `--seed 1`.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from fastapi_k8s import NAME, server
from tools.checkout import PROJECT
from tools.dev.servers import HOST, Postgres, Valkey, free_port, running_servers

CONFIG_FILE = PROJECT / "tools" / "fuzz" / "schemathesis.toml"
START_TIMEOUT_SECONDS = 60


def main() -> None:
    """Exit with the code of Schemathesis, which is 1 if a response is not as documented."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # PostgreSQL runs as another user than root
        postgres = Postgres(Path(folder) / "postgresql")
        valkey = Valkey(Path(folder) / "valkey")
        with (
            running_servers(postgres, valkey),
            _running_service(DATABASE_URL=postgres.url, REDIS_URL=valkey.url) as url,
        ):
            command = schemathesis_command(url, *sys.argv[1:])
            # A proxy that the developer's shell sets cannot connect to this machine.
            environment = {**os.environ, "NO_PROXY": HOST, "no_proxy": HOST}
            code = subprocess.run(command, cwd=PROJECT, env=environment, check=False).returncode
    sys.exit(code)


def schemathesis_command(url: str, *options: str, config_file: Path = CONFIG_FILE) -> list[str]:
    """The command that tests the service at `url`. It has to run in the folder of the project."""
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config_file)]
    command += ["run", f"{url}/openapi.json", "--checks=all"]
    command += [f"--wait-for-schema={START_TIMEOUT_SECONDS}"]
    return [*command, *options]


@contextmanager
def _running_service(**variables: str) -> Iterator[str]:
    """Migrate the database, run Gunicorn, and yield the URL of the service."""
    port = free_port()
    # Access log lines would be between those of Schemathesis.
    environment = {**os.environ, **variables, "PORT": str(port), "LOG_LEVEL": "WARNING"}
    subprocess.run([Path(sys.executable).parent / NAME, "migrate"], env=environment, check=True)
    command = [sys.executable, "-m", "gunicorn", "-c", f"python:{server.__name__}"]
    with subprocess.Popen(command, env=environment) as gunicorn:
        try:
            yield f"http://{HOST}:{port}"
        finally:
            gunicorn.terminate()


if __name__ == "__main__":
    main()
