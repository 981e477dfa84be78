"""`make run`: the API with hot reload, on its own PostgreSQL and Valkey. Ctrl-C stops all of it."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dotenv import dotenv_values

import fastapi_k8s as package
from tools.checkout import PROJECT
from tools.dev.reload import serve
from tools.dev.servers import HOST, Postgres, Server, ServerError, Valkey, running_servers

DATA_FOLDER = PROJECT / ".local"

Environment = Mapping[str, str | None]
"""Variables by name. A line of .env without `=` gives the value None."""


def main() -> None:
    """Serve until Ctrl-C. Exits with a message and a code other than 0 if that is impossible."""
    for signal_number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, _raise_keyboard_interrupt)
    environment = {**dotenv_values(PROJECT / ".env"), **os.environ}
    try:
        port = _parse_free_port(environment.get("PORT") or "8000")
        with _exclusive_lock(), _missing_servers(environment) as urls:
            os.environ |= urls
            _migrate()
            _print_addresses(port)
            serve(HOST, port, environment.get("ROOT_PATH") or "")
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # the command has printed the reason
    except ServerError as error:
        sys.exit(f"run: {error}")
    except KeyboardInterrupt:
        pass


def _raise_keyboard_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _parse_free_port(text: str) -> int:
    """Return the port. Raises ServerError if it is not a port number or not available."""
    port = int(text) if text.isdecimal() else 0
    if not 1 <= port <= 65535:
        raise ServerError(f"PORT must be a number from 1 to 65535, not {text!r}.")
    try:
        with socket.socket() as probe:
            # As the server does: a port that was used a moment ago is available.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
    except OSError as error:
        raise ServerError(
            f"Port {port} is not available ({error.strerror}). Choose another: make run PORT=9000"
        ) from error
    return port


@contextmanager
def _exclusive_lock() -> Iterator[None]:
    """Hold a lock, because two processes must not use the same data folder."""
    DATA_FOLDER.mkdir(exist_ok=True)
    with (DATA_FOLDER / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerError("`make run` is already running in this folder.") from None
        yield


@contextmanager
def _missing_servers(environment: Environment) -> Iterator[dict[str, str]]:
    """Start a server for each URL that is not set, and yield their URLs by variable."""
    servers: dict[str, Server] = {}
    if "DATABASE_URL" not in environment:
        servers["DATABASE_URL"] = Postgres(DATA_FOLDER / "postgresql")
    if "REDIS_URL" not in environment:
        servers["REDIS_URL"] = Valkey(DATA_FOLDER / "valkey")
    with running_servers(*servers.values()):
        yield {variable: server.url for variable, server in servers.items()}


def _migrate() -> None:
    """Upgrade the database. Raises CalledProcessError if that fails."""
    command = Path(sys.executable).parent / package.NAME
    subprocess.run([command, "migrate"], check=True)


def _print_addresses(port: int) -> None:
    url = f"http://{HOST}:{port}"
    print(f"\n  API      {url}\n  Docs     {url}/docs\n  Metrics  {url}/metrics\n", flush=True)


if __name__ == "__main__":
    main()
