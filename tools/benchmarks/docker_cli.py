"""The `docker` command for benchmarks, which leave nothing behind when they are interrupted."""

import signal
import sys
from collections.abc import Callable
from subprocess import PIPE, Popen
from typing import NamedTuple


class Output(NamedTuple):
    """What a command printed."""

    stdout: str
    stderr: str


def docker(*arguments: str) -> Output:
    """Run `docker` with `arguments`. Exits with the command's message if it fails.

    The command gets a process group of its own: Ctrl-C would otherwise end a `docker create` or
    `docker run` half-way, and the container would appear after `remove_containers` has run. Only a
    build is interrupted.
    """
    command = ["docker", *arguments]
    with Popen(command, process_group=0, stdout=PIPE, stderr=PIPE, text=True) as process:
        try:
            stdout, stderr = process.communicate()
        except SystemExit:
            if arguments[0] == "build":
                process.send_signal(signal.SIGINT)
            process.communicate()
            raise
    if process.returncode:
        sys.exit(f"bench: {' '.join(command)} failed:\n{stdout}{stderr}")
    return Output(stdout, stderr)


def remove_containers(label: str) -> None:
    """Remove every container with `label`, running or not. Signals are ignored from here on."""
    _handle_interrupts(signal.SIG_IGN)
    containers = docker("ps", "--all", "--quiet", f"--filter=label={label}").stdout.split()
    if containers:
        docker("rm", "--force", *containers)


def remove_images(repository: str) -> None:
    """Remove every tag of `repository`. Signals are ignored from here on."""
    _handle_interrupts(signal.SIG_IGN)
    tags = docker("image", "ls", "--format={{.Repository}}:{{.Tag}}", repository).stdout.split()
    if tags:
        docker("image", "rm", *tags)


def exit_on_interrupt() -> None:
    """From now on, SIGINT and SIGTERM raise SystemExit once, so that `finally` blocks run."""
    _handle_interrupts(_exit)


def _exit(*_: object) -> None:
    # One Ctrl-C can deliver SIGINT twice, since uv forwards it. The second must not end cleanup.
    _handle_interrupts(signal.SIG_IGN)
    sys.exit(130)


def _handle_interrupts(handler: Callable[..., None] | signal.Handlers) -> None:
    for interrupt in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interrupt, handler)
