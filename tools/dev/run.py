"""`make run`: the service with reload, on servers of its own. Ctrl-C ends all of it."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dotenv import dotenv_values

import fastapi_k8s as package
from tools.dev.reload import serve
from tools.dev.servers import Postgres, Server, ServerError, Valkey, running

PROJECT = Path(__file__).resolve().parents[2]
LOCAL = PROJECT / ".local"
HOST = "127.0.0.1"


def main() -> None:
    """Serve until Ctrl-C. Leaves with a message and another code than 0 if that is impossible."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _interrupt)
    given = {**dotenv_values(PROJECT / ".env"), **os.environ}
    try:
        port = _usable_port(given.get("PORT") or "8000")
        with _lock(), _servers(given) as urls:
            os.environ |= urls
            command = Path(sys.executable).parent / package.NAME
            subprocess.run([command, "migrate"], check=True)
            _serve(port, given.get("ROOT_PATH") or "")
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # it has said why
    except ServerError as error:
        sys.exit(f"run: {error}")
    except KeyboardInterrupt:
        pass


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _usable_port(text: str) -> int:
    try:
        port = int(text) or -1  # 0 would be any port
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
    except (ValueError, OverflowError):
        raise ServerError(f"PORT must be a number from 1 to 65535, not {text!r}") from None
    except OSError as error:
        reason = f"port {text} cannot be used ({error.strerror})"
        raise ServerError(f"{reason}; choose another: PORT=9000 make run") from None
    return port


@contextmanager
def _lock() -> Iterator[None]:
    LOCAL.mkdir(exist_ok=True)
    with (LOCAL / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerError("`make run` is running in this folder already") from None
        yield


@contextmanager
def _servers(given: dict[str, str | None]) -> Iterator[dict[str, str]]:
    """Start the servers that no URL is given for, and give theirs."""
    postgres, valkey = Postgres(LOCAL / "postgresql"), Valkey(LOCAL / "valkey")
    wanted: dict[str, Server] = {}
    if "DATABASE_URL" not in given:
        wanted["DATABASE_URL"] = postgres
    if "REDIS_URL" not in given:
        wanted["REDIS_URL"] = valkey
    with running(*wanted.values()):
        yield {name: server.url for name, server in wanted.items()}


def _serve(port: int, root_path: str) -> None:
    url = f"http://{HOST}:{port}"
    print(f"\n  API      {url}\n  Docs     {url}/docs\n  Metrics  {url}/metrics\n", flush=True)
    serve(HOST, port, root_path)


if __name__ == "__main__":
    main()
