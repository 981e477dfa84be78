"""The `docker` command for benchmarks, which leave nothing behind when they are interrupted."""

import signal
import subprocess
import sys
from collections.abc import Callable
from subprocess import PIPE, Popen
from time import monotonic, sleep
from typing import NamedTuple
from urllib.request import ProxyHandler, build_opener

HARDENED = ("--read-only", "--cap-drop=ALL", "--tmpfs=/tmp", "--security-opt=no-new-privileges")
"""Options for a container that may do as little as the image needs."""

START_TIMEOUT_SECONDS = 60

DIRECT_CLIENT = build_opener(ProxyHandler({}))
"""A client for this machine, which ignores a proxy that the developer's shell sets."""


class Output(NamedTuple):
    """What a command printed."""

    stdout: str
    stderr: str


def docker(*arguments: str) -> Output:
    """Run `docker` with `arguments`. Exits with the command's message if it fails.

    The command runs in its own process group: Ctrl-C would otherwise end a `docker create` or
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


def compressed_mb(image: str) -> float:
    """The size of an image as a registry stores it, in megabytes of 10^6 bytes."""
    return int(subprocess.getoutput(f"docker save {image} | gzip | wc -c")) / 1e6


def wait_for_health(url: str, container: str) -> None:
    """Return when GET /health at `url` returns 200. Exits with the log if it never does."""
    deadline = monotonic() + START_TIMEOUT_SECONDS
    while not _is_healthy(url):
        if monotonic() > deadline:
            log = "".join(docker("logs", container))
            sys.exit(f"bench: no response in {START_TIMEOUT_SECONDS} s:\n{log}")
        sleep(0.01)


def _is_healthy(url: str) -> bool:
    try:
        with DIRECT_CLIENT.open(f"{url}/health", timeout=1) as response:
            return bool(response.status == 200)
    except OSError:
        return False


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
